"""Checks of listeners: required certificates, trusted CAs, and what is admitted without the callout."""

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
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.operate.doctor.probe import (
    Info,
    ProbeResult,
    ProbeTarget,
    TlsFacts,
    Unreachable,
    Verdict,
    attempt,
    look_at_tls,
    read_info,
)
from broker_auth.operate.logins import CANARY
from broker_auth.settings.model import BrokerSettings, ClientCertificates, Role
from broker_auth.wording import ago

EXPIRY_WARNING_DAYS: Final = 30
LARGE_TOKEN: Final = "x" * 20_000  # an invalid token that is longer than two real ones (fact 9)
RENDER: Final = "render this broker's configuration again (broker-auth config render) and restart nats-server"


async def examine_listeners(context: Context, broker: BrokerSettings) -> list[Finding]:
    """Examine every address of a broker."""
    findings = BrokerFindings(broker)
    for url in broker.urls:
        target = ProbeTarget(url)
        if target.websocket:
            findings.skipped(
                FindingCode.LISTENER_WEBSOCKET,
                f"{url} is WebSocket",
                "check it with the TLS output of a browser or of curl",
            )
            continue
        try:
            await _examine(context, broker, target, findings)
        except Unreachable as error:
            findings.error(
                FindingCode.LISTENER_UNREACHABLE, str(error), "start nats-server there, or correct broker.<name>.urls"
            )
    return findings.items


async def _examine(context: Context, broker: BrokerSettings, target: ProbeTarget, findings: BrokerFindings) -> None:
    info = await read_info(target, context.access.tls(broker))
    if info.handshake_first:
        message = (
            "the listener sends nothing before TLS (handshake_first), which this service supports but Choria does not"
        )
        findings.warning(
            FindingCode.LISTENER_HANDSHAKE_FIRST, message, f"remove handshake_first, or set it to auto; {RENDER}"
        )
    if info.version or not info.handshake_first:
        examine_version(info.version, findings)
    _advertised(info, findings)
    if not info.nonce and (info.version or not info.handshake_first):
        findings.error(
            FindingCode.LISTENER_NONCE, "the server sends no nonce, so clients cannot prove their keys", RENDER
        )
    if not info.tls_required:
        findings.error(
            FindingCode.LISTENER_PLAIN,
            "the listener accepts clients without TLS, so passwords are sent in clear text",
            RENDER,
        )
        return
    facts = await look_at_tls(target)
    examine_tls_mode(facts, broker, findings)
    _certificate(facts, context, findings)
    if facts.client_certificates is not ClientCertificates.NONE:
        _authorities(facts, context, findings)
    await _let_in(context, broker, target, findings)


def examine_version(text: str, findings: BrokerFindings) -> None:
    """Check a version of nats-server for known defects."""
    version = parse_version(text)
    if version is None:
        findings.warning(FindingCode.SERVER_VERSION, f"version {text!r} is unknown", "use a released nats-server")
        return
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        findings.error(FindingCode.SERVER_VERSION, f"nats-server {text} is older than {oldest}", "upgrade nats-server")
    defects = known_defects(version)
    for defect in defects:
        fixed = ", ".join(".".join(map(str, item)) for item in defect.fixed)
        message = f"nats-server {text}: {defect.what} ({defect.name})"
        if defect.breaks:
            findings.error(FindingCode.SERVER_DEFECT, message, f"upgrade: {fixed}")
        else:
            findings.warning(FindingCode.SERVER_DEFECT, message, f"upgrade: {fixed}")
    if not defects and version >= OLDEST:
        findings.ok(FindingCode.SERVER_VERSION, f"nats-server {text} has no known defect")


def _advertised(info: Info, findings: BrokerFindings) -> None:
    if len(info.connect_urls) > 1:
        message = f"the cluster's addresses are sent to everyone who connects: {', '.join(info.connect_urls[:5])}"
        findings.warning(FindingCode.LISTENER_ADVERTISES, message, f"set no_advertise; {RENDER}")


def examine_tls_mode(facts: TlsFacts, broker: BrokerSettings, findings: BrokerFindings) -> None:
    """Compare what a listener does about client certificates with what its role needs."""
    if not facts.readable:
        remedy = "check with: openssl s_client -starttls nats"
        findings.skipped(
            FindingCode.LISTENER_TLS_MODE,
            "the listener refuses TLS 1.2, so its certificate request cannot be read",
            remedy,
        )
        return
    mode, expected = facts.client_certificates, broker.role.client_certificates
    if mode is expected:
        findings.ok(FindingCode.LISTENER_TLS_MODE, f"the listener {mode.described}")
    elif mode is ClientCertificates.REQUIRED:
        who = "members without one" if broker.role is Role.GATE else "unprovisioned nodes"
        message = f"the listener {mode.described}, so {who} cannot connect"
        findings.error(FindingCode.LISTENER_ASKS_CERTIFICATE, message, RENDER)
    elif mode is ClientCertificates.NONE:
        message = f"the listener {mode.described}, so no client is verified there"
        findings.error(FindingCode.LISTENER_ASKS_NO_CERTIFICATE, message, RENDER)
    elif broker.role.verifies_clients:
        message = f"the listener {mode.described}, so strangers reach the fleet's server"
        findings.error(FindingCode.LISTENER_CERTIFICATE_OPTIONAL, message, f"{RENDER}, or set its role to mixed")
    else:
        message = f"the listener {mode.described}, while its role {broker.role} is for clients without one"
        findings.error(FindingCode.LISTENER_CERTIFICATE_OPTIONAL, message, RENDER)


def _certificate(facts: TlsFacts, context: Context, findings: BrokerFindings) -> None:
    if facts.certificate is None:
        return
    try:
        certificate = parse_certificate(facts.certificate)
    except CertificateError as error:
        findings.warning(
            FindingCode.LISTENER_CERTIFICATE_UNREADABLE,
            f"the server's certificate: {error}",
            "issue another certificate",
        )
        return
    warn_of_expiry(findings, "listener", "the server's certificate", certificate.expires, context)


def warn_of_expiry(findings: BrokerFindings, listener: str, whose: str, not_after: datetime, context: Context) -> None:
    """Add an error if a certificate has expired, a warning if it expires within 30 days."""
    now = datetime.fromtimestamp(context.now(), UTC)
    left = not_after - now
    date = not_after.date().isoformat()
    if left.total_seconds() <= 0:
        findings.error(
            FindingCode(f"{listener}.certificate_expired"),
            f"{whose} expired {ago(not_after, now)}, on {date}",
            "renew it and reload nats-server (SIGHUP)",
        )
    elif left.days < EXPIRY_WARNING_DAYS:
        message = f"{whose} expires {ago(not_after, now)}, on {date}"
        findings.warning(
            FindingCode(f"{listener}.certificate_expires"), message, "renew it and reload nats-server (SIGHUP)"
        )
    else:
        findings.ok(FindingCode(f"{listener}.certificate_expiry"), f"{whose} is valid until {date}")


def _authorities(facts: TlsFacts, context: Context, findings: BrokerFindings) -> None:
    """Compare the CAs that the server trusts with those that the service trusts (fact 3)."""
    if not facts.authorities:
        message = "the listener accepts certificates of every CA in the system's trust store, because it has no ca_file"
        findings.error(FindingCode.LISTENER_ANY_CA, message, RENDER)
        return
    if not context.settings.client_ca:
        remedy = "set plugin.broker_auth.client_ca to your own CA"
        findings.warning(
            FindingCode.CLIENT_CA_UNSET, "the service accepts every certificate chain that nats-server verified", remedy
        )
        return
    own = {root.subject for path in context.settings.client_ca for root in _roots(path)}
    foreign = [name for name in facts.authorities if name not in own]
    if foreign:
        shown = ", ".join(readable(name) for name in foreign[:5])
        message = f"the listener also accepts certificates of CAs that are not in client_ca: {shown}"
        findings.warning(
            FindingCode.LISTENER_OTHER_CA,
            message,
            "add them to plugin.broker_auth.client_ca, or remove them from ca_file",
        )
    elif own.isdisjoint(facts.authorities):
        findings.error(
            FindingCode.LISTENER_OTHER_CA, "the listener accepts no certificates of the CAs in client_ca", RENDER
        )
    else:
        findings.ok(FindingCode.LISTENER_CA, "the listener accepts only certificates of the CAs in client_ca")


def _roots(path: Path) -> list[Certificate]:
    try:
        return load_roots(path.read_bytes(), str(path))
    except (OSError, InputError):
        return []  # reported by the check of the configuration


async def _let_in(context: Context, broker: BrokerSettings, target: ProbeTarget, findings: BrokerFindings) -> None:
    """Check TLS with the service's files, a login without credentials, and a long CONNECT."""
    bare, large = await asyncio.gather(  # concurrently: without a service each waits for a timeout
        attempt(target, _bare_context(), {"name": CANARY}),
        attempt(target, context.access.tls(broker), {"name": CANARY, "auth_token": LARGE_TOKEN}),
    )
    if bare.verdict is Verdict.ADMITTED:
        message = "the listener admits clients without certificate and credential (no_auth_user, or no auth_callout)"
        findings.error(FindingCode.LISTENER_OPEN, message, RENDER)
    else:
        findings.ok(FindingCode.LISTENER_CLOSED, "the listener does not admit clients without a credential")
    if large.verdict is Verdict.TLS_FAILED:
        remedy = "correct tls.ca, tls.certificate and tls.key, or the names in the server's certificate"
        findings.error(FindingCode.LISTENER_HANDSHAKE, f"TLS fails with the service's files: {large.message}", remedy)
    elif _too_long(large):
        message = f"the listener refuses a CONNECT of 20 KB: {large.message}; clients with two tokens cannot log in"
        findings.error(FindingCode.LISTENER_MAX_CONTROL_LINE, message, f"set max_control_line: 65536; {RENDER}")
    else:
        findings.ok(FindingCode.LISTENER_HANDSHAKE, "TLS works with the service's files")
        findings.ok(FindingCode.LISTENER_MAX_CONTROL_LINE, "the listener accepts a CONNECT of 20 KB")


def _bare_context() -> ssl.SSLContext:
    """Return a TLS context without a certificate that trusts any server, which was checked before."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _too_long(outcome: ProbeResult) -> bool:
    # nats-server may close the connection before its error is delivered, because not everything was read.
    return "maximum control line" in outcome.message.lower() or outcome.message == "connection closed"
