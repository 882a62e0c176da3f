"""The process that synchronizes this host's revocations with the bucket of the fleet, beside the fleet's workers.

On a host without the fleet's zone it is beside another zone's workers, and follows the bucket as that zone's reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from broker_auth.daemon.companion import Companion, run_companion
from broker_auth.daemon.pidfile import running
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.spawn import die_with_parent
from broker_auth.errors import OperationError
from broker_auth.hosts.answering import Answering
from broker_auth.hosts.registration import host_id
from broker_auth.hosts.synchronizer import Synchronizer
from broker_auth.settings.model import FLEET_ZONE, ServingSettings

FIRST_SECONDS: Final = 3.0  # for the first synchronization, before workers start
_POLL_SECONDS: Final = 0.1
_LEAVE: Final = b"leave\n"


class SyncHeartbeat(msgspec.Struct, frozen=True):
    """The state of the synchronization.

    Attributes:
        synchronized: when file and bucket held the same last, in Unix seconds; 0 if they never did.
        trouble: why they do not; empty if they do.
    """

    synchronized: float = 0.0
    trouble: str = ""


def wants_synchronization(settings: ServingSettings) -> bool:
    """Return whether a zone synchronizes for its host: the fleet's does, if it is configured, or one served apart."""
    if settings.follower is not None:
        return True
    return settings.revocations_bucket and settings.served.name == FLEET_ZONE and settings.main_broker is not None


class Synchronization:
    """The process, and what is known of it, for the supervisor of a zone.

    Attributes:
        last: when file and bucket held the same last, in Unix seconds; 0 if never, None without a bucket.
        trouble: why they do not; empty if they do.
    """

    def __init__(self, on_change: Callable[[], None], on_failure: Callable[[], None]) -> None:
        """Start nothing yet.

        Args:
            on_change: called after each heartbeat.
            on_failure: called before the process is replaced because it died or was stuck.
        """
        self.last: float | None = None
        self.trouble = ""
        self._on_change = on_change
        self._process = Companion("synchronization", _synchronize, SyncHeartbeat, self._on_heartbeat, on_failure)
        self.slots = self._process.slots
        self.reap = self._process.reap
        self._known = asyncio.Event()

    async def begin(self, prepared: Prepared, stopping: Callable[[], bool]) -> None:
        """Start the process, and wait for a moment until file and bucket hold the same, or it is known why not.

        Args:
            prepared: the configuration of the zone.
            stopping: returns whether the service was asked to stop.
        """
        self._start(prepared)
        deadline = asyncio.get_running_loop().time() + FIRST_SECONDS
        while self._process.running and not (self._known.is_set() or stopping()):
            if asyncio.get_running_loop().time() >= deadline:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._known.wait()

    async def renew(self, prepared: Prepared) -> None:
        """Replace the process after a reload."""
        await self._process.retire()
        self._start(prepared)

    async def leave(self) -> None:
        """End the process; it tells other hosts that this one decides nothing any more."""
        await self._process.retire(_LEAVE)

    def _start(self, prepared: Prepared) -> None:
        if not wants_synchronization(prepared.settings):
            self.last, self.trouble = None, ""
            return
        self.last = self.last or 0.0
        self._process.start(prepared)

    def _on_heartbeat(self, heartbeat: SyncHeartbeat) -> None:
        self.last = heartbeat.synchronized or self.last
        self.trouble = heartbeat.trouble
        if heartbeat != SyncHeartbeat():
            self._known.set()
        self._on_change()


def _synchronize(prepared: Prepared, channel: socket.socket) -> None:
    die_with_parent()
    asyncio.run(_run(prepared, channel))


async def _run(prepared: Prepared, channel: socket.socket) -> None:
    settings = prepared.settings
    assert settings.revocations is not None
    changed = asyncio.Event()
    host = host_id(settings), socket.gethostname()
    access, zone = settings.follower, settings.served.name
    answering = None if access else Answering(host[0], settings.audit.path_of)
    synchronizer = Synchronizer(
        settings.revocations,
        host,
        lambda: _in_force(settings),
        changed.set,
        answering,
        zone=zone if access else "",
    )

    async def before_end(last: bytes) -> None:
        if last == _LEAVE:
            await synchronizer.leave()

    await run_companion(
        channel,
        [_follow(synchronizer, prepared)],
        lambda: SyncHeartbeat(synchronizer.synchronized, synchronizer.trouble),
        changed,
        before_end,
    )


async def _follow(synchronizer: Synchronizer, prepared: Prepared) -> None:
    settings, broker = prepared.settings, prepared.settings.main_broker
    if (access := settings.follower) is not None:
        await synchronizer.run(access.urls, access.seed, prepared.reader)
        return
    assert broker is not None
    await synchronizer.run(broker.urls, settings.served.nkey_seed, prepared.contexts[broker.name])


def _in_force(settings: ServingSettings) -> set[str]:
    """Return the versions by which the workers of each zone of this service decide."""
    assert settings.pid_file is not None
    with contextlib.suppress(OperationError):
        return {line.revocations for line in running(settings.pid_file).zones.values()}
    return set()
