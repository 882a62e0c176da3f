"""The steps after a change of the file of revocations: every worker of this host, and every other host, confirm it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker_auth.cli import output
from broker_auth.cli.access import load_settings, run
from broker_auth.daemon.confirmation import confirm
from broker_auth.daemon.pidfile import running
from broker_auth.errors import ConfigurationError, OperationError
from broker_auth.operate.access import Access
from broker_auth.operate.propagation import propagate
from broker_auth.policy.revocation_records import Record
from broker_auth.settings.keys import own
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.revocation_store import RevocationStore

_EVERYWHERE: Final = "in force on every other host that shares the bucket of revocations"
_NOT_FROM_HERE: Final = (
    "other hosts do not learn of it from here, because this host does not serve the fleet; run the same command on a "
    "host that does"
)


@dataclass(frozen=True, slots=True)
class WrittenRecords:
    """The records that a command wrote to the file of this host.

    Attributes:
        records: the records.
        missing: why the service on this host does not decide by them; empty if it does.
    """

    records: tuple[Record, ...] = ()
    missing: tuple[str, ...] = ()


def confirmed(settings: Settings, store: RevocationStore, written: tuple[Record, ...]) -> WrittenRecords:
    """Wait until the service on this host decides by records that were written."""
    try:
        _confirm(settings, store)
    except OperationError as error:
        return WrittenRecords(written, (str(error),))
    return WrittenRecords(written)


def zone_apart(config: Path, settings: Settings) -> str | None:
    """Return the zone that the service on this host serves if it is not the fleet's, whose seeds are not here either.

    Args:
        config: the configuration file.
        settings: what it says.
    """
    if not settings.buckets or settings.pid_file is None:
        return None
    try:
        zones = list(running(settings.pid_file).zones)
    except OperationError:
        return None
    if len(zones) != 1 or FLEET_ZONE in zones:
        return None
    try:
        load_settings(config)
    except ConfigurationError:
        return zones[0]
    return None


def finish(config: Path, change: WrittenRecords, now: float, zone: str | None) -> None:
    """Take a change to every other host; ``zone`` as :func:`zone_apart` returns it.

    Raises:
        OperationError: this host or another one has not confirmed, or this one cannot tell others.
    """
    settings = load_settings(config, zone)
    if missing := run(propagate_change(Access(settings=settings), change, now)):
        raise OperationError("; ".join(missing))


async def propagate_change(access: Access, change: WrittenRecords, now: float) -> tuple[str, ...]:
    """Take a change to every other host, even if this one has not confirmed; return what is missing."""
    if not change.records or not access.settings.buckets:
        return change.missing
    if access.settings.main_broker is None:
        return (*change.missing, _NOT_FROM_HERE)
    missing = await propagate(access, change.records, now)
    if not missing:
        output.note(_EVERYWHERE)
    return (*change.missing, *missing)


def _confirm(settings: Settings, store: RevocationStore) -> None:
    """Wait for the service on this host, and say where else the file has to go."""
    if settings.pid_file is None:
        raise OperationError(
            f"written, but not confirmed: {settings.path}: {own.PID_FILE.name} is not set; set it and restart"
        )
    try:
        running(settings.pid_file)
    except OperationError as error:
        output.warning(f"{error}; what is written counts once a service starts")
        return
    zones = confirm(settings.pid_file, store.held.version)
    output.note(f"in force in zone{'s' if len(zones) > 1 else ''} {', '.join(zones)} on this host")
