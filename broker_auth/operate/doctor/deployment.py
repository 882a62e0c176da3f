"""Checks of the configuration, files, chain issuers, streams, and isolation of accounts."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.callout.chain_issuers import IN_USE_SECONDS, MAX_ISSUERS
from broker_auth.certificates.certificate import CertificateError
from broker_auth.certificates.files import read_certificates
from broker_auth.errors import InputError, OperationError
from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, public_nkey, seed_kind
from broker_auth.operate.answers import request_json
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.operate.logins import AccessError
from broker_auth.operate.streams.change import change_streams, streams_broker
from broker_auth.operate.streams.plan import Action
from broker_auth.settings.problems import ConfigurationReport
from broker_auth.tokens.chain import WARNING_SECONDS
from broker_auth.tokens.show import moment
from broker_auth.wording import ago

_SEED_BYTES: Final = 1024
_MAX_FILES: Final = 1000
_RENEW_ISSUER: Final = "renew it and have it issue new tokens (docs/runbook.md#a-chain-issuer)"


def examine_configuration(report: ConfigurationReport) -> list[Finding]:
    """Return problems and warnings of the configuration: keys, modes of files, expiring certificates."""
    findings = BrokerFindings()
    for problem in report.problems:
        findings.error(FindingCode.CONFIGURATION, problem.statement, problem.remedy)
    for warning in report.warnings:
        findings.warning(FindingCode.CONFIGURATION, warning.statement, warning.remedy)
    if not findings.items:
        findings.ok(FindingCode.CONFIGURATION, "the configuration has no problem")
    return findings.items


def examine_files(context: Context) -> list[Finding]:
    """Check the service's own certificate, and that the break-glass seed is not stored beside the configuration."""
    findings = BrokerFindings()
    _own_certificates(context, findings)
    nkeys = {zone.break_glass_nkey for zone in context.settings.zones if zone.break_glass_nkey is not None}
    directory = context.settings.path.parent
    kept = [path for path in _seed_files(directory) if nkeys and _public(path) in nkeys]
    if kept:
        one, it = ("contains the break-glass seed", "it") if len(kept) == 1 else ("contain break-glass seeds", "them")
        remedy = f"move {it} off this machine, to a place that only operators can access in an emergency"
        findings.warning(FindingCode.BREAK_GLASS_SEED_KEPT, f"{', '.join(map(str, kept))} {one}", remedy)
    if nkeys and not kept:
        findings.ok(FindingCode.BREAK_GLASS_SEED, f"the break-glass seed is not below {directory}")
    return findings.items


def _own_certificates(context: Context, findings: BrokerFindings) -> None:
    """Check that the certificates that the service presents to brokers have not expired."""
    now = datetime.fromtimestamp(context.now(), UTC)
    paths = {broker.tls.certificate: None for broker in context.settings.brokers if broker.tls.certificate is not None}
    for path in paths:
        try:
            ends = read_certificates(path)[0].expires
        except (BadValue, CertificateError):
            continue  # reported by the check of the configuration
        if ends <= now:
            message = f"the service's certificate {path} expired {ago(ends, now)}, on {ends:%Y-%m-%d}: "
            message += "brokers that require a certificate refuse the service"
            remedy = "renew it, and reload the service (broker-auth reload)"
            findings.error(FindingCode.SERVICE_CERTIFICATE, message, remedy, path)


def examine_chain_issuers(context: Context) -> list[Finding]:
    """Check that no chain issuer in the audit file has ended or soon ends, which denies all tokens that it issued."""
    findings, paths, now = BrokerFindings(), context.settings.audit_files, context.now()
    if not context.settings.issuers:
        return []
    if not paths:
        remedy = (
            "add file:PATH to plugin.broker_auth.audit.output, or watch the metric "
            "broker_auth_chain_issuer_expiry_timestamp_seconds"
        )
        findings.skipped(
            FindingCode.CHAIN_ISSUERS, "without an audit file the chain issuers in use are unknown", remedy
        )
        return findings.items
    try:
        existing = [path for path in paths if path.exists()] or paths[:1]
        records = [record for path in existing for record in read_recent_decisions(path)]
    except InputError as error:
        findings.skipped(FindingCode.CHAIN_ISSUERS, str(error), "run the doctor as a user who may read the file")
        return findings.items
    ends = {
        item.issuer_id: item.issuer_ends.timestamp()
        for item in sorted(records, key=lambda item: item.time)
        if item.issuer_ends is not None and now - item.time.timestamp() < IN_USE_SECONDS
    }
    soon = {issuer: end for issuer, end in ends.items() if end - now < WARNING_SECONDS}
    for issuer, end in sorted(soon.items(), key=lambda item: item[1])[:MAX_ISSUERS]:
        findings.warning(
            FindingCode.CHAIN_ISSUERS_END, f"chain issuer {issuer} is accepted until {moment(end, now)}", _RENEW_ISSUER
        )
    if not soon:
        findings.ok(
            FindingCode.CHAIN_ISSUERS, f"none of the {len(ends)} chain issuers of the last week ends within 30 days"
        )
    return findings.items


def _seed_files(directory: Path) -> list[Path]:
    seeds = []
    for number, path in enumerate(directory.rglob("*")):
        if number >= _MAX_FILES:
            break
        if path.suffix in (".seed", ".nk", ".key") and path.is_file() and path.stat().st_size <= _SEED_BYTES:
            seeds.append(path)
    return seeds


def _public(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
        return public_nkey(text) if seed_kind(text) is NkeyKind.USER else None
    except (OSError, UnicodeDecodeError, InputError):
        return None


async def examine_streams(context: Context) -> list[Finding]:
    """Check that the fleet's streams exist and match the configuration."""
    findings = BrokerFindings()
    remedy = "run: broker-auth streams apply --config " + str(context.settings.path)
    try:
        findings.broker = streams_broker(context.access)
        changes = await change_streams(context.access, dry_run=True)
    except AccessError as error:
        findings.skipped(
            FindingCode.STREAMS, "the fleet's account is not accessible, so streams were not checked", str(error)
        )
        return findings.items
    except OperationError as error:
        findings.error(FindingCode.STREAMS_UNAVAILABLE, str(error), "set store_dir and see nats-server's log")
        return findings.items
    missing = [change.name for change in changes if change.action is Action.CREATE]
    if missing:
        verb = "does" if len(missing) == 1 else "do"
        findings.error(FindingCode.STREAMS_MISSING, f"{', '.join(missing)} {verb} not exist", remedy)
    for change in changes:
        if change.action is Action.UPDATE:
            fields = ", ".join(difference.field for difference in change.differences)
            findings.warning(
                FindingCode.STREAMS_DIFFER, f"{change.name} differs from the configuration in {fields}", remedy
            )
        elif change.action is Action.UNWANTED:
            findings.warning(
                FindingCode.STREAMS_UNWANTED,
                f"{change.name} has retention 0 but exists",
                "remove it with nats stream rm",
            )
        elif change.action is not Action.CREATE:
            findings.ok(FindingCode.STREAMS_PRESENT, f"{change.name} is as configured, or not configured")
    await _examine_audit_stream(context, findings)
    return findings.items


async def _examine_audit_stream(context: Context, findings: BrokerFindings) -> None:
    """Check that a stream stores the published audit records; without one they are lost silently."""
    subject = context.settings.audit.subject
    if subject is None or findings.broker is None:
        return
    fleet = await context.access.fleet(findings.broker)
    try:
        answer = await request_json(fleet, "$JS.API.STREAM.NAMES", {"subject": subject})
    except OperationError as error:
        findings.warning(FindingCode.AUDIT_STREAM, f"streams cannot be listed: {error}", "see nats-server's log")
        return
    finally:
        await fleet.close()
    if not answer.get("streams"):
        message = f"no stream stores the audit records published on {subject}: they are lost"
        findings.error(FindingCode.AUDIT_STREAM, message, f"create a stream for {subject} in the fleet's account")
    else:
        findings.ok(FindingCode.AUDIT_STREAM, f"audit records on {subject} are stored")


async def examine_isolation(context: Context) -> list[Finding]:
    """Check that messages do not cross between the provisioning and the fleet's account."""
    findings = BrokerFindings()
    async with AsyncExitStack() as stack:
        try:
            findings.broker = streams_broker(context.access)
            fleet = await context.access.fleet(findings.broker)
            stack.push_async_callback(fleet.close)
            provisioner = await context.access.provisioner(findings.broker)
            stack.push_async_callback(provisioner.close)
        except AccessError as error:
            remedy = f"use --certificate and --key of a provisioner that the broker admits ({error})"
            findings.skipped(
                FindingCode.ISOLATION_CROSSING, "the fleet or the provisioning account is not accessible", remedy
            )
            return findings.items
        for origin, other, what in (
            (provisioner, fleet, "the provisioning account reaches the fleet"),
            (fleet, provisioner, "the fleet reaches the provisioning account"),
        ):
            crossed = [subject for subject in _subjects() if await _crosses(origin, other, subject)]
            if crossed:
                remedy = "an import or a leaf link connects two accounts; render the configuration again"
                findings.error(FindingCode.ISOLATION_CROSSING, f"{what}: {', '.join(crossed)}", remedy)
        if not findings.items:
            findings.ok(
                FindingCode.ISOLATION_CROSSING, "messages published in one account are not received in the other"
            )
    return findings.items


def _subjects() -> list[str]:
    """Return subjects without subscribers, similar to those of nodes, registrations and agents."""
    random = secrets.token_hex(8)
    return [
        f"provisioning.node.doctor-{random}",
        f"provisioning.registration.doctor-{random}",
        f"doctor-{random}.node.{random}",
        f"broker-auth.doctor.{random}",
    ]


async def _crosses(origin: Client, other: Client, subject: str) -> bool:
    """Return whether a message is delivered; the server delivers it before it answers a PING."""
    received: list[bytes] = []

    async def receive(message: Msg) -> None:
        received.append(message.data)

    subscription = await other.subscribe(subject, cb=receive)
    await _settled(other)
    await origin.publish(subject, b"")
    await _settled(origin)
    await _settled(other)
    await subscription.drain()  # type: ignore[no-untyped-call]
    return bool(received)


async def _settled(client: Client) -> None:
    for _ in range(2):  # the first may be answered by the PONG to an earlier PING
        await client.flush()
