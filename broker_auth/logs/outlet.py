"""Non-blocking output of log lines and audit records.

A pipe that nobody reads, a full socket or a hanging disk blocks a thread here, never the event loop that answers
requests. Messages that do not fit into the bounded queue are dropped and counted.

The supervisor forks and so must not have threads: it uses :class:`TryingOutlet`, which drops messages that cannot
be written immediately.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
CLOSE_SECONDS: Final = 2.0  # deadline for queued messages when the process ends
_PAUSE_SECONDS: Final = 0.01  # messages are collected for this long: a wake-up for each costs 20 µs
_MAX_TOGETHER: Final = 64 * 1024  # bytes in one write


class Outlet(Protocol):
    """A sink for bytes that neither blocks nor raises.

    Attributes:
        lost: number of messages dropped.
    """

    @property
    def lost(self) -> int: ...

    def write(self, data: bytes, count: int = 1) -> None:
        """Write ``data``, which is ``count`` messages."""


class OutletTarget(Protocol):
    """The destination of a :class:`ThreadOutlet`; used only in its thread, where it may block."""

    def write(self, data: bytes, count: int) -> int:
        """Write ``data``, which holds ``count`` messages; return how many of them were lost."""

    def reopen(self) -> None:
        """Open the destination again, because log rotation may have moved it."""

    def close(self) -> None:
        """Release the destination."""


class ThreadOutlet:
    """An outlet that writes in its own thread, which starts with the first message and so never before a fork."""

    def __init__(self, target: OutletTarget, max_bytes: int = MAX_QUEUED_BYTES, *, together: bool = True) -> None:
        """Prepare to write to ``target``; with ``together``, waiting messages are joined into one write."""
        self._target = target
        self._max_bytes = max_bytes
        self._together = together
        self._queue: queue.SimpleQueue[tuple[bytes, int] | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each is written by only one thread, so neither needs a lock.
        self._put_bytes, self._put_count, self._dropped = 0, 0, 0
        self._done_bytes, self._done_count, self._failed = 0, 0, 0

    @property
    def lost(self) -> int:
        """Number of messages dropped here or lost by the target."""
        return self._dropped + self._failed

    def write(self, data: bytes, count: int = 1) -> None:
        """Queue ``data``, which holds ``count`` messages, or drop it."""
        if self._put_bytes - self._done_bytes + len(data) > self._max_bytes:
            self._dropped += count
            return
        self._put_bytes += len(data)
        self._put_count += count
        self._queue.put((data, count))
        self._started()

    def reopen(self) -> None:
        """Request that the target is opened again once the messages queued so far are written."""
        self._queue.put(self._target.reopen)
        self._started()

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until the messages queued so far are written; return False on timeout."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._queue.put(reached.set)
        return reached.wait(seconds)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write the queued messages, as far as the deadline allows, and end the thread."""
        if self._thread is None:
            self._target.close()
            return
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():  # it ends with the process
            self._dropped += self._put_count - self._done_count

    def _started(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="outlet", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        following: deque[tuple[bytes, int] | Callable[[], None] | None] = deque()
        while True:
            item = following.popleft() if following else self._queue.get()
            if item is None:
                break
            if not isinstance(item, tuple):
                with contextlib.suppress(Exception):  # the next write will fail and count it
                    item()
                continue
            data, count = item
            while self._together and not following and len(data) < _MAX_TOGETHER and not self._queue.empty():
                more = self._queue.get()
                if isinstance(more, tuple):
                    data, count = data + more[0], count + more[1]
                else:
                    following.append(more)
            try:
                self._failed += self._target.write(data, count)
            except Exception:  # no error may end this thread
                self._failed += count
            self._done_bytes += len(data)
            self._done_count += count
            if not following and self._queue.empty():
                time.sleep(_PAUSE_SECONDS)
        self._target.close()


class DescriptorTarget:
    """A target that is a file descriptor inherited from the parent process, such as standard error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, count: int) -> int:
        """Write all of ``data``, however slow the reader is."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BlockingIOError:  # another process made it non-blocking
            select.select([], [self._descriptor], [])
            return self.write(data, count)
        except OSError:
            return count
        return 0

    def reopen(self) -> None:
        """Do nothing: rotation is up to the process that opened the descriptor."""

    def close(self) -> None:
        """Do nothing: the descriptor belongs to the parent process."""


class TryingOutlet:
    """An outlet without a thread that drops messages which cannot be written immediately.

    Non-blocking mode is shared by all processes that have the descriptor, so a pipe or terminal is opened once more,
    and a socket is written with a flag for the one call. Where neither is possible, the descriptor is polled for
    room, although another process may still fill it first. A regular file is simply written.
    """

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._cut = False
        self._socket: socket.socket | None = None
        mode = os.fstat(descriptor).st_mode
        self._asks = not stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif self._asks:
            with contextlib.suppress(OSError):  # no /proc, or another user's pipe
                again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
                self._descriptor, self._asks = again, False

    def write(self, data: bytes, count: int = 1) -> None:
        """Write ``data``, which holds ``count`` messages, or drop it."""
        if self._cut:
            data = b"\n" + data
        try:
            if self._socket is not None:
                written = self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            elif self._asks and not select.select([], [self._descriptor], [], 0)[1]:
                raise BlockingIOError
            else:
                written = os.write(self._descriptor, data[: select.PIPE_BUF] if self._asks else data)
        except OSError:
            self.lost += count
        else:
            self._cut = written < len(data)
            self.lost += count if self._cut else 0

    def abandon(self) -> None:
        """Forget the parent's descriptors, which are closed in this process and whose numbers may be in use again."""
        if self._socket is not None:
            self._socket.detach()
