"""The doctor finds each planted fault, and says nothing of faults where there are none."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker_auth.deploy.pki import LOCAL_NAMES, CertificateAuthority, Validity
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.natsio.versions import parse_version
from broker_auth.operate.access import Access, Login, connect
from broker_auth.operate.doctor.deployment import examine_configuration
from broker_auth.operate.doctor.examine import examine, healthy
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.doctor.probe import ProbeTarget, read_info
from broker_auth.operate.streams.change import change_streams
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from tests.operate.site import Edit, Site

pytestmark = pytest.mark.e2e
Codes = dict[str, set[str | None]]
ERROR, WARNING, SKIPPED = Severity.ERROR, Severity.WARNING, Severity.SKIPPED


def operator(site: Site, *, break_glass: bool = True) -> Access:
    """Somebody with everything: a provisioner's certificate, and the break-glass seed."""
    seeds = site.break_glass_seeds if break_glass else ()
    files = {"certificate": site.directory / "provisioner.pem", "key": site.directory / "provisioner.key"}
    return site.access(break_glass=seeds, **files)


async def look(site: Site, access: Access | None = None, **options: Any) -> tuple[Finding, ...]:
    context = Context(access=access or operator(site), provisioning_token=Secret(site.provisioning_token()), **options)
    return await examine(context, check(site.config, {}, serving=True))


def codes(findings: tuple[Finding, ...], severity: Severity) -> Codes:
    """Codes of this severity, each with the brokers it was found on; streams are another test's."""
    found: Codes = {}
    for item in findings:
        if item.severity is severity and item.code != "streams.missing":
            found.setdefault(item.code, set()).add(item.broker)
    return found


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is planted in the rendered configurations, and what the doctor must say: exactly these errors.

    ``warnings`` must be among the warnings. An error ``possible`` may be there or not.
    """

    name: str
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
    """A user of nobody's whom the service is not asked about."""
    text = swap(r'auth_users: \[ "', 'auth_users: [ "guest", "')(text)
    user = 'G: { users: [ {user: "guest", password: "guest"} ] }'
    return swap(r"\naccounts \{", f'\nno_auth_user: "guest"\naccounts {{\n  {user}')(text)


OPEN_ACCOUNTS = swap(
    r'(exports: \[\n)(      \{ service: "\$JS)', r'\1      { stream: "broker-auth.>", accounts: ["provisioning"] }\n\2'
)


def joined(text: str) -> str:
    """The provisioning account is shown what the fleet says."""
    return swap(
        r'(imports: \[\n)(      \{ service: \{ account: "choria")',
        r'\1      { stream: { account: "choria", subject: "broker-auth.>" } }\n\2',
    )(OPEN_ACCOUNTS(text))


FAULTS = (
    Fault(
        name="the fleet's listener demands no certificate",
        fleet=swap("verify: true", "verify: false"),
        errors={"listener.asks_no_certificate": {"fleet"}, "callout.refuses": {"fleet"}},
    ),
    Fault(
        name="the edge demands a certificate",
        edge=swap(r"(tls \{\n  cert_file: \S+)", r'\1\n  ca_file: "@ca.pem"\n  verify: true'),
        errors={"listener.asks_certificate": {"edge"}, "callout.refuses": {"edge"}},
    ),
    Fault(
        name="any public CA's certificate is verified",
        fleet=swap(r"ca_file: \S+\n(  verify: true)", r"\1"),
        errors={"listener.any_ca": {"fleet"}, "listener.handshake": {"fleet"}, "callout.user": {"fleet"}},
        service=False,
    ),
    Fault(
        name="a CA is trusted that client_ca does not name",
        fleet=swap(r'ca_file: "[^"]*"', 'ca_file: "@two-cas.pem"'),
        errors={},
        warnings={"listener.other_ca": {"fleet"}},
    ),
    Fault(
        name="the server's certificate is for another name",
        edge=swap(
            r'cert_file: "[^"]*"\n  key_file: "[^"]*"', 'cert_file: "@elsewhere.pem"\n  key_file: "@elsewhere.key"'
        ),
        errors={"listener.handshake": {"edge"}, "callout.user": {"edge"}},
        service=False,
    ),
    Fault(
        name="the server's certificate expires soon",
        edge=swap(r'cert_file: "[^"]*"\n  key_file: "[^"]*"', 'cert_file: "@soon.pem"\n  key_file: "@soon.key"'),
        errors={},
        warnings={"listener.certificate_expires": {"edge"}},
    ),
    Fault(
        name="clients may come without TLS",
        edge=swap(r"\n(accounts \{)", r"\nallow_non_tls: true\n\1"),
        # The service then does not connect, and nor do we: whoever stands between could read along.
        errors={"listener.plain": {"edge"}, "callout.user": {"edge"}},
        service=False,
    ),
    Fault(
        name="a CONNECT with two tokens is too long",
        fleet=swap(r"max_control_line: \d+", "max_control_line: 4096"),
        edge=swap(r"max_control_line: \d+", "max_control_line: 4096"),
        errors={"listener.max_control_line": {"fleet", "edge"}},
    ),
    Fault(
        name="who shows nothing is somebody: on the edge",
        edge=guest,
        errors={"listener.open": {"edge"}},
    ),
    Fault(
        name="who shows nothing is somebody: on the fleet's servers",
        fleet=guest,
        # In the wrong account there is no JetStream either.
        errors={"callout.account": {"fleet"}, "streams.unavailable": {"fleet"}},
    ),
    Fault(
        name="another issuer signs for the broker",
        fleet=swap(r'issuer: "A\w+"', f'issuer: "{other(NkeyKind.ACCOUNT)}"'),
        edge=swap(r'issuer: "A\w+"', f'issuer: "{other(NkeyKind.ACCOUNT)}"'),
        errors={"callout.issuer": {"fleet", "edge"}},
    ),
    Fault(
        name="requests are encrypted for another xkey",
        edge=swap(r'xkey: "X\w+"', f'xkey: "{other(NkeyKind.CURVE)}"'),
        errors={"callout.no_answer": {"edge"}},
    ),
    Fault(
        name="requests are not encrypted",
        edge=swap(r'xkey: "X\w+"', ""),
        errors={"callout.no_answer": {"edge"}},
    ),
    Fault(
        name="no service runs",
        errors={"callout.no_answer": {"fleet", "edge"}, "callout.nobody": {"fleet", "edge"}},
        service=False,
    ),
    Fault(
        name="the broker asks nobody",
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
        fleet=swap(r'publish: \[ "broker-auth.peers" \]', 'publish: ">"'),
        errors={"callout.may_publish": {"fleet"}},
    ),
    Fault(
        name="the service's user may listen to anything",
        edge=swap(r"subscribe: \[[^]]*\]", 'subscribe: ">"'),
        errors={"callout.may_listen": {"edge"}},
        warnings={"callout.outside_queue": {"edge"}},
    ),
    Fault(
        name="the service's user may listen to requests aside from the others",
        edge=swap(r'"\$SYS.REQ.USER.AUTH broker-auth", ("\$SYS\S+ broker-auth.copy.\*")', '"$SYS.REQ.USER.AUTH"'),
        errors={},
        warnings={"callout.outside_queue": {"edge"}},
    ),
    Fault(
        name="workers cannot exchange messages",
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
        name="timeouts are too short for a storm",
        fleet=swap(r"(authorization \{.*?\n  timeout: )\d+", r"\g<1>1"),
        errors={},
        warnings={"timeouts.short": {"fleet"}},
    ),
    Fault(
        name="the edge's link leads nowhere",
        edge=swap(r'urls: \[ "[^"]*"', 'urls: [ "tls://127.0.0.1:1"'),
        errors={"leaf.down": {"fleet", "edge"}},
        linked=False,
    ),
    Fault(
        name="edges are in the fleet's account",
        fleet=swap(r'(leafnodes \{.*account: )"provisioning"', r'\1"choria"'),
        errors={"leaf.account": {"fleet"}, "leaf.down": {"fleet"}},
        possible="callout.account",  # the edge answers in whose account somebody is, too; the first answer counts
    ),
    Fault(
        name="the fleet is shown to the provisioning account",
        fleet=joined,
        errors={
            "isolation.import": {"fleet"},
            "isolation.export": {"fleet"},
            "isolation.crossing": {"fleet"},
        },
    ),
    Fault(
        name="lifecycle events of nodes are lost",
        fleet=swap(r"\n    imports: \[\n(      \{ stream: [^\n]*\n)*    \]", ""),
        errors={},
        warnings={"isolation.lifecycle": {"fleet"}},
    ),
    Fault(
        name="provisioners cannot elect a leader",
        fleet=swap(r'\n      \{ service: \{ account: "choria"[^\n]*', "", 6),
        errors={},
        warnings={"isolation.election": {"fleet"}},
    ),
    Fault(
        name="the fleet has no streams",
        fleet=swap(r"\njetstream \{.*?\}", ""),
        errors={"streams.unavailable": {"fleet"}, "jetstream.down": {"fleet"}},
    ),
)


def in_directory(edit: Edit, directory: Path) -> Edit:
    return lambda text: edit(text).replace('"@', f'"{directory}/')


def plant(site: Site, fault: Fault) -> None:
    """Edits, and the files some of them name (``@`` is the directory)."""
    for name, edit in (("fleet", fault.fleet), ("edge", fault.edge)):
        if edit:
            site.edits[name] = in_directory(edit, site.directory)
    both = site.authority.certificate_pem + CertificateAuthority.create("some other CA").certificate_pem
    (site.directory / "two-cas.pem").write_bytes(both)
    site.authority.server(hosts=["elsewhere.example.net"]).write(site.directory, "elsewhere")
    soon = Validity(not_after=datetime.now(UTC) + timedelta(days=5))
    site.authority.server(hosts=LOCAL_NAMES, validity=soon).write(site.directory, "soon")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_it_finds_each_planted_fault(fault: Fault, tmp_path: Path) -> None:
    site = Site(tmp_path)
    plant(site, fault)
    with site.running(service=fault.service, linked=fault.linked):
        findings = await look(site, operator(site, break_glass=fault.break_glass))
    errors = codes(findings, ERROR)
    if not fault.service:  # without one, these come on top
        for code in {"callout.no_answer", "callout.nobody", "system.answer"} - set(fault.errors or {}):
            errors.pop(code, None)
    if fault.possible:
        errors.pop(fault.possible, None)
    assert errors == (fault.errors or {})
    warnings = codes(findings, WARNING)
    for code, brokers in (fault.warnings or {}).items():
        assert warnings.get(code) == brokers, warnings
    assert all(item.remedy for item in findings if item.severity is not Severity.OK)


async def test_it_finds_nothing_wrong_where_nothing_is(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for name in ("break-glass.seed", "edge-break-glass.seed"):
        (tmp_path / name).unlink()
    with site.running():
        await change_streams(site.access(), dry_run=False)
        findings = await look(site)
    assert codes(findings, ERROR) == {}
    warnings = codes(findings, WARNING)
    assert warnings == {"callout.alone": {"fleet", "edge"}}
    assert codes(findings, SKIPPED) == {}
    assert healthy(findings)


def test_an_edge_that_could_be_a_member_of_the_fleet_is_a_warning(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write_config("plugin.broker_auth.broker.fleet.server.leaf.tls.ca = ca.pem")
    found = examine_configuration(check(site.config, {}, serving=True))
    assert [item.severity for item in found if "can connect as a fleet member" in item.what] == [WARNING]


async def test_it_says_what_it_could_not_look_at(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        findings = await examine(Context(access=site.access()), check(site.config, {}, serving=True))
    assert codes(findings, SKIPPED) == {
        "callout.admits": {"edge"},
        "system.closed": {"edge"},
        "isolation.crossing": {"fleet"},
    }


async def test_streams_missing_and_different(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        missing = await look(site)
        await change_streams(site.access(), dry_run=False)
        site.write_config("plugin.choria.network.stream.event_retention = 9d")
        different = await look(site)
    assert len([item for item in missing if item.code == "streams.missing"]) == 5
    assert [item.what for item in different if item.code == "streams.differ"] == [
        "CHORIA_EVENTS differs from the configuration in max_age"
    ]


async def test_a_foreigner_in_the_callout_account(tmp_path: Path) -> None:
    """Fact 4: whoever is there may answer first."""
    site = Site(tmp_path)
    seed = generate_seed(NkeyKind.USER)
    foreign = public_nkey(seed)

    def let_in(text: str) -> str:
        text = swap(r'auth_users: \[ "', f'auth_users: [ "{foreign}", "')(text)
        return swap(r'("AUTH": \{\n    users: \[)', rf'\1 {{ nkey: "{foreign}" }}')(text)

    site.edits["edge"] = let_in
    with site.running():
        login = Login(what="a foreigner", nkey_seed=Secret(seed))
        client = await connect(site.url("edge"), login, site.access().tls(site.settings().brokers[1]))
        findings = await look(site)
        await client.close()
    assert codes(findings, ERROR) == {"callout.foreigner": {"edge"}}


async def test_clocks_apart_and_certificates_expired(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        version = parse_version((await read_info(ProbeTarget(site.url("fleet")))).version)
        apart = await look(site, now=lambda: time.time() + 30)
        late = await look(site, now=lambda: time.time() + 400 * 86_400)
        a_little = await look(site, now=lambda: time.time() - 2)
    assert codes(apart, ERROR) == {"clock.skew": {"fleet", "edge"}}
    assert codes(late, ERROR)["listener.certificate_expired"] == {"fleet", "edge"}
    if (version or (0, 0, 0)) >= (2, 15, 0):  # older ones do not tell
        assert codes(late, ERROR)["leaf.certificate_expired"] == {"fleet"}
    assert codes(a_little, ERROR) == {}
    assert codes(a_little, WARNING)["clock.skew"] == {"fleet", "edge"}


async def test_a_break_glass_user_that_was_used_or_kept_or_never_made(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        before = await look(site, operator(site, break_glass=False))
        client = await operator(site).system(site.settings().brokers[0])
        during = await look(site, operator(site, break_glass=False))
        await client.close()
    assert "break_glass.used" not in codes(before, WARNING)
    assert codes(during, WARNING)["break_glass.used"] == {"fleet"}
    assert codes(before, WARNING)["break_glass.seed_kept"] == {None}
    bare = re.sub(r"(?m)^plugin.broker_auth.*break_glass_nkey", "# ", site.config.read_text())
    site.write_secret("broker.conf", bare)
    with site.running():
        findings = await look(site, operator(site, break_glass=False))
    assert codes(findings, WARNING)["break_glass.none"] == {"fleet", "edge"}


async def test_a_password_that_the_service_does_not_know_yet(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        site.write_config("plugin.choria.network.system.password = another")
        findings = await look(site)
    assert codes(findings, ERROR) == {"callout.refuses": {"fleet"}}


async def test_without_a_system_user(tmp_path: Path) -> None:
    site = Site(tmp_path)
    text = re.sub(r"plugin.choria.network.system[^\n]*\n", "", site.config.read_text())
    site.write_secret("broker.conf", text)
    with site.running():
        findings = await look(site)
    assert codes(findings, WARNING)["system.no_user"] == {"fleet"}


def cli(site: Site, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "broker_auth", "doctor", "--config", str(site.config), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_the_exit_code_is_for_monitoring(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.running():
        await change_streams(site.access(), dry_run=False)
        well = await asyncio.to_thread(cli, site, "--json")
        shown = await asyncio.to_thread(cli, site)
        (tmp_path / "user.seed").chmod(0o644)
        ill = await asyncio.to_thread(cli, site, "--json")
        (tmp_path / "user.seed").chmod(0o600)
    stopped = await asyncio.to_thread(cli, site, "--json")
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
