"""``broker-auth revoke``, ``restore`` and ``revoked``."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import click

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.audit.record import AuditRecord
from broker_auth.cli import options, output
from broker_auth.cli.access import access_options, kick_option, make_ender_access, run
from broker_auth.cli.revocation_changes import WrittenRecords, confirmed, finish, propagate_change, zone_apart
from broker_auth.cli.revocation_values import token_ids_of, value_of
from broker_auth.cli.tables import Column, Table, print_table
from broker_auth.errors import InputError
from broker_auth.files.ownership import configured_by
from broker_auth.operate.access import Access
from broker_auth.operate.other_hosts import OtherHosts
from broker_auth.operate.revoked_sessions import RevokedSessions, SessionTarget
from broker_auth.operate.sessions import FoundSessions, SessionEnder
from broker_auth.policy.revocations import Revocation, RevocationKind, is_wide
from broker_auth.settings.keys import own
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.settings.revocation_store import create, open_store
from broker_auth.settings.revocations import read_revocations
from broker_auth.wording import counted

_MAX_REASON: Final = 256  # characters


class SessionChoice(StrEnum):
    """The sessions that ``revoke`` ends."""

    MATCHING = "matching"
    ALL = "all"
    NONE = "none"


_COLUMNS: Final = (
    Column(name="Kind"),
    Column(name="Value", fold=16),
    Column(name="Issued before", worth=6),
    Column(name="Until", worth=5),
    Column(name="By", worth=4),
    Column(name="At", worth=3),
    Column(name="Reason", fold=12),
)
_KINDS: Final = click.Choice([*(kind.value for kind in RevocationKind), "token"])
_issuer_option = click.option(
    "--issuer", type=options.FILE, help="For `serial`: the certificate of the CA that issued the certificate."
)


@click.command(
    "revoke",
    epilog=options.example(
        "broker-auth revoke token leaked.jwt -c broker.conf --reason 'pasted into a ticket'",
        "broker-auth revoke identity up=alice -c broker.conf --until 2027-02-01T00:00:00Z",
        "broker-auth revoke certificate laptop.pem -c broker.conf",
        "broker-auth revoke serial 1f:03:9a --issuer ca.pem -c broker.conf",
        "broker-auth revoke signer signer.pem -c broker.conf --before 2027-01-15T08:00:00Z --yes",
    ),
)
@click.argument("kind", metavar="KIND", type=_KINDS)
@click.argument("values", metavar="VALUE…", nargs=-1, required=True)
@options.config_option
@click.option("--until", type=options.MOMENT, help="When the revocation ends: RFC 3339 or Unix seconds.")
@click.option("--before", type=options.MOMENT, help="For `signer`: only its tokens issued before this moment.")
@click.option("--reason", default="", help="Shown by `revoked`; no decision depends on it.")
@_issuer_option
@click.option(
    "--sessions",
    type=click.Choice([choice.value for choice in SessionChoice]),
    default=SessionChoice.MATCHING.value,
    show_default=True,
    help="Sessions to end: those it let in, all (those that may come back do), or none.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be revoked and ended, and change nothing.")
@click.option("--yes", is_flag=True, help="Revoke a signer, a chain issuer, a pattern or a network.")
@kick_option
@access_options
@click.pass_context
def revoke_command(
    ctx: click.Context,
    /,
    kind: str,
    values: tuple[str, ...],
    config: Path,
    until: float | None,
    before: float | None,
    reason: str,
    issuer: Path | None,
    sessions: str,
    *,
    dry_run: bool,
    yes: bool,
    **credentials: Any,
) -> None:
    """Deny what was granted, before it expires, and end the sessions it let in.

    KIND is token, token-id, token-sha256, key, chain-issuer, identity, signer, certificate, serial, node or network;
    VALUE of `token` is a file with one, that of `certificate` a file or a fingerprint. Returns once every worker of the
    service decides by it, on this host and on those that share the bucket of revocations, and the sessions have ended.
    Audit records tell which sessions a token, chain issuer or signer let in; each host that shares the bucket is asked.
    Exit code 1: a host has not confirmed or answered, or a session may be left.
    """
    now = time.time()
    _check_options(kind, until, before, reason, now)
    settings, path = _settings(config)
    if apart := [one.name for one in settings.brokers if not settings.zone(one.zone).served]:
        output.remark(
            f"broker {', '.join(apart)} decides by itself and denies nothing: a member whose session ends comes back"
        )
    named = [value_of(kind, value, issuer) for value in values]
    entries = [
        Revocation(kind=what, value=value, until=until, before=before, reason=reason, by=_user(), at=now)
        for what, value in named
    ]
    if not (yes or dry_run) and (wide := next(filter(is_wide, entries), None)):
        raise InputError(f"{wide.kind} {wide.value} may concern many connections; give --yes if that is meant")
    token_ids = token_ids_of(values) if kind == "token" else {}
    target = SessionTarget(entries, token_ids, everybody=sessions == SessionChoice.ALL)
    with configured_by(config):
        zone = zone_apart(config, settings)
        if sessions == SessionChoice.NONE:
            finish(config, _revoke(path, entries, now, config, dry_run=dry_run), now, zone)
            return
        access = make_ender_access(config, zone=zone, **credentials)
        outcome = run(
            _end(access, target, lambda: _revoke(path, entries, now, config, dry_run=dry_run), now, dry_run=dry_run)
        )
    output.note(f"{'would end' if dry_run else 'ended'} {counted(len(outcome.chosen), 'session')}")
    for session in outcome.chosen:
        output.note(f"  {session.description}")
    missing = (*outcome.missing, *outcome.unknown)
    for line in missing:
        output.error(line)
    ctx.exit(1 if missing else 0)


def _check_options(kind: str, until: float | None, before: float | None, reason: str, now: float) -> None:
    if before is not None and kind != RevocationKind.SIGNER:
        raise click.UsageError("--before goes with signer only")
    if until is not None and until <= now:
        raise click.UsageError("--until is in the past")
    if len(reason) > _MAX_REASON or not reason.isprintable():
        raise click.UsageError(f"--reason: write at most {_MAX_REASON} printable characters")


def _revoke(path: Path, entries: Sequence[Revocation], now: float, config: Path, *, dry_run: bool) -> WrittenRecords:
    for entry in entries:
        output.note(f"{'would revoke' if dry_run else 'revoking'} {entry.kind} {entry.value}")
    if dry_run:
        return WrittenRecords()
    with open_store(path) as store:
        written = store.revoke(entries, now)
        return confirmed(_settings(config)[0], store, written)


def _shares(settings: Settings) -> bool:
    """Return whether hosts of the fleet can be asked from here."""
    return bool(settings.buckets) and settings.main_broker is not None


async def _end(
    access: Access, target: SessionTarget, revoke: Callable[[], WrittenRecords], now: float, *, dry_run: bool
) -> FoundSessions:
    """Log in, revoke, and end sessions: afterwards the login itself might be refused."""

    def read() -> list[AuditRecord]:
        paths = [path for path in access.settings.audit_files if path.is_file()]
        return [record for path in paths for record in read_recent_decisions(path)]

    async with OtherHosts(access) as hosts:
        selector = RevokedSessions(access.settings, target, read, hosts if _shares(access.settings) else None)
        async with SessionEnder(access, selector) as ender:
            missing = await propagate_change(access, revoke(), now)
            result = await (ender.find() if dry_run else ender.end())
        remarks = hosts.remarks() if result.unknown else ()
    return replace(result, missing=(*missing, *result.missing), unknown=(*selector.untold, *result.unknown, *remarks))


@click.command("restore", epilog=options.example("broker-auth restore identity up=alice -c broker.conf"))
@click.argument("kind", metavar="KIND", type=_KINDS)
@click.argument("values", metavar="VALUE…", nargs=-1, required=True)
@options.config_option
@_issuer_option
def restore_command(kind: str, values: tuple[str, ...], config: Path, issuer: Path | None) -> None:
    """Take revocations back; KIND and VALUE as for revoke.

    Returns once every worker of the service decides by it, on this host and on those that share the bucket.
    """
    settings, path = _settings(config)
    named = [value_of(kind, value, issuer) for value in values]
    now = time.time()
    with configured_by(config):
        with open_store(path) as store:
            written = store.restore(named, now, _user())
            for what, value in named:
                output.note(f"restoring {what} {value}")
            change = confirmed(settings, store, written)
        finish(config, change, now, zone_apart(config, settings))


@click.command("revoked", epilog=options.example("broker-auth revoked --json -c broker.conf"))
@options.config_option
@click.option("--create", "make", is_flag=True, help="Write an empty file of revocations where the file is missing.")
@options.json_option
def revoked_command(config: Path, *, make: bool, as_json: bool) -> None:
    """List what was revoked, by whom and why."""
    _, path = _settings(config)
    with configured_by(config):
        if make:
            created = create(path)
            if not as_json:
                output.note(f"{'created' if created else 'kept'} {path}")
        revocations = read_revocations(path).in_force(time.time())
    if as_json:
        output.document([_document(one) for one in revocations])
        return
    rows = [
        (
            one.kind,
            one.value,
            output.rfc3339(one.before),
            output.rfc3339(one.until),
            one.by,
            output.rfc3339(one.at),
            one.reason,
        )
        for one in revocations
    ]
    print_table(Table(_COLUMNS, rows, [f"{counted(len(rows), 'revocation')} in {path}"]))


def _document(one: Revocation) -> dict[str, object]:
    return {
        "kind": one.kind,
        "value": one.value,
        "before": output.rfc3339(one.before),
        "until": output.rfc3339(one.until),
        "reason": one.reason or None,
        "by": one.by or None,
        "at": output.rfc3339(one.at),
    }


def _settings(config: Path) -> tuple[Settings, Path]:
    settings = load(config, os.environ, serving=False)
    if settings.revocations is None:
        raise InputError(
            f"{config}: {own.REVOCATIONS.name} is not set; name a file in a directory of the service's user, make it "
            "with `broker-auth revoked --create`, and reload"
        )
    return settings, settings.revocations


def _user() -> str:
    """Return who runs this, for people: a name under sudo too."""
    if name := os.environ.get("SUDO_USER", ""):
        return name[:64] if name.isprintable() else ""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
