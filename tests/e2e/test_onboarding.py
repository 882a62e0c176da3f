"""From factory to fleet: the programs of ``examples/onboarding`` run as processes against real deployments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from nats.aio.msg import Msg
from sealed import read_secret, seal

from broker_auth.deploy.pki import CertificateAuthority, Pair, Validity
from broker_auth.deploy.plan import Topology
from broker_auth.files.writing import write_private
from broker_auth.natsio.client import round_trip
from broker_auth.sandbox.client import connect
from broker_auth.sandbox.devices import EVENT, Factory, ask
from broker_auth.sandbox.program import Program
from broker_auth.sandbox.sandbox import Sandbox
from tests.callout.deployment import eventually
from tests.docs.pages import DOCS, fenced
from tests.mixed import MIXED

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
SHORT: Final = 8.0  # seconds of validity of an expiring credential; enough to log in


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Yield a deployment where members have certificates."""
    async with Sandbox(tmp_path_factory.mktemp("edge") / "sandbox") as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sandbox]:
    """Yield a deployment where members have tokens."""
    async with Sandbox(tmp_path_factory.mktemp("single") / "sandbox", Topology.SINGLE) as deployment:
        yield deployment


@pytest.fixture(params=["edge", "single"])
def deployment(request: pytest.FixtureRequest) -> Sandbox:
    """Return each of the two deployments."""
    chosen: Sandbox = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a node's identity that no other test uses."""
    return f"{request.node.originalname.removeprefix('test_')[:40]}.example.net".replace("_", "-")


async def test_node_becomes_member_and_both_survive_restarts(deployment: Sandbox, tmp_path: Path, name: str) -> None:
    factory = Factory(deployment, tmp_path)
    factory.make(name)
    async with factory.start_node(name) as node:  # no provisioner runs yet
        await node.line("waiting:")
        async with factory.start_provisioner() as provisioner:
            assert await node.line("member:") == f"{name} in account choria"
            assert await provisioner.line("provisioned:") == name
            assert await provisioner.stop() == 0
        assert await ask(deployment, name) == "yes"
        assert await node.stop() == 0

    def rules() -> list[str]:
        return [record.rule for record in deployment.audit_records() if name in (record.client, record.name)]

    await eventually(lambda: len(rules()) >= 2)  # records are written shortly after the answers
    assert rules() == ["provisioning", "server" if deployment.topology is Topology.SINGLE else "verified_tls"]
    async with factory.start_node(name) as node:  # it has its identity, so it needs no provisioner
        await node.line("member:")
        assert node.seen == [f"member: {name} in account choria"]

    (tmp_path / name / "member.json").unlink()  # the node lost the answer, not its key
    factory.make(f"second.{name}")
    async with factory.start_provisioner() as provisioner, factory.start_node(name) as node:
        assert await provisioner.line("provisioned:") == name
        await node.line("member:")
        async with factory.start_node(f"second.{name}") as second:
            await second.line("member:")


async def test_programs_reconnect_after_expiry_or_exit_with_the_reason(
    edge: Sandbox, single: Sandbox, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as cases:  # concurrently, because each waits for an expiry
        for case in (
            identity_expires(edge, tmp_path / "certificate"),
            identity_expires(single, tmp_path / "token"),
            node_token_is_renewed(edge, tmp_path / "renewed-token"),
            node_token_expires(edge, tmp_path / "node-token"),
            provisioner_certificate_is_renewed(edge, tmp_path / "renewed-certificate"),
            provisioner_certificate_expires(edge, tmp_path / "provisioner-certificate"),
            provisioner_token_expires(single, tmp_path / "provisioner-token"),
        ):
            cases.create_task(case)


async def identity_expires(deployment: Sandbox, directory: Path) -> None:
    """Check that the node waits again, and receives another identity for the same key."""
    factory, name = Factory(deployment, directory), "expiring.example.net"
    factory.make(name)
    async with factory.start_provisioner("--days", SHORT / 86_400) as provisioner, factory.start_node(name) as node:
        await node.line("member:")
        await node.line("the session at ")
        await node.line("waiting:")
        await node.line("member:")
        assert await node.stop() == 0
        for _ in range(2):
            assert await provisioner.line("provisioned:") == name


async def node_token_is_renewed(deployment: Sandbox, directory: Path) -> None:
    factory, name = Factory(deployment, directory), "renewed-token.example.net"
    device = factory.make(name)
    async with refused_node(factory, name) as node:
        factory.give_node_token(device, SHORT)
        await node.line("waiting:")
        factory.give_node_token(device)
        await node.line("the session at ")
        await node.line("waiting:")
        assert await node.stop() == 0
    assert len(node.seen) == 5


async def node_token_expires(deployment: Sandbox, directory: Path) -> None:
    factory, name = Factory(deployment, directory), "expired-token.example.net"
    device = factory.make(name)
    async with refused_node(factory, name) as node:
        factory.give_node_token(device, SHORT)
        await node.line("waiting:")
        await node.line("the session at ")
        assert await node.ended() == 1
    token = device / "provisioning.jwt"
    assert node.seen[3:] == [f"error: {token} has expired, and the node has no other identity; put a new token there"]


async def provisioner_certificate_is_renewed(deployment: Sandbox, directory: Path) -> None:
    factory = Factory(deployment, directory)
    async with refused_provisioner(
        factory, lambda: give_short_certificate(deployment, factory.provisioner)
    ) as provisioner:
        for end in ("pem", "key"):
            shutil.copy(deployment.directory / "pki" / f"provisioner.{end}", factory.provisioner)
        await provisioner.line("the session at ")
        await provisioner.line("provisioner:")
        assert await provisioner.stop() == 0
    assert len(own_lines(provisioner)) == 5


async def provisioner_certificate_expires(deployment: Sandbox, directory: Path) -> None:
    factory = Factory(deployment, directory)
    async with refused_provisioner(
        factory, lambda: give_short_certificate(deployment, factory.provisioner)
    ) as provisioner:
        await end_with_session(provisioner, factory.provisioner / "provisioner.pem")


async def provisioner_token_expires(deployment: Sandbox, directory: Path) -> None:
    factory = Factory(deployment, directory)
    async with refused_provisioner(factory, lambda: factory.give_token(SHORT)) as provisioner:
        await end_with_session(provisioner, factory.provisioner / "provisioner.jwt")


async def end_with_session(provisioner: Program, expired: Path) -> None:
    """Wait until a provisioner's session ends, and check that the provisioner exits."""
    await provisioner.line("the session at ")
    assert await provisioner.ended() == 1
    assert own_lines(provisioner)[3:] == [f"error: {expired} has expired; put a new one there"]


def own_lines(provisioner: Program) -> list[str]:
    """Return a provisioner's output without refusals of nodes, because nodes of other cases announce themselves too."""
    return [line for line in provisioner.seen if not line.startswith("refused: ")]


@contextlib.asynccontextmanager
async def refused_node(factory: Factory, name: str) -> AsyncIterator[Program]:
    """Start a node with an invalid token, so that its next credential need not outlast its start."""
    token = factory.directory / name / "provisioning.jwt"
    token.write_bytes(token.read_bytes()[:-4] + b"AAAA")
    async with factory.start_node(name) as node:
        assert "Authorization Violation" in await node.line("login failed:")
        yield node


@contextlib.asynccontextmanager
async def refused_provisioner(factory: Factory, give: Callable[[], None]) -> AsyncIterator[Program]:
    """Start a provisioner with a wrong password; then give it the right one and a short-lived credential."""
    password = factory.provisioner / "client_password"
    right = password.read_bytes()
    write_private(password, b"wrong")
    async with factory.start_provisioner() as provisioner:
        assert "Authorization Violation" in await provisioner.line("login failed:")
        give()
        write_private(password, right)
        await provisioner.line("provisioner:")
        yield provisioner


def give_short_certificate(deployment: Sandbox, directory: Path) -> None:
    """Give a provisioner a certificate that expires soon."""
    validity = Validity(not_after=datetime.now(UTC) + timedelta(seconds=SHORT))
    authority(deployment).client("provisioner.example.net", validity=validity).write(directory, "provisioner")


async def test_impostors_are_refused(edge: Sandbox, tmp_path: Path, name: str) -> None:
    factory = Factory(edge, tmp_path)
    factory.make(name)
    other_key = f"other-key.{name}"
    shutil.copytree(factory.make(other_key), tmp_path / "taken")
    async with factory.start_provisioner() as provisioner, factory.start_node(other_key) as node:
        await node.line("member:")
        await provisioner.line("provisioned:")

        shutil.rmtree(tmp_path / other_key)
        (tmp_path / "taken").rename(tmp_path / other_key)  # the device's secret, but another key
        async with factory.start_node(other_key) as second:
            refusal = await provisioner.line("refused:")
            assert refusal.startswith(f"{other_key}: is a member with another key; remove ")
            assert await second.stop() == 0

        write_private(tmp_path / name / "device.secret", b"00" * 32)
        async with factory.start_node(name) as thief:  # it has the token and the name
            await provisioner.line(f"refused: {name}:")
            assert await thief.line("ignored a request:") == "the other end does not know the device's secret"
        assert await ask(edge, name) == "no"
        assert await ask(edge, other_key) == "yes"


async def test_recorded_answer_is_refused(edge: Sandbox, tmp_path: Path, name: str) -> None:
    """An attacker at the edge can replay an answer without the device's secret."""
    factory = Factory(edge, tmp_path)
    secret = read_secret((factory.make(name) / "device.secret").read_text())
    recorded = seal(secret, f"node {name}", {"nonce": "0" * 32, "csr": ""})
    thief = await connect(edge.node_url, name, edge.credentials("node"))

    async def answer(message: Msg) -> None:
        await message.respond(recorded)

    try:
        await thief.subscribe(f"provisioning.node.{name}", cb=answer)
        async with factory.start_provisioner() as provisioner:
            await provisioner.line("provisioner:")
            await round_trip(thief)
            refusal = asyncio.create_task(provisioner.line(f"refused: {name}:"))
            while not refusal.done():  # the subscription crosses the leaf link asynchronously
                await thief.publish(EVENT, json.dumps({"identity": name}).encode())
                await asyncio.wait([refusal], timeout=0.2)
            assert await refusal == "the answer is to another request"
    finally:
        await thief.close()


ROGUE: Final = (b"{}", b"not json", b'"a"', b"[" * 9000, b'{"identity": ">"}', b'{"identity": "a\\r\\nPUB x 0"}')


async def test_nodes_outside_the_inventory_receive_no_request(edge: Sandbox, tmp_path: Path, name: str) -> None:
    factory = Factory(edge, tmp_path)
    factory.make(name)
    async with factory.start_provisioner() as provisioner:
        async with factory.start_node(name) as node:
            await node.line("member:")  # then the provisioner has subscribed
        rogue = await connect(edge.node_url, "rogue", edge.credentials("node"))
        asked = await rogue.subscribe("provisioning.node.rogue")
        try:
            for _ in range(2):
                for event in (*ROGUE, b'{"identity": "rogue"}', b'{"identity": "../rogue"}'):
                    await rogue.publish(EVENT, event)
            await rogue.publish(EVENT, b'{"identity": "last"}')
            await round_trip(rogue)
            await provisioner.line("refused: last:")
            assert asked.pending_msgs == 0
        finally:
            await rogue.close()
    refused = [line for line in provisioner.seen if line.startswith("refused:")]
    assert refused == [
        "refused: an announcement without a name: not in the inventory",
        "refused: rogue: not in the inventory",
        "refused: last: not in the inventory",
    ]


@pytest.mark.parametrize("topology", [Topology.WEBSOCKET, MIXED])
async def test_node_is_provisioned_through_the_fleets_server(tmp_path: Path, name: str, topology: Topology) -> None:
    async with Sandbox(tmp_path / "sandbox", topology) as deployment:
        factory = Factory(deployment, tmp_path / "factory")
        factory.make(name)
        async with factory.start_provisioner(), factory.start_node(name) as node:
            await node.line("member:")
            assert await ask(deployment, name) == "yes"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_nodes_ca_from_the_page_is_limited_to_its_names(edge: Sandbox, tmp_path: Path) -> None:
    factory, own, foreign = Factory(edge, tmp_path), "a.nodes.example.net", "b.example.net"
    text = (DOCS / "from-factory-to-fleet.md").read_text(encoding="utf-8")
    (tmp_path / "nodes-ca.ext").write_text("\n".join(next(fenced(text, "text"))))
    for end in ("pem", "key"):
        shutil.copy(edge.ca.with_suffix(f".{end}"), tmp_path)
    typed = [line.removeprefix("$ ") for block in fenced(text, "console") for line in block if "openssl" in line]
    for command in typed:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)  # noqa: S602, ASYNC221
    for end in ("pem", "key"):
        shutil.copy(tmp_path / f"nodes-ca.{end}", factory.provisioner)
    for name in (own, foreign):
        factory.make(name)
    async with (
        factory.start_provisioner() as provisioner,
        factory.start_node(own) as node,
        factory.start_node(foreign) as other,
    ):
        assert await node.line("member:") == f"{own} in account choria"
        await other.line("login failed:")
        for _ in range(2):
            await provisioner.line("provisioned:")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("inventory", "node1.example.net abc\n", "line 1: node1.example.net: a device's secret is 64 hex characters"),
        ("inventory", f"Node1 {'0' * 64}\n", "line 1: Node1: not a lower-case name, or listed twice"),
        ("inventory", f"provisioner.example.net {'0' * 64}\n", "the inventory names provisioner.example.net, which is"),
        ("nodes-ca.pem", None, "has neither nodes-ca.pem nor provisioner.jwt, so it cannot issue identities"),
        ("nodes-ca.pem", "x", "provisioner: Unable to load PEM file"),
        ("client_password", None, "No such file or directory"),
        ("provisioner.key", "x", "cannot be used for TLS"),
        ("ca.pem", "x", "ca.pem"),
    ],
)
async def test_provisioner_with_invalid_files_exits_with_one_line(
    edge: Sandbox, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    factory = Factory(edge, tmp_path)
    (factory.provisioner / file).unlink()
    if content is not None:
        (factory.provisioner / file).write_text(content)
    async with factory.start_provisioner() as provisioner:
        assert await provisioner.ended() == 1
    (line,) = provisioner.seen
    assert line.startswith("error: ")
    assert message in line


async def test_node_with_invalid_files_exits_with_one_line(edge: Sandbox, tmp_path: Path, name: str) -> None:
    factory = Factory(edge, tmp_path)
    directory = factory.make(name)
    (directory / "device.secret").write_text("short")
    async with factory.start_node(name) as node:
        assert await node.ended() == 1
    assert node.seen == [
        f"error: {directory}: device.secret or node.key cannot be used: a device's secret is 64 hex characters"
    ]


async def test_programs_reconnect_after_a_broker_restart(edge: Sandbox, tmp_path: Path, name: str) -> None:
    factory = Factory(edge, tmp_path)
    factory.make(name)
    async with factory.start_provisioner() as provisioner, factory.start_node(name) as node:
        await node.line("member:")
        await provisioner.line("provisioned:")
        await asyncio.to_thread(edge.servers["fleet"].restart)
        for program, line in ((node, "member:"), (provisioner, "provisioner:")):
            await program.line("the session at ")
            await program.line(line)
        assert await ask(edge, name) == "yes"


def authority(deployment: Sandbox) -> CertificateAuthority:
    """Return the CA of a deployment."""
    certificate = x509.load_pem_x509_certificate(deployment.ca.read_bytes())
    key = load_pem_private_key(deployment.ca.with_suffix(".key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return CertificateAuthority(Pair(certificate, key))
