"""``replay`` with the audit of a real deployment: each change names exactly those whom it concerns."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.deploy.pki import CertificateAuthority, Pair, signer
from broker_auth.files.writing import write_private
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import Identity, Issuer
from broker_auth.sandbox.sandbox import Sandbox, change
from broker_auth.tokens.issue import load_signing_key, new_seed, signing_key_from_seed
from tests.cli.running import Run, run

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

SIGNERS: Final = "plugin.choria.network.provisioning.signer_cert"
PASSWORD: Final = "plugin.choria.network.provisioning.client_password"
PREVIOUS: Final = "plugin.broker_auth.provisioning.previous_client_password"
IDENTITIES: Final = "plugin.broker_auth.provisioner.identities"
ISSUERS: Final = "plugin.security.issuer.names"
CLIENT_CA: Final = "plugin.broker_auth.client_ca"
HOUR: Final = 3600
FIRST, SECOND = "provisioner.example.net", "provisioner-2.example.net"
MEMBER, OPERATOR = "member.fleet.example.net", "operator.example.net"
CHANGES: Final[dict[str, str | None]] = {
    SIGNERS: "pki/signer-1.pem, pki/signer-2.pem",
    PASSWORD: "file:keys/client_password-2",
    PREVIOUS: "file:keys/client_password",
    IDENTITIES: f"{FIRST}, {SECOND}",
    "plugin.choria.network.provisioning.provisioner_without_token": "true",
    "plugin.security.choria.ca": "pki/ca.pem",
    CLIENT_CA: "pki/ca.pem",
    "plugin.broker_auth.audit.requests": "true",
}


class Fleet(NamedTuple):
    """A running deployment in issuer mode, in which everybody has connected."""

    sandbox: Sandbox
    records: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    sandbox = Sandbox(tmp_path_factory.mktemp("replay") / "deployment", issuer=True)
    pki = sandbox.directory / "pki"
    for number in (1, 2):
        signer(algorithm="ec").write(pki, f"signer-{number}")
    ca = CertificateAuthority(
        Pair(
            certificate=x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes()),
            key=load_pem_private_key((pki / "ca.key").read_bytes(), None),  # type: ignore[arg-type]
        )
    )
    ca.client(SECOND).write(pki, "provisioner-2")
    CertificateAuthority.create("another CA").pair.write(pki, "other-ca")
    write_private(sandbox.directory / "keys" / "client_password-2", b"the next password")
    old = sandbox.settings.provisioning.client_passwords[0].reveal()
    sandbox.deployment = change(sandbox.deployment, CHANGES)
    async with sandbox:
        member = replace(sandbox.credentials("fleet"), token="", seed=b"")
        provisioner = replace(member, user="provisioner", password="the next password")
        first = replace(provisioner, certificate=pki / "provisioner.pem", key=pki / "provisioner.key")
        second = replace(
            provisioner, certificate=pki / "provisioner-2.pem", key=pki / "provisioner-2.key", password=old
        )

        def held(identity: Identity) -> Credentials:
            return replace(member, token=identity.token, seed=identity.seed)

        rows = [
            ("node-1", sandbox.node_url, node(sandbox, 1)),
            ("node-2", sandbox.node_url, node(sandbox, 2)),
            ("first", sandbox.fleet_url, first),
            ("second", sandbox.fleet_url, second),
            ("member", sandbox.fleet_url, member),
            ("operator", sandbox.fleet_url, sandbox.credentials("system")),
            ("alice", sandbox.fleet_url, held(sandbox.issuer.client("up=alice", "fleet_management"))),
            ("carol", sandbox.fleet_url, held(sandbox.issuer.client_by_chain("up=carol", "fleet_management"))),
            ("server", sandbox.fleet_url, held(sandbox.issuer.server("node1.example.net"))),
        ]
        for name, url, credentials in rows:
            await (await connect(url, name, credentials)).close()
        refused = [
            ("guess", sandbox.fleet_url, replace(first, password="guess")),
            ("stranger", sandbox.fleet_url, held(Issuer(signing_key_from_seed(new_seed(), "x")).client("up=mallory"))),
        ]
        for name, url, credentials in refused:
            with pytest.raises(ConnectRefusedError):
                await connect(url, name, credentials)
        for name, *_ in rows + refused:
            assert sandbox.audit_record(name)
        yield Fleet(sandbox, len(rows + refused))


def node(sandbox: Sandbox, number: int) -> Credentials:
    key = load_signing_key((sandbox.directory / "pki" / f"signer-{number}.key").read_bytes(), "signer")
    return Credentials(ca=sandbox.ca, token=Issuer(key).node_token())


def variant(sandbox: Sandbox, changes: Mapping[str, str | None], base: str = "") -> Path:
    """Write the deployment's configuration, or ``base``, with other values; None leaves a key out."""
    lines = (base or sandbox.deployment.configuration.read_text()).splitlines()
    kept = [line for line in lines if line.partition("=")[0].strip() not in changes]
    path = sandbox.directory / "new.conf"
    path.write_text("\n".join([*kept, *(f"{key} = {value}" for key, value in changes.items() if value), ""]))
    path.chmod(0o600)
    return path


def replayed(sandbox: Sandbox, config: Path, *options: object) -> Run:
    files = sandbox.settings.audit_files
    return run("replay", *files, "--config", config, *options)


def effects(document: Any) -> dict[tuple[str, str | None], list[str]]:
    """Return the identities of each effect and code, of those who were admitted before."""
    names: dict[tuple[str, str | None], list[str]] = defaultdict(list)
    for group in document["groups"]:
        if group["before"]["decision"] == "admit":
            names[group["effect"], group["code"]] += [identity["name"] for identity in group["identities"]]
    return {key: sorted(matches) for key, matches in names.items()}


PASSWORDS_UNKNOWN: Final = sorted([FIRST, SECOND, OPERATOR])


async def test_same_configuration_changes_nothing(fleet: Fleet) -> None:
    config = fleet.sandbox.deployment.configuration
    done = replayed(fleet.sandbox, config, "--against", config, "--json")
    assert (done.code, effects(done.json), done.json["denied"], done.json["complete"]) == (0, {}, 0, True)
    assert done.json["decided"] == fleet.records
    assert done.json["without_request"] == done.json["undecidable"] == 0


async def test_passwords_are_not_known_without_the_old_configuration(fleet: Fleet) -> None:
    done = replayed(fleet.sandbox, fleet.sandbox.deployment.configuration, "--json")
    assert done.code == 3
    assert {name for names in effects(done.json).values() for name in names} == set(PASSWORDS_UNKNOWN)
    assert done.json["not_known"] == 3
    assert done.json["skipped"] == {"password": 4, "token signature": 1}


CASES: Final[dict[str, tuple[dict[str, str | None], dict[tuple[str, str | None], list[str]]]]] = {
    "removed signer": ({SIGNERS: "pki/signer-2.pem"}, {("newly denied", "token_signature"): ["node-1"]}),
    "shortened identities": ({IDENTITIES: FIRST}, {("newly denied", "provisioner_identity"): [SECOND]}),
    "another CA": (
        {CLIENT_CA: "pki/other-ca.pem"},
        {
            ("newly denied", "provisioner_not_verified"): sorted([FIRST, SECOND]),
            ("newly denied", "no_credential"): [MEMBER],
            ("not known", None): [OPERATOR],  # has a token too, which nobody needed to verify before
        },
    ),
    "renamed organization": (
        {ISSUERS: "acme", "plugin.security.issuer.choria.public": None, "plugin.security.issuer.acme.public": "KEY"},
        {("newly denied", "token_issuer_unknown"): ["node1.example.net", "up=alice", "up=carol"]},
    ),
    "previous password": ({PREVIOUS: None}, {("newly denied", "provisioner_password"): [SECOND]}),
    "provisioning disabled": (
        {PASSWORD: None, PREVIOUS: None},
        {("newly denied", "provisioning_disabled"): ["node-1", "node-2", FIRST, SECOND]},
    ),
    "fleet without certificates": (
        {"plugin.security.choria.ca": None},
        {("newly denied", "pub_sub_disabled"): [MEMBER]},
    ),
    "account": (
        {"plugin.broker_auth.account.provisioning": "waiting"},
        {("placed elsewhere", "admitted"): ["node-1", "node-2", FIRST, SECOND]},
    ),
    "nodes not isolated": (
        {"plugin.broker_auth.provisioning.isolate_nodes": "false"},
        {("granted other subjects", "admitted"): ["node-1", "node-2"]},
    ),
}


@pytest.mark.parametrize(("changes", "expected"), CASES.values(), ids=CASES)
async def test_change_names_exactly_those_it_concerns(
    fleet: Fleet, changes: dict[str, str | None], expected: dict[tuple[str, str | None], list[str]]
) -> None:
    public = (fleet.sandbox.directory / "pki" / "issuer.public").read_text().strip()
    changes = {key: public if value == "KEY" else value for key, value in changes.items()}
    config = variant(fleet.sandbox, changes)
    done = replayed(fleet.sandbox, config, "--against", fleet.sandbox.deployment.configuration, "--json")
    assert effects(done.json) == {key: sorted(names) for key, names in expected.items()}
    denied = {name for (effect, _), names in expected.items() if effect == "newly denied" for name in names}
    assert (done.json["denied"], done.code) == (len(denied), 1 if denied else 0)


async def test_changed_key_of_an_organization_names_direct_tokens_and_chains(fleet: Fleet) -> None:
    public = signing_key_from_seed(new_seed(), "x").public_hex
    config = variant(fleet.sandbox, {"plugin.security.issuer.choria.public": public})
    done = replayed(fleet.sandbox, config, "--json")
    assert done.code == 1
    denied = {key: names for key, names in effects(done.json).items() if key[0] == "newly denied"}
    assert denied == {
        ("newly denied", "token_signature"): ["node1.example.net", "up=alice"],
        ("newly denied", "chain_org_signature"): ["up=carol"],
    }


async def test_forecast_names_those_below_a_chain_issuer_that_ends(fleet: Fleet) -> None:
    config = variant(fleet.sandbox, {"plugin.broker_auth.chain_issuer_max_age": "1h"})
    against = ("--against", config)
    assert replayed(fleet.sandbox, config, *against, "--json").code == 0
    later = replayed(fleet.sandbox, config, "--at", time.time() + 2 * HOUR, "--json")
    denied = {key: names for key, names in effects(later.json).items() if key[0] == "newly denied"}
    assert denied == {("newly denied", "chain_issuer_too_old"): ["up=carol"]}


async def test_forecast_names_everybody_whose_token_ends(fleet: Fleet) -> None:
    later = replayed(fleet.sandbox, fleet.sandbox.deployment.configuration, "--at", time.time() + 48 * HOUR, "--json")
    denied = effects(later.json)[("newly denied", "token_expired")]
    assert denied == ["node-1", "node-2", "node1.example.net", "up=alice", "up=carol"]


async def test_intended_denials_are_shown_and_allowed(fleet: Fleet) -> None:
    config = variant(fleet.sandbox, {SIGNERS: "pki/signer-2.pem"})
    against = ("--against", fleet.sandbox.deployment.configuration)
    done = replayed(fleet.sandbox, config, *against, "--allow-denied", "token_signature", "--json")
    assert (done.code, done.json["denied"], done.json["groups"][0]["intended"]) == (0, 0, True)
    text = replayed(fleet.sandbox, config, *against)
    assert text.code == 1
    lines = text.out.splitlines()
    assert lines[0].startswith("newly denied: 1 identity, 1 request, last 20")
    assert lines[0].endswith(": rule provisioning, token_signature")
    assert lines[2].startswith("  node-1 (1 request, last 20")
    assert lines[-1] == "1 identity let in before would be denied"


async def test_check_of_a_configuration_replays(fleet: Fleet) -> None:
    config = variant(fleet.sandbox, {SIGNERS: "pki/signer-2.pem"})
    files = {path.name: path for path in fleet.sandbox.settings.audit_files}
    done = run("config", "check", config, "--replay", files["audit.edge.jsonl"], "--json")
    assert (done.code, done.json["valid"], done.json["replay"]["denied"]) == (1, True, 1)
    good = run("config", "check", fleet.sandbox.deployment.configuration, "--replay", files["audit.edge.jsonl"])
    assert good.code == 0, good.out + good.err


async def test_reload_refuses_to_deny_more_than_allowed(fleet: Fleet) -> None:
    sandbox, configuration = fleet.sandbox, fleet.sandbox.deployment.configuration
    before, mark = configuration.read_text(), fleet.sandbox.service.mark()
    try:
        configuration.write_text(variant(sandbox, {SIGNERS: "pki/signer-2.pem"}).read_text())
        done = run("reload", "--config", configuration, "--unless-denies", "0")
        assert done.code == 1
        assert "node-1 (1 request" in done.out
        assert done.error.startswith("not reloaded: 1 identity let in before would be denied")
        assert not [line for line in sandbox.service.log(mark) if "reloaded" in line]
        await (await connect(sandbox.node_url, "node-1", node(sandbox, 1))).close()
        elsewhere = {"plugin.broker_auth.audit.output": "file:new.jsonl"}
        configuration.write_text(variant(sandbox, elsewhere, base=before).read_text())
        done = run("reload", "--config", configuration, "--unless-denies", "9")
        assert (done.code, "names no file that exists" in done.error) == (1, True)
        configuration.write_text(variant(sandbox, {SIGNERS: "pki/signer-2.pem"}, base=before).read_text())
        done = run("reload", "--config", configuration, "--unless-denies", "1")
        assert (done.code, done.out.splitlines()[-1]) == (0, f"reloaded {configuration}")
        assert "it is not known" in done.err  # of those with a password
        with pytest.raises(ConnectRefusedError):
            await connect(sandbox.node_url, "node-1", node(sandbox, 1))
    finally:
        configuration.write_text(before)
        assert run("reload", "--config", configuration).code == 0
