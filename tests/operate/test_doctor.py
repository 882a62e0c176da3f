"""The doctor finds each planted fault, and reports no error for a correct deployment."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker_auth.deploy.pki import LOCAL_NAMES, CertificateAuthority, Validity
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.natsio.versions import parse_version
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.deployment import examine_configuration
from broker_auth.operate.doctor.examine import examine, healthy
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.doctor.probe import ProbeTarget, read_info
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.streams.change import change_streams
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from broker_auth.settings.revocation_store import create
from tests.hosts.two_hosts import KEYS as BUCKET_KEYS
from tests.operate.deployment import EdgeDeployment, Edit

pytestmark = pytest.mark.e2e
Codes = dict[str, set[str | None]]
ERROR, WARNING, SKIPPED = Severity.ERROR, Severity.WARNING, Severity.SKIPPED


def operator(deployment: EdgeDeployment, *, break_glass: bool = True) -> Access:
    """Return the access of an operator with a provisioner's certificate and, by default, the break-glass seeds."""
    seeds = deployment.break_glass_seeds if break_glass else ()
    files = {"certificate": deployment.directory / "provisioner.pem", "key": deployment.directory / "provisioner.key"}
    return deployment.access(break_glass=seeds, **files)


async def look(deployment: EdgeDeployment, access: Access | None = None, **options: Any) -> tuple[Finding, ...]:
    context = Context(
        access=access or operator(deployment), provisioning_token=Secret(deployment.provisioning_token()), **options
    )
    return await examine(context, check(deployment.config, {}, serving=True))


def codes(findings: tuple[Finding, ...], severity: Severity) -> Codes:
    """Return the codes of this severity with their brokers, except those of missing streams."""
    matching: Codes = {}
    for item in findings:
        if item.severity is severity and item.code != "streams.missing":
            matching.setdefault(item.code, set()).add(item.broker)
    return matching


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault in the rendered configurations, and exactly the errors that the doctor must report.

    ``warnings`` must be among the warnings. The error ``possible`` may be reported or not. Faults with the same letter
    in ``together`` are planted in one deployment, because none of them hides or causes what shows another.
    """

    name: str
    together: str = ""
    fleet: Edit | None = None
    edge: Edit | None = None
    errors: Codes | None = None
    possible: str | None = None
    warnings: Codes | None = None
    service: bool = True
    linked: bool = True
    break_glass: bool = True


def swap(pattern: str, replacement: str | Callable[[re.Match[str]], str], count: int = 1) -> Edit:
    return lambda text: re.sub(pattern, replacement, text, count=count, flags=re.DOTALL)


def other(kind: NkeyKind) -> str:
    return public_nkey(generate_seed(kind))


def guest(text: str) -> str:
    """Add a default user that is admitted without a callout."""
    text = swap(r'auth_users: \[ "', 'auth_users: [ "guest", "')(text)
    user = 'G: { users: [ {user: "guest", password: "guest"} ] }'
    return swap(r"\naccounts \{", f'\nno_auth_user: "guest"\naccounts {{\n  {user}')(text)


OPEN_ACCOUNTS = swap(
    r'(exports: \[\n)(      \{ service: "\$JS)', r'\1      { stream: "broker-auth.>", accounts: ["provisioning"] }\n\2'
)


def joined(text: str) -> str:
    """Import messages of the fleet into the provisioning account."""
    return swap(
        r'(imports: \[\n)(      \{ service: \{ account: "choria")',
        r'\1      { stream: { account: "choria", subject: "broker-auth.>" } }\n\2',
    )(OPEN_ACCOUNTS(text))


FAULTS = (
    Fault(
        name="the fleet's listener demands no certificate",
        together="B",
        fleet=swap("verify: true", "verify: false"),
        errors={"listener.asks_no_certificate": {"fleet"}},
    ),
    Fault(
        name="the edge demands a certificate",
        together="F",
        edge=swap(r"(tls \{\n  cert_file: \S+)", r'\1\n  ca_file: "@ca.pem"\n  verify: true'),
        errors={"listener.asks_certificate": {"edge"}},
    ),
    Fault(
        name="any public CA's certificate is verified",
        together="H",
        fleet=swap(r"ca_file: \S+\n(  verify: true)", r"\1"),
        errors={"listener.any_ca": {"fleet"}},
        service=False,
    ),
    Fault(
        name="a CA is trusted that client_ca does not name",
        together="A",
        fleet=swap(r'ca_file: "[^"]*"', 'ca_file: "@two-cas.pem"'),
        errors={},
        warnings={"listener.other_ca": {"fleet"}},
    ),
    Fault(
        name="the server's certificate is for another name",
        together="H",
        edge=swap(
            r'cert_file: "[^"]*"\n  key_file: "[^"]*"', 'cert_file: "@elsewhere.pem"\n  key_file: "@elsewhere.key"'
        ),
        errors={"listener.handshake": {"edge"}},
        service=False,
    ),
    Fault(
        name="TLS begins before INFO",
        together="A",
        edge=swap(r"(tls \{\n  cert_file)", r"tls {\n  handshake_first: true\n  cert_file"),
        errors={},
        warnings={"listener.handshake_first": {"edge"}},
    ),
    Fault(
        name="the server's certificate expires soon",
        together="B",
        edge=swap(r'cert_file: "[^"]*"\n  key_file: "[^"]*"', 'cert_file: "@soon.pem"\n  key_file: "@soon.key"'),
        errors={},
        warnings={"listener.certificate_expires": {"edge"}},
    ),
    Fault(
        name="clients may come without TLS",
        edge=swap(r"\n(accounts \{)", r"\nallow_non_tls: true\n\1"),
        # The service then does not connect, and nor do we: whoever stands between could read along.
        errors={"listener.plain": {"edge"}},
        service=False,
    ),
    Fault(
        name="a CONNECT with two tokens is too long",
        together="G",
        fleet=swap(r"max_control_line: \d+", "max_control_line: 4096"),
        edge=swap(r"max_control_line: \d+", "max_control_line: 4096"),
        errors={"listener.max_control_line": {"fleet", "edge"}},
    ),
    Fault(
        name="who shows nothing is somebody: on the edge",
        together="C",
        edge=guest,
        errors={"listener.open": {"edge"}},
    ),
    Fault(
        name="who shows nothing is somebody: on the fleet's servers",
        together="D",
        fleet=guest,
        errors={"callout.account": {"fleet"}},
    ),
    Fault(
        name="another issuer signs for the broker",
        together="G",
        fleet=swap(r'issuer: "A\w+"', f'issuer: "{other(NkeyKind.ACCOUNT)}"'),
        edge=swap(r'issuer: "A\w+"', f'issuer: "{other(NkeyKind.ACCOUNT)}"'),
        errors={"callout.issuer": {"fleet", "edge"}},
    ),
    Fault(
        name="requests are encrypted for another xkey",
        together="E",
        edge=swap(r'xkey: "X\w+"', f'xkey: "{other(NkeyKind.CURVE)}"'),
        errors={"callout.no_answer": {"edge"}},
    ),
    Fault(
        name="requests are not encrypted",
        together="B",
        edge=swap(r'xkey: "X\w+"', ""),
        errors={"callout.no_answer": {"edge"}},
    ),
    Fault(
        name="no service runs",
        errors={"callout.nobody": {None}},
        service=False,
    ),
    Fault(
        name="the broker asks nobody",
        together="D",
        edge=swap(r"\n  auth_callout \{.*?\n  \}", ""),
        errors={"callout.not_asked": {"edge"}},
    ),
    Fault(
        name="the broker does not know the service's nkey",
        edge=swap(r'auth_users: \[ "U\w+"', f'auth_users: [ "{other(NkeyKind.USER)}"'),
        errors={"callout.user": {"edge"}},
        service=False,
    ),
    Fault(
        name="the service's user may publish anything",
        together="A",
        fleet=swap(r'publish: \[ "broker-auth.peers" \]', 'publish: ">"'),
        errors={"callout.may_publish": {"fleet"}},
    ),
    Fault(
        name="the service's user may listen to anything",
        together="A",
        edge=swap(r"subscribe: \[[^]]*\]", 'subscribe: ">"'),
        errors={"callout.may_listen": {"edge"}},
        warnings={"callout.outside_queue": {"edge"}},
    ),
    Fault(
        name="the service's user may listen to requests aside from the others",
        together="B",
        edge=swap(r'"\$SYS.REQ.USER.AUTH broker-auth", ("\$SYS\S+ broker-auth.copy.\*")', '"$SYS.REQ.USER.AUTH"'),
        errors={},
        warnings={"callout.outside_queue": {"edge"}},
    ),
    Fault(
        name="workers cannot exchange messages",
        together="A",
        fleet=swap(r', "broker-auth.peers"', ""),
        errors={},
        warnings={"callout.unheard": {"fleet"}},
    ),
    Fault(
        name="the broker does not know the break-glass user",
        fleet=swap(r'(auth_users: \[ "U\w+"), "U\w+"', r"\1"),
        edge=swap(r'(auth_users: \[ "U\w+"), "U\w+"', r"\1"),
        errors={"break_glass.unknown": {"fleet", "edge"}},
        break_glass=False,
    ),
    Fault(
        name="the broker does not know the kick user",
        together="A",
        edge=swap(r'(auth_users: \[ "U\w+", "U\w+"), "U\w+"', r"\1"),
        errors={"kick.unknown": {"edge"}},
    ),
    Fault(
        name="timeouts are too short for a storm",
        together="A",
        fleet=swap(r"(authorization \{.*?\n  timeout: )\d+", r"\g<1>1"),
        errors={},
        warnings={"timeouts.short": {"fleet"}},
    ),
    Fault(
        name="the edge's link leads nowhere",
        edge=swap(r'urls: \[ "[^"]*"', 'urls: [ "tls://127.0.0.1:1"'),
        errors={"leaf.down": {"edge"}},
        linked=False,
    ),
    Fault(
        name="edges are in the fleet's account",
        together="F",
        fleet=swap(r'(leafnodes \{.*account: )"provisioning"', r'\1"choria"'),
        errors={"leaf.account": {"fleet"}},
        possible="callout.account",  # the edge answers in whose account somebody is, too; the first answer counts
    ),
    Fault(
        name="the fleet is shown to the provisioning account",
        together="C",
        fleet=joined,
        errors={"isolation.import": {"fleet"}},
    ),
    Fault(
        name="the fleet is exported to the provisioning account",
        together="A",
        fleet=OPEN_ACCOUNTS,
        errors={"isolation.export": {"fleet"}},
    ),
    Fault(
        name="lifecycle events of nodes are lost",
        together="B",
        fleet=swap(r"\n    imports: \[\n(      \{ stream: [^\n]*\n)*    \]", ""),
        errors={},
        warnings={"isolation.lifecycle": {"fleet"}},
    ),
    Fault(
        name="provisioners cannot elect a leader",
        together="B",
        fleet=swap(r'\n      \{ service: \{ account: "choria"[^\n]*', "", 6),
        errors={},
        warnings={"isolation.election": {"fleet"}},
    ),
    Fault(
        name="the fleet has no streams",
        together="E",
        fleet=swap(r"\njetstream \{.*?\}", ""),
        errors={"jetstream.down": {"fleet"}},
    ),
    Fault(
        name="the fleet's account has no JetStream",
        together="C",
        fleet=swap(r"\n    jetstream: enabled", ""),
        errors={"streams.unavailable": {"fleet"}},
    ),
)


def in_directory(edit: Edit, directory: Path) -> Edit:
    return lambda text: edit(text).replace('"@', f'"{directory}/')


def plant(deployment: EdgeDeployment, faults: Sequence[Fault]) -> None:
    """Apply the edits of faults, and write the files that some of them need (``@`` is the directory)."""
    for name in ("fleet", "edge"):
        if edits := [edit for fault in faults if (edit := getattr(fault, name))]:
            deployment.edits[name] = in_directory(one_by_one(edits), deployment.directory)
    both = deployment.authority.certificate_pem + CertificateAuthority.create("some other CA").certificate_pem
    (deployment.directory / "two-cas.pem").write_bytes(both)
    deployment.authority.server(hosts=["elsewhere.example.net"]).write(deployment.directory, "elsewhere")
    soon = Validity(not_after=datetime.now(UTC) + timedelta(days=5))
    deployment.authority.server(hosts=LOCAL_NAMES, validity=soon).write(deployment.directory, "soon")


def one_by_one(edits: Sequence[Edit]) -> Edit:
    """Return an edit that makes each of ``edits``."""

    def make(text: str) -> str:
        for edit in edits:
            edited = edit(text)
            assert edited != text, "a planted fault changed nothing"
            text = edited
        return text

    return make


def planted_together() -> list[tuple[Fault, ...]]:
    """Return the faults of each deployment."""
    shared: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        shared.setdefault(fault.together or fault.name, []).append(fault)
    return [tuple(faults) for faults in shared.values()]


def union(each: Iterable[Codes | None]) -> Codes:
    """Return all codes; two faults must not have one in common, or one of them might be missed."""
    result: Codes = {}
    for expected in each:
        for code, brokers in (expected or {}).items():
            assert not brokers & result.get(code, set())
            result[code] = result.get(code, set()) | brokers
    return result


@pytest.mark.parametrize("faults", planted_together(), ids=lambda faults: faults[0].together or faults[0].name)
async def test_doctor_finds_each_planted_fault(faults: tuple[Fault, ...], tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    plant(deployment, faults)
    ((service, linked, break_glass),) = {(fault.service, fault.linked, fault.break_glass) for fault in faults}
    with deployment.running(service=service, linked=linked):
        findings = await look(deployment, operator(deployment, break_glass=break_glass))
    errors, expected = codes(findings, ERROR), union(fault.errors for fault in faults)
    if not service:  # without a service, these errors are reported too
        for code in {"callout.no_answer", "callout.nobody", "system.answer"} - expected.keys():
            errors.pop(code, None)
    for fault in faults:
        if fault.possible:
            errors.pop(fault.possible, None)
    assert errors == expected
    warnings = codes(findings, WARNING)
    for code, brokers in union(fault.warnings for fault in faults).items():
        assert warnings.get(code) == brokers, warnings
    assert all(item.remedy for item in findings if item.severity is not Severity.OK)


def with_reader(deployment: EdgeDeployment) -> tuple[str, ...]:
    """Return the configuration of a reader for the edge; its seed is on another machine."""
    create(deployment.directory / "revoked.json")
    nkey = public_nkey(generate_seed(NkeyKind.USER))
    return (*BUCKET_KEYS, f"plugin.broker_auth.zone.edge.reader_nkey = {nkey}")


async def test_server_that_does_not_know_the_reader_of_a_zone_is_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    deployment.write_config(*with_reader(deployment))
    deployment.edits["fleet"] = swap(r'(auth_users: \[ "U\w+", "U\w+", "U\w+"), "U\w+"', r"\1")
    with deployment.running():
        await change_streams(deployment.access(), dry_run=False)
        assert codes(await look(deployment), ERROR) == {"reader.unknown": {"fleet"}}


async def test_doctor_reports_no_error_for_a_correct_deployment(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    deployment.write_config(*with_reader(deployment))
    for name in ("break-glass.seed", "edge-break-glass.seed"):
        (tmp_path / name).unlink()
    with deployment.running():
        await change_streams(deployment.access(), dry_run=False)
        findings = await look(deployment)
    assert codes(findings, ERROR) == {}
    warnings = codes(findings, WARNING)
    assert warnings == {"callout.alone": {"fleet", "edge"}}
    assert codes(findings, SKIPPED) == {}
    assert codes(findings, Severity.OK)["nodes.reachable"] == {"edge"}
    assert codes(findings, Severity.OK)["kick.known"] == {"fleet", "edge"}
    assert codes(findings, Severity.OK)["reader.known"] == {"fleet"}
    assert healthy(findings)


def test_edge_that_could_act_as_fleet_member_is_warned_of(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    deployment.write_config("plugin.broker_auth.broker.fleet.server.leaf.tls.ca = ca.pem")
    matching = examine_configuration(check(deployment.config, {}, serving=True))
    assert [item.severity for item in matching if "can connect as a fleet member" in item.what] == [WARNING]


async def test_doctor_reports_skipped_checks(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        findings = await examine(Context(access=deployment.access()), check(deployment.config, {}, serving=True))
        with_token = [
            await examine(
                Context(access=deployment.access(), provisioning_token=Secret(token)),
                check(deployment.config, {}, serving=True),
            )
            for token in (
                deployment.provisioning_token("node1.example.net"),  # not for the name of the doctor's login
                deployment.provisioning_token(max_nodes=3),  # the login would count
            )
        ]
    skipped = {"callout.admits": {"edge"}, "system.closed": {"edge"}, "isolation.crossing": {"fleet"}}
    assert all(codes(each, SKIPPED) == skipped for each in (findings, *with_token))
    logins = [item for of_token in with_token for item in of_token if item.code == "callout.admits"]
    assert [item.remedy for item in logins if item.severity is SKIPPED] == [
        "give one for any name, or one with --for-name '/broker-auth-doctor-\\w+/'",
        "give one without --max-nodes",
    ]


async def test_missing_and_different_streams_are_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        missing = await look(deployment)
        await change_streams(deployment.access(), dry_run=False)
        deployment.write_config(
            "plugin.choria.network.stream.event_retention = 9d",
            "plugin.choria.network.stream.machine_retention = 0",
            "plugin.broker_auth.audit.output = log, file:audit.json, nats:broker-auth.audit",
        )
        different = await look(deployment)
    (none,) = [item.what for item in missing if item.code == "streams.missing"]
    assert none.count(", ") == 4
    assert none.endswith("do not exist")
    assert [item.what for item in different if item.code == "streams.differ"] == [
        "CHORIA_EVENTS differs from the configuration in max_age"
    ]
    assert [item.what for item in different if item.code == "streams.unwanted"] == [
        "CHORIA_MACHINE has retention 0 but exists"
    ]
    assert [item.severity for item in different if item.code == "audit.stream"] == [ERROR]


async def test_other_user_in_the_callout_account_is_an_error(tmp_path: Path) -> None:
    """Fact 4: another user of that account may answer first."""
    deployment = EdgeDeployment(tmp_path)
    seed = generate_seed(NkeyKind.USER)
    foreign = public_nkey(seed)

    def let_in(text: str) -> str:
        text = swap(r'auth_users: \[ "', f'auth_users: [ "{foreign}", "')(text)
        return swap(r'("AUTH": \{\n    users: \[)', rf'\1 {{ nkey: "{foreign}" }}')(text)

    deployment.edits["edge"] = let_in
    with deployment.running():
        login = Login(what="a foreigner", nkey_seed=Secret(seed))
        client = await connect(deployment.url("edge"), login, deployment.access().tls(deployment.settings().brokers[1]))
        findings = await look(deployment)
        await client.close()
    assert codes(findings, ERROR) == {"callout.foreigner": {"edge"}}


async def test_clock_skew_and_expired_certificates_are_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        version = parse_version((await read_info(ProbeTarget(deployment.url("fleet")))).version)
        apart = await look(deployment, now=lambda: time.time() + 30)
        late = await look(deployment, now=lambda: time.time() + 400 * 86_400)
        a_little = await look(deployment, now=lambda: time.time() - 2)
    assert codes(apart, ERROR) == {"clock.skew": {None}}
    assert codes(late, ERROR)["listener.certificate_expired"] == {"fleet", "edge"}
    if (version or (0, 0, 0)) >= (2, 15, 0):  # older versions do not report it
        assert codes(late, ERROR)["leaf.certificate_expired"] == {"fleet"}
    assert codes(a_little, ERROR) == {}
    assert codes(a_little, WARNING)["clock.skew"] == {None}


async def test_used_stored_and_missing_break_glass_users_are_warned_of(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        before = await look(deployment, operator(deployment, break_glass=False))
        client = await operator(deployment).system(deployment.settings().brokers[0])
        during = await look(deployment, operator(deployment, break_glass=False))
        await client.close()
    assert "break_glass.used" not in codes(before, WARNING)
    assert codes(during, WARNING)["break_glass.used"] == {"fleet"}
    assert codes(before, WARNING)["break_glass.seed_kept"] == {None}
    bare = re.sub(r"(?m)^plugin.broker_auth.*break_glass_nkey", "# ", deployment.config.read_text())
    deployment.write_secret("broker.conf", bare)
    with deployment.running():
        findings = await look(deployment, operator(deployment, break_glass=False))
    assert codes(findings, WARNING)["break_glass.none"] == {"fleet", "edge"}


async def test_waiting_node_that_no_provisioner_reaches_is_warned_of(tmp_path: Path) -> None:
    """A Choria Server of protocol 1 that does not run as root connects as its user and subscribes as its host."""
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        token = Secret(deployment.provisioning_token())
        tls = deployment.access().tls(deployment.settings().brokers[1])
        async with AsyncExitStack() as stack:
            for name in ("new1.example.net", "app.mcollective"):
                node = await connect(deployment.url("edge"), Login(what="a node", token=token, name=name), tls)
                stack.push_async_callback(node.close)
                await node.subscribe("provisioning.broadcast.agent.discovery")
                await node.subscribe("provisioning.node.new1.example.net")
                await node.flush()
            findings = await look(deployment)
    assert codes(findings, WARNING)["nodes.unreachable"] == {"edge"}
    (finding,) = [item for item in findings if item.code == "nodes.unreachable"]
    assert finding.what.startswith("1 of 2 waiting nodes")
    assert "app.mcollective from 127.0.0.1" in finding.what


async def test_password_that_the_service_has_not_loaded_is_reported(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        deployment.write_config("plugin.choria.network.system.password = another")
        findings = await look(deployment)
    assert codes(findings, ERROR) == {"callout.refuses": {"fleet"}}


async def test_missing_system_user_is_warned_of(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    text = re.sub(r"plugin.choria.network.system[^\n]*\n", "", deployment.config.read_text())
    deployment.write_secret("broker.conf", text)
    with deployment.running():
        findings = await look(deployment)
    assert codes(findings, WARNING)["system.no_user"] == {"fleet"}


def cli(deployment: EdgeDeployment, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker_auth", "doctor", "--config", str(deployment.config), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_exit_code_reflects_errors(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    with deployment.running():
        await change_streams(deployment.access(), dry_run=False)
        well = await asyncio.to_thread(cli, deployment, "--json")
        shown = await asyncio.to_thread(cli, deployment)
        (tmp_path / "user.seed").chmod(0o644)
        ill = await asyncio.to_thread(cli, deployment, "--json")
        (tmp_path / "user.seed").chmod(0o600)
    stopped = await asyncio.to_thread(cli, deployment, "--json")
    assert (well.returncode, well.stderr) == (0, "")
    assert json.loads(well.stdout)["healthy"] is True
    assert shown.returncode == 0
    assert "0 errors" in shown.stdout
    assert ill.returncode == 1
    (error,) = [item for item in json.loads(ill.stdout)["findings"] if item["severity"] == "error"]
    assert error["code"] == "configuration"
    assert "chmod 600" in error["remedy"]
    assert stopped.returncode == 1
    errors = {item["code"] for item in json.loads(stopped.stdout)["findings"] if item["severity"] == "error"}
    assert "listener.unreachable" in errors
