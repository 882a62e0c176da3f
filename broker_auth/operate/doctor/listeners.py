"""The doors: what each listener really demands, whom it trusts, and what it lets through unasked."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from broker_auth.certificates.certificate import Certificate, CertificateError, parse_certificate
from broker_auth.certificates.names import readable
from broker_auth.certificates.verifier import load_roots
from broker_auth.errors import InputError
from broker_auth.natsio.versions import OLDEST, known_defects, parse_version
from broker_auth.operate.access import CANARY
from broker_auth.operate.doctor.finding import Case, Finding, Notes
from broker_auth.operate.doctor.probe import (
    Info,
    Outcome,
    Target,
    TlsFacts,
    Unreachable,
    Verdict,
    attempt,
    look_at_tls,
    read_info,
)
from broker_auth.settings.model import BrokerSettings, Role

EXPIRY_WARNING_DAYS: Final = 30
LARGE_TOKEN: Final = "x" * 20_000  # nobody's token; longer than two real ones (fact 9)
RENDER: Final = "render this broker's configuration again (broker-auth config render) and restart nats-server"


async def examine_listeners(case: Case, broker: BrokerSettings) -> list[Finding]:
    """Every address of one broker."""
    notes = Notes(broker)
    for url in broker.urls:
        target = Target(url)
        if target.websocket:
            notes.skipped(
                "listener.websocket", f"{url} is WebSocket", "look at it with a browser's or curl's TLS output"
            )
            continue
        try:
            await _examine(case, broker, target, notes)
        except Unreachable as error:
            notes.error("listener.unreachable", str(error), "start nats-server there, or correct broker.<name>.urls")
    return notes.findings


async def _examine(case: Case, broker: BrokerSettings, target: Target, notes: Notes) -> None:
    info = await read_info(target, case.access.tls(broker))
    if info.handshake_first:
        said = f"{target.url} says nothing before TLS (handshake_first): this service connects, Choria does not"
        notes.warning("listener.handshake_first", said, f"take handshake_first out, or write auto; {RENDER}")
    if info.version or not info.handshake_first:
        examine_version(info.version, notes)
    _advertised(info, notes)
    if not info.nonce and (info.version or not info.handshake_first):
        notes.error("listener.nonce", f"{target.url} sends no nonce, so no client can prove its key", RENDER)
    if not info.tls_required:
        notes.error("listener.plain", f"{target.url} lets clients in without TLS, so passwords cross in clear", RENDER)
        return
    facts = await look_at_tls(target)
    _tls_mode(facts, broker, target, notes)
    _certificate(facts, case, notes)
    if facts.asks:
        _authorities(facts, case, notes)
    await _let_in(case, broker, target, notes)


def examine_version(text: str, notes: Notes) -> None:
    """Note what is known of a version of nats-server."""
    version = parse_version(text)
    if version is None:
        notes.warning("server.version", f"version {text!r} is none that is known", "use a released nats-server")
        return
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        notes.error("server.version", f"nats-server {text} is older than {oldest}", "upgrade nats-server")
    defects = known_defects(version)
    for defect in defects:
        fixed = ", ".join(".".join(map(str, item)) for item in defect.fixed)
        said = f"nats-server {text}: {defect.what} ({defect.name})"
        if defect.breaks:
            notes.error("server.defect", said, f"upgrade: {fixed}")
        else:
            notes.warning("server.defect", said, f"upgrade: {fixed}")
    if not defects and version >= OLDEST:
        notes.ok("server.version", f"nats-server {text} has no defect known here")


def _advertised(info: Info, notes: Notes) -> None:
    if len(info.connect_urls) > 1:
        said = f"anybody who connects is told the cluster's addresses: {', '.join(info.connect_urls[:5])}"
        notes.warning("listener.advertises", said, f"set no_advertise; {RENDER}")


def _tls_mode(facts: TlsFacts, broker: BrokerSettings, target: Target, notes: Notes) -> None:
    if not facts.readable:
        remedy = "look with: openssl s_client -starttls nats"
        notes.skipped("listener.tls_mode", f"{target.url} refuses TLS 1.2, so its demands cannot be read", remedy)
        return
    demands = broker.role is Role.FLEET
    if facts.asks and not demands:
        said = f"{target.url} demands a client certificate, so unprovisioned nodes cannot connect"
        notes.error("listener.asks_certificate", said, RENDER)
    elif demands and not facts.asks:
        said = f"{target.url} demands no client certificate, so nobody there is verified"
        notes.error("listener.asks_no_certificate", said, RENDER)
    else:
        notes.ok("listener.tls_mode", f"{target.url} {'demands' if facts.asks else 'asks for no'} client certificate")


def _certificate(facts: TlsFacts, case: Case, notes: Notes) -> None:
    if facts.certificate is None:
        return
    try:
        certificate = parse_certificate(facts.certificate)
    except CertificateError as error:
        notes.warning("listener.certificate_unreadable", f"the server's certificate: {error}", "issue another one")
        return
    warn_of_expiry(notes, "listener.certificate", "the server's certificate", certificate.expires, case)


def warn_of_expiry(notes: Notes, code: str, whose: str, not_after: datetime, case: Case) -> None:
    """An error if a certificate has expired, a warning if it will within 30 days."""
    left = not_after - datetime.fromtimestamp(case.now(), UTC)
    date = not_after.date().isoformat()
    if left.total_seconds() <= 0:
        notes.error(f"{code}_expired", f"{whose} has expired on {date}", "renew it and reload nats-server (SIGHUP)")
    elif left.days < EXPIRY_WARNING_DAYS:
        said = f"{whose} expires on {date}, in {left.days} days"
        notes.warning(f"{code}_expires", said, "renew it and reload nats-server (SIGHUP)")
    else:
        notes.ok(f"{code}_expiry", f"{whose} is valid until {date}")


def _authorities(facts: TlsFacts, case: Case, notes: Notes) -> None:
    """Whose client certificates the server verifies, beside those the service counts (fact 3)."""
    if not facts.authorities:
        said = "the listener accepts certificates of every CA the system trusts: it has no ca_file"
        notes.error("listener.any_ca", said, RENDER)
        return
    if not case.settings.client_ca:
        remedy = "set plugin.broker_auth.client_ca to your own CA"
        notes.warning("client_ca.unset", "any chain that nats-server verified counts for the service", remedy)
        return
    own = {root.subject for path in case.settings.client_ca for root in _roots(path)}
    foreign = [name for name in facts.authorities if name not in own]
    if foreign:
        shown = ", ".join(readable(name) for name in foreign[:5])
        said = f"the listener also verifies certificates of CAs that client_ca does not name: {shown}"
        notes.warning(
            "listener.other_ca", said, "add them to plugin.broker_auth.client_ca, or take them out of ca_file"
        )
    elif own.isdisjoint(facts.authorities):
        notes.error("listener.other_ca", "the listener verifies no certificate that client_ca counts", RENDER)
    else:
        notes.ok("listener.ca", "the listener verifies certificates of the CAs in client_ca only")


def _roots(path: Path) -> list[Certificate]:
    try:
        return load_roots(path.read_bytes(), str(path))
    except (OSError, InputError):
        return []  # the configuration's own check names it


async def _let_in(case: Case, broker: BrokerSettings, target: Target, notes: Notes) -> None:
    """Whether TLS works with the service's files, what gets in unasked, and whether a long CONNECT gets through."""
    bare, large = await asyncio.gather(  # side by side: where no service runs, each waits for nothing
        attempt(target, _bare_context(), {"name": CANARY}),
        attempt(target, case.access.tls(broker), {"name": CANARY, "auth_token": LARGE_TOKEN}),
    )
    if bare.verdict is Verdict.ADMITTED:
        said = f"{target.url} lets in who shows neither certificate nor credential (no_auth_user, or no auth_callout)"
        notes.error("listener.open", said, RENDER)
    else:
        notes.ok("listener.closed", f"{target.url} lets nobody in without a credential")
    if large.verdict is Verdict.TLS_FAILED:
        remedy = "correct tls.ca, tls.certificate and tls.key, or the names in the server's certificate"
        notes.error("listener.handshake", f"TLS with {target.url} fails: {large.said}", remedy)
    elif _too_long(large):
        said = f"{target.url} refuses a CONNECT of 20 KB: {large.said}; clients with two tokens never reach the service"
        notes.error("listener.max_control_line", said, f"set max_control_line: 65536; {RENDER}")
    else:
        notes.ok("listener.handshake", f"TLS with {target.url} works with the configured files")
        notes.ok("listener.max_control_line", f"{target.url} takes a CONNECT of 20 KB")


def _bare_context() -> ssl.SSLContext:
    """TLS that shows nothing; whether the server can be trusted was looked at before."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _too_long(outcome: Outcome) -> bool:
    # nats-server may end the connection before its words get through, as more was sent than it read.
    return "maximum control line" in outcome.said.lower() or outcome.said == "connection closed"
