"""What is neither a listener nor an account: the configuration's own problems, files, streams, crossing over."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.callout.chain_issuers import IN_USE_SECONDS, MAX_ISSUERS
from broker_auth.errors import InputError, OperationError
from broker_auth.natsio.nkey import NkeyKind, public_nkey, seed_kind
from broker_auth.operate.access import AccessError, request_json
from broker_auth.operate.doctor.finding import Case, Finding, Notes
from broker_auth.operate.streams.change import change_streams, streams_broker
from broker_auth.operate.streams.plan import Action
from broker_auth.settings.problems import ConfigurationReport
from broker_auth.tokens.chain import WARNING_SECONDS
from broker_auth.tokens.show import moment

_SEED_BYTES: Final = 1024
_MAX_FILES: Final = 1000
_RENEW_ISSUER: Final = "renew it and have it issue new tokens (docs/runbook.md#a-chain-issuer)"


def examine_configuration(report: ConfigurationReport) -> list[Finding]:
    """Problems and warnings of the configuration: keys, modes of files, expiring certificates."""
    notes = Notes()
    for problem in report.problems:
        notes.error("configuration", str(problem), problem.remedy)
    for warning in report.warnings:
        notes.warning("configuration", str(warning), warning.remedy)
    if not notes.findings:
        notes.ok("configuration", "the configuration has no problem")
    return notes.findings


def examine_files(case: Case) -> list[Finding]:
    """Whether the break-glass seed lies where it must not: beside the configuration."""
    notes = Notes()
    nkeys = {zone.break_glass_nkey for zone in case.settings.zones if zone.break_glass_nkey is not None}
    directory = case.settings.path.parent
    kept = [path for path in _seed_files(directory) if nkeys and _public(path) in nkeys]
    for path in kept:
        remedy = "move it off this machine, to where only the operator in an emergency finds it"
        notes.warning("break_glass.seed_kept", f"{path} holds the break-glass seed", remedy)
    if nkeys and not kept:
        notes.ok("break_glass.seed", f"the break-glass seed is not below {directory}")
    return notes.findings


def examine_chain_issuers(case: Case) -> list[Finding]:
    """Whether a chain issuer that the audit file knows of has ended or soon ends, which denies everybody below it."""
    notes, paths, now = Notes(), case.settings.audit_files, case.now()
    if not case.settings.issuers:
        return []
    if not paths:
        remedy = (
            "add file:PATH to plugin.broker_auth.audit.output, or watch the metric "
            "broker_auth_chain_issuer_expiry_timestamp_seconds"
        )
        notes.skipped("chain_issuers", "without an audit file the chain issuers in use are not known", remedy)
        return notes.findings
    try:
        found = [path for path in paths if path.exists()] or paths[:1]
        records = [record for path in found for record in read_recent_decisions(path)]
    except InputError as error:
        notes.skipped("chain_issuers", str(error), "run it as a user who may read the file")
        return notes.findings
    ends = {
        item.issuer_id: item.issuer_ends.timestamp()
        for item in sorted(records, key=lambda item: item.time)
        if item.issuer_ends is not None and now - item.time.timestamp() < IN_USE_SECONDS
    }
    soon = {issuer: end for issuer, end in ends.items() if end - now < WARNING_SECONDS}
    for issuer, end in sorted(soon.items(), key=lambda item: item[1])[:MAX_ISSUERS]:
        notes.warning("chain_issuers.end", f"chain issuer {issuer} is accepted until {moment(end, now)}", _RENEW_ISSUER)
    if not soon:
        notes.ok("chain_issuers", f"none of {len(ends)} chain issuers of the last week ends within 30 days")
    return notes.findings


def _seed_files(directory: Path) -> list[Path]:
    found = []
    for number, path in enumerate(directory.rglob("*")):
        if number >= _MAX_FILES:
            break
        if path.suffix in (".seed", ".nk", ".key") and path.is_file() and path.stat().st_size <= _SEED_BYTES:
            found.append(path)
    return found


def _public(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
        return public_nkey(text) if seed_kind(text) is NkeyKind.USER else None
    except (OSError, UnicodeDecodeError, InputError):
        return None


async def examine_streams(case: Case) -> list[Finding]:
    """Whether the fleet's streams are there and as the configuration wants them."""
    notes = Notes()
    remedy = "run: broker-auth streams apply --config " + str(case.settings.path)
    try:
        notes.broker = streams_broker(case.access)
        changes = await change_streams(case.access, dry_run=True)
    except AccessError as error:
        notes.skipped("streams", "the fleet's account does not open, so streams were not looked at", str(error))
        return notes.findings
    except OperationError as error:
        notes.error("streams.unavailable", str(error), "set store_dir and look at nats-server's log")
        return notes.findings
    for change in changes:
        if change.action is Action.CREATE:
            notes.error("streams.missing", f"{change.name} is not there", remedy)
        elif change.action is Action.UPDATE:
            fields = ", ".join(difference.field for difference in change.differences)
            notes.warning("streams.differ", f"{change.name} differs from the configuration in {fields}", remedy)
        elif change.action is Action.UNWANTED:
            notes.warning("streams.unwanted", f"{change.name} has retention 0 but is there", "nats stream rm")
        else:
            notes.ok("streams.present", f"{change.name} is as configured, or not wanted")
    await _examine_audit_stream(case, notes)
    return notes.findings


async def _examine_audit_stream(case: Case, notes: Notes) -> None:
    """Look whether a stream keeps the audit records that are published: nobody else would notice that none does."""
    subject = case.settings.audit.subject
    if subject is None or notes.broker is None:
        return
    fleet = await case.access.fleet(notes.broker)
    try:
        told = await request_json(fleet, "$JS.API.STREAM.NAMES", {"subject": subject})
    except OperationError as error:
        notes.warning("audit.stream", f"streams are not named: {error}", "look at nats-server's log")
        return
    finally:
        await fleet.close()
    if not told.get("streams"):
        said = f"no stream keeps audit records published on {subject}: they are lost"
        notes.error("audit.stream", said, f"make a stream of {subject} in the fleet's account")
    else:
        notes.ok("audit.stream", f"audit records on {subject} are kept")


async def examine_isolation(case: Case) -> list[Finding]:
    """Tries to cross from the provisioning account into the fleet's, and back."""
    notes = Notes()
    async with AsyncExitStack() as stack:
        try:
            notes.broker = streams_broker(case.access)
            fleet = await case.access.fleet(notes.broker)
            stack.push_async_callback(fleet.close)
            provisioner = await case.access.provisioner(notes.broker)
            stack.push_async_callback(provisioner.close)
        except AccessError as error:
            remedy = f"give --certificate and --key of a provisioner, whom the broker lets in ({error})"
            notes.skipped("isolation.crossing", "fleet or provisioning account does not open", remedy)
            return notes.findings
        for origin, other, what in (
            (provisioner, fleet, "the provisioning account reaches the fleet"),
            (fleet, provisioner, "the fleet reaches the provisioning account"),
        ):
            crossed = [subject for subject in _subjects() if await _crosses(origin, other, subject)]
            if crossed:
                remedy = "two accounts are joined by an import or a leaf link; render the configuration again"
                notes.error("isolation.crossing", f"{what}: {', '.join(crossed)}", remedy)
        if not notes.findings:
            notes.ok("isolation.crossing", "nothing published in one account is heard in the other")
    return notes.findings


def _subjects() -> list[str]:
    """Subjects nobody listens to, of the kinds that matter: a node's, a registration's, an agent's."""
    random = secrets.token_hex(8)
    return [
        f"provisioning.node.doctor-{random}",
        f"provisioning.registration.doctor-{random}",
        f"doctor-{random}.node.{random}",
        f"broker-auth.doctor.{random}",
    ]


async def _crosses(origin: Client, other: Client, subject: str) -> bool:
    """Whether a message arrives. The server has passed it on, if it does, before it answers a PING."""
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    subscription = await other.subscribe(subject, cb=hear)
    await _settled(other)
    await origin.publish(subject, b"")
    await _settled(origin)
    await _settled(other)
    await subscription.drain()  # type: ignore[no-untyped-call]
    return bool(heard)


async def _settled(client: Client) -> None:
    for _ in range(2):  # an answer to an earlier PING may stand in for the first
        await client.flush()
