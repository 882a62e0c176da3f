"""Where log lines and audit records leave a process, without ever making it wait.

A pipe that nobody reads, a full socket or a disk that hangs stops a thread here, never the loop that answers
requests. What does not fit into the bounded queue meanwhile is dropped and counted.

The supervisor forks, so it must have no threads: it uses :class:`TryingOutlet`, which writes what can be written
at once and drops the rest.
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
CLOSE_SECONDS: Final = 2.0  # for what is queued when the process ends
_PAUSE_SECONDS: Final = 0.01  # after which all is written that came meanwhile: to be woken for each costs 20 µs
_MAX_TOGETHER: Final = 64 * 1024  # bytes handed to the target at once


class Outlet(Protocol):
    """Takes bytes; must neither block nor raise.

    Attributes:
        lost: messages that were dropped.
    """

    @property
    def lost(self) -> int: ...

    def write(self, data: bytes, count: int = 1) -> None:
        """Write ``data``, which is ``count`` messages."""


class Target(Protocol):
    """What a :class:`ThreadOutlet` writes to; used in its thread alone, and may block there."""

    def write(self, data: bytes, count: int) -> int:
        """Write ``data``, which is ``count`` messages; return how many of them were lost."""

    def reopen(self) -> None:
        """Open again what may have been moved away."""

    def close(self) -> None:
        """Let go of it."""


class ThreadOutlet:
    """Writes to a target in a thread of its own, which begins with the first message: not before a fork."""

    def __init__(self, target: Target, max_bytes: int = MAX_QUEUED_BYTES, *, together: bool = True) -> None:
        """``together``: messages that wait may be handed to the target in one piece."""
        self._target = target
        self._max_bytes = max_bytes
        self._together = together
        self._queue: queue.SimpleQueue[tuple[bytes, int] | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each is written by one thread alone, so that neither needs a lock.
        self._put_bytes, self._put_count, self._dropped = 0, 0, 0
        self._done_bytes, self._done_count, self._failed = 0, 0, 0

    @property
    def lost(self) -> int:
        """Messages that were dropped, or that the target could not take."""
        return self._dropped + self._failed

    def write(self, data: bytes, count: int = 1) -> None:
        """Queue ``data``, which is ``count`` messages, or drop it."""
        if self._put_bytes - self._done_bytes + len(data) > self._max_bytes:
            self._dropped += count
            return
        self._put_bytes += len(data)
        self._put_count += count
        self._queue.put((data, count))
        self._started()

    def reopen(self) -> None:
        """Have the target opened again, after what is queued now."""
        self._queue.put(self._target.reopen)
        self._started()

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until everything queued so far was handed over; return whether that was in time."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._queue.put(reached.set)
        return reached.wait(seconds)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Hand over what is queued, as far as that is possible in time, and end."""
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
                with contextlib.suppress(Exception):  # the next write will tell
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
            except Exception:  # nothing must end this thread
                self._failed += count
            self._done_bytes += len(data)
            self._done_count += count
            if not following and self._queue.empty():
                time.sleep(_PAUSE_SECONDS)
        self._target.close()


class DescriptorTarget:
    """A descriptor that this process does not own, such as standard error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, count: int) -> int:
        """Write all of ``data``, however long the reader takes."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except BlockingIOError:  # somebody else made it non-blocking
            select.select([], [self._descriptor], [])
            return self.write(data, count)
        except OSError:
            return count
        return 0

    def reopen(self) -> None:
        """Rotating it is up to whoever opened it."""

    def close(self) -> None:
        """It is not ours."""


class TryingOutlet:
    """Writes what can be written at once, and drops the rest; without a thread.

    A non-blocking descriptor is a property that all processes share who have it, so a pipe or terminal is opened
    once more, and a socket is written to with a flag for the one call. Where neither is possible, it is asked
    whether there is room: another process may then still take it first. A regular file is simply written to.
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
            with contextlib.suppress(OSError):  # no /proc, or a pipe that another user made
                again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
                self._descriptor, self._asks = again, False

    def write(self, data: bytes, count: int = 1) -> None:
        """Write ``data``, which is ``count`` messages, or drop it."""
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
        """Forget the descriptors of this process's parent, which are closed here and may have been used again."""
        if self._socket is not None:
            self._socket.detach()
