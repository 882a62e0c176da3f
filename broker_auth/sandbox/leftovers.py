"""A directory that is removed however this process ends, and the end of a program by a signal.

For the demo, whose directory contains private keys. Its processes end by themselves: see :mod:`.lifetime`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a service manager, a closed terminal

# Reads from a pipe that nobody writes to, until its other end is closed: by the process that created the directory,
# or by the kernel when that process was killed. The processes below it may still be writing for a moment.
_JANITOR = """
import os, shutil, sys, time
sys.stdin.buffer.read()
for _ in range(100):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    if not os.path.lexists(sys.argv[1]):
        break
    time.sleep(0.1)
"""


class Ended(Exception):
    """A signal ended the program.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.signal = number


@contextlib.contextmanager
def vanishing_directory(prefix: str) -> Iterator[Path]:
    """Create a directory that only this user can read; remove it at the end, even if this process is killed."""
    directory = tempfile.mkdtemp(prefix=prefix)
    # In its own session, so that neither Ctrl-C nor a closed terminal ends it.
    janitor = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-I", "-S", "-c", _JANITOR, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    try:
        yield Path(directory)
    finally:
        assert janitor.stdin
        janitor.stdin.close()
        janitor.wait()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Cancel the current task on the first signal of :data:`ENDING`, and end this process on the second.

    A signal that this process was started to ignore, as by ``nohup``, is still ignored.

    Raises:
        Ended: a signal came; everything within the block has been cleaned up.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    seen: list[int] = []

    def end(number: int) -> None:
        if seen:
            os._exit(128 + number)  # the kernel and the janitor clean up
        seen.append(number)
        task.cancel()

    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    except asyncio.CancelledError:
        if not seen:
            raise
        task.uncancel()
        raise Ended(seen[0]) from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
