"""A real Choria Server in provisioning mode, and Choria's own client as its provisioner, through a deployment."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import ConnectRefusedError, connect
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.secret import Secret
from broker_auth.tokens.bounds import Bounds, make_bounds
from broker_auth.tokens.issue import SigningKey, load_signing_key, provisioning_claims
from tests.builders.buckets import shared_revocations
from tests.builders.clock import HOUR
from tests.builders.tokens import rsa_key
from tests.interop.choria_program import STARTUP_SECONDS, Choria, ChoriaRefused, found_by_ping, server

pytestmark = pytest.mark.e2e

ACCESS_TOKEN = "s3cret"  # the token that the node expects from its provisioner


@pytest.mark.parametrize("protocol_v2", [False, True], ids=["protocol 1", "protocol 2"])
async def test_server_waits_to_be_provisioned(choria_server: Choria, tmp_path: Path, *, protocol_v2: bool) -> None:
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        write_token(sandbox, choria_server.directory, protocol_v2=protocol_v2)
        identity = await announced(sandbox, choria_server)
        record = sandbox.audit_record(identity)
        assert record is not None
        assert (record.decision, record.rule, record.account) == ("admit", "provisioning", "provisioning")
        denied = (tmp_path / "choria.log").read_text()
        assert "permissions violation" not in denied.lower()


async def test_choria_discovers_and_queries_it(choria_server: Choria, tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        write_token(sandbox, choria_server.directory, protocol_v2=False)
        configuration = write_client_configuration(sandbox, tmp_path)
        async with server(choria_server, tmp_path / "choria.log"):
            identity = await until_found(choria_server, configuration)
            # Addressed to this node only, so it uses the subject that isolation allows.
            asked = ("req", "choria_provision", "jwt", f"token={ACCESS_TOKEN}", "-I", identity, "--json")
            answer = json.loads(await as_provisioner(choria_server, configuration, *asked))
            presented = answer["replies"][0]["data"]["jwt"]
            assert presented == (choria_server.directory / "provisioning.jwt").read_text()


@pytest.mark.parametrize(
    ("name", "code"), [("/.+/", "admitted"), ("another.example.net", "node_name_not_allowed")], ids=["its", "another"]
)
async def test_server_with_a_token_for_certain_names(
    choria_server: Choria, tmp_path: Path, name: str, code: str
) -> None:
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        write_token(sandbox, choria_server.directory, protocol_v2=True, bounds=make_bounds([name], ["127.0.0.0/8"]))
        async with server(choria_server, tmp_path / "choria.log"):
            assert await until_decided(sandbox) == {code}


async def test_server_with_a_token_for_a_number_of_nodes(choria_server: Choria, tmp_path: Path) -> None:
    """It presents the token like any other, is counted by its name, and uses the token up."""
    directory = tmp_path / "s"  # short, because sockets are in it
    async with Sandbox(directory, changes=shared_revocations(directory)) as sandbox:
        await sandbox.apply_streams()
        write_token(sandbox, choria_server.directory, protocol_v2=True, bounds=make_bounds([], [], 1))
        async with server(choria_server, tmp_path / "choria.log"), asyncio.timeout(STARTUP_SECONDS):
            while "admitted" not in await until_decided(sandbox):  # it tries again if the bucket is not known yet
                await asyncio.sleep(0.1)
        token = (choria_server.directory / "provisioning.jwt").read_text()
        with pytest.raises(ConnectRefusedError):
            await connect(sandbox.node_url, "another", dataclasses.replace(sandbox.credentials("node"), token=token))
        record = sandbox.audit_record("another")
        assert record is not None
        assert record.code == "token_used_up"


async def test_server_with_an_untrusted_token_is_denied(choria_server: Choria, tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "sandbox") as sandbox:
        foreign = load_signing_key(rsa_key("foreign signer").private_pem, "foreign signer")
        write_token(sandbox, choria_server.directory, protocol_v2=False, key=foreign)
        async with server(choria_server, tmp_path / "choria.log"):
            codes = await until_decided(sandbox)
        assert codes == {"token_signature"}


# --- The node


def write_token(
    sandbox: Sandbox,
    directory: Path,
    *,
    protocol_v2: bool,
    key: SigningKey | None = None,
    bounds: Bounds | None = None,
) -> None:
    url = sandbox.node_url.replace("tls://", "nats://")  # as Choria writes them; it always uses TLS
    claims = provisioning_claims(
        now=time.time(),
        validity=HOUR,
        token=Secret(ACCESS_TOKEN),
        urls=[url],
        default=True,
        protocol_v2=protocol_v2,
        bounds=bounds,
    )
    signer = key or load_signing_key((sandbox.directory / "pki" / "signer.key").read_bytes(), "signer")
    (directory / "provisioning.jwt").write_text(signer.sign(claims))


async def announced(sandbox: Sandbox, choria: Choria) -> str:
    """Return the identity a starting server announces to its provisioner."""
    first: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    async def hear(message: Msg) -> None:
        if not first.done():
            first.set_result(message)

    provisioner = await connect(sandbox.fleet_url, "provisioner", sandbox.credentials("provisioner"))
    try:
        await provisioner.subscribe("choria.lifecycle.event.startup.provision_mode_server", cb=hear)
        await round_trip(provisioner)
        async with server(choria, choria.directory / "choria.log"):
            event = json.loads((await asyncio.wait_for(first, STARTUP_SECONDS)).data)
    finally:
        await provisioner.close()
    identity = event["data"]["identity"]
    assert isinstance(identity, str)
    return identity


async def until_decided(sandbox: Sandbox) -> set[str]:
    """Wait for a decision about a node and return the codes."""
    async with asyncio.timeout(STARTUP_SECONDS):
        while not (codes := {record.code for record in sandbox.audit_records() if record.rule == "provisioning"}):
            await asyncio.sleep(0.05)
    return codes


# --- Its provisioner


def write_client_configuration(sandbox: Sandbox, directory: Path) -> Path:
    pki = sandbox.directory / "pki"
    settings = {
        "collectives": "provisioning",
        "main_collective": "provisioning",
        "identity": "provisioner.example.net",
        "plugin.choria.middleware_hosts": sandbox.fleet_url.replace("tls://", "nats://"),
        "plugin.nats.user": "provisioner",
        "plugin.nats.pass": sandbox.settings.provisioning.client_passwords[0].reveal(),
        "plugin.security.provider": "file",
        "plugin.security.file.ca": pki / "ca.pem",
        "plugin.security.file.certificate": pki / "provisioner.pem",
        "plugin.security.file.key": pki / "provisioner.key",
        "plugin.security.file.cache": directory / "cache",
    }
    file = directory / "client.conf"
    file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
    file.chmod(0o600)
    return file


async def until_found(choria: Choria, configuration: Path) -> str:
    """Return the identity that ``choria ping`` finds."""
    async with asyncio.timeout(STARTUP_SECONDS):
        while True:
            answers = await as_provisioner(choria, configuration, "ping")
            if identity := found_by_ping(answers):
                return identity[0]


async def as_provisioner(choria: Choria, configuration: Path, *arguments: str) -> str:
    command = (*arguments, "--config", str(configuration))
    try:
        return await asyncio.to_thread(choria.run, *command)
    except ChoriaRefused as refused:
        return str(refused)
