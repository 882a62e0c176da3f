"""A process beside the workers of a zone, which works for the whole host and is replaced on a reload."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from broker_auth.daemon.child import Child
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.slot import ProcessSpec, Slot

HEARTBEAT_SECONDS: Final = 1.0
TIMEOUT: Final = 30.0  # seconds without a heartbeat: reading and writing a large file takes some
DRAIN: Final = 5.0
_LAST_SECONDS: Final = 0.2  # for the last message of the supervisor, which it sends before the signal
_MAX_UNREAD: Final = 64 * 1024

H = TypeVar("H")


class Companion(Generic[H]):
    """The process, for the supervisor of a zone."""

    def __init__(
        self,
        title: str,
        body: Callable[[Prepared, socket.socket], None],
        heartbeat_type: type[H],
        on_heartbeat: Callable[[H], None],
        on_failure: Callable[[], None],
    ) -> None:
        """Start nothing yet.

        Args:
            title: name in the log.
            body: the code of the process.
            heartbeat_type: the type of its heartbeats.
            on_heartbeat: called with each of them.
            on_failure: called before the process is replaced because it died or was stuck.
        """
        self._title = title
        self._body = body
        self._heartbeat_type = heartbeat_type
        self._on_heartbeat = on_heartbeat
        self._on_failure = on_failure
        self._slot: Slot[H] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started, and not retired."""
        return self._slot is not None

    def start(self, prepared: Prepared) -> None:
        """Start the process."""
        self._slot = Slot(
            ProcessSpec(
                title=self._title,
                start=lambda: Child(functools.partial(self._body, prepared), self._heartbeat_type, self._on_beat),
                timeout=TIMEOUT,
                drain=DRAIN,
                on_end=lambda _: None,
                on_replace=lambda _: self._on_failure(),
            )
        )

    async def retire(self, *last: bytes) -> None:
        """End the process, if it was started, with a last message to it."""
        if self._slot is not None:
            if self._slot.child is not None:
                self._slot.child.send(last)
            await self._slot.retire()
            self._slot = None

    def slots(self) -> tuple[Slot[H], ...]:
        """Return the slot of the process, if it was started."""
        return () if self._slot is None else (self._slot,)

    def reap(self) -> None:
        """Collect the exit status of the process if it has ended."""
        if self._slot is not None and self._slot.child is not None:
            self._slot.child.reap()

    def _on_beat(self) -> None:
        heartbeat = self._slot.child.heartbeat if self._slot and self._slot.child else None
        if heartbeat is not None:
            self._on_heartbeat(heartbeat)


async def run_companion(
    channel: socket.socket,
    work: Sequence[Coroutine[Any, Any, None]],
    heartbeat: Callable[[], object],
    changed: asyncio.Event,
    before_end: Callable[[bytes], Awaitable[None]] | None = None,
) -> None:
    """Run the work of such a process until SIGTERM or until its supervisor has ended; raise what the work raises.

    Args:
        channel: the end of the channel to the supervisor.
        work: what runs until the end.
        heartbeat: returns the next heartbeat.
        changed: set when a heartbeat should be sent at once.
        before_end: awaited with the last message of the supervisor, empty without one, while the work still runs.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    tasks = [asyncio.create_task(one) for one in (*work, _report(heartbeat, writer, changed))]
    last = asyncio.create_task(reader.readline())
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*tasks, stopping, last], return_when=asyncio.FIRST_COMPLETED)
    if before_end is not None:
        await asyncio.wait([last], timeout=_LAST_SECONDS)
        await before_end(last.result() if last.done() else b"")
    for task in (*tasks, last, stopping):
        task.cancel()
    await asyncio.gather(*tasks, last, stopping, return_exceptions=True)
    writer.close()
    for task in done:
        if not task.cancelled() and (error := task.exception()):
            raise error


async def _report(heartbeat: Callable[[], object], writer: asyncio.StreamWriter, changed: asyncio.Event) -> None:
    while True:
        if writer.transport.get_write_buffer_size() < _MAX_UNREAD:
            writer.write(msgspec.json.encode(heartbeat()) + b"\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await changed.wait()
        changed.clear()
