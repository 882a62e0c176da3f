"""Forks a worker: what it inherits is what was validated, and nothing of its parent's event loop.

A fork, not a new program: a worker that replaces a dead one long after the start must run on the
configuration that was accepted, whatever the files say by then. The parent has no threads and runs
plain asyncio, so that forking in its loop is safe; everything of that loop is given up in the child.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from broker_auth.logs import setup as logs

_log = logging.getLogger(__name__)
# Only the parent decides: a terminal sends Ctrl-C and a hang-up to every process.
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP)
_DEFAULT: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
_LAST_DESCRIPTOR: Final = 65536
_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
CRASHED: Final = 70  # EX_SOFTWARE of sysexits.h

Body = Callable[[socket.socket], None]
"""What the child does with its end of the channel, until it is done."""


def spawn(body: Body) -> tuple[int, socket.socket]:
    """Fork a process that runs ``body`` and ends; returns its pid and our end of a channel to it.

    The channel ends (end of file) on either side when the other process is gone.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    # No signal may run the parent's handlers in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_IGNORED, *_DEFAULT})
    try:
        pid = os.fork()
        if pid == 0:
            _child(body, theirs, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return pid, ours


def _child(body: Body, channel: socket.socket, mask: set[signal.Signals] | set[int]) -> NoReturn:
    code = CRASHED
    try:
        # What the parent left behind is never collected: closing its objects would close descriptors
        # whose numbers are ours by then.
        gc.freeze()
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        _close_others(channel.fileno())
        logs.renew()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        body(channel)
        code = 0
    except BaseException:  # nothing may reach the parent's frames above
        _log.exception("worker failed")
    finally:
        logs.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_with_parent(channel: socket.socket, grace: float) -> None:
    """End this process ``grace`` seconds after its parent has, whatever its loop is doing then.

    By a thread: a loop that is blocked sees neither the end of the channel nor a signal. For processes that fork
    no others.
    """

    def watch(descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # its end is reported all the same
        poll.poll()
        time.sleep(grace)
        os._exit(CRASHED)

    threading.Thread(target=watch, args=(os.dup(channel.fileno()),), name="end with parent", daemon=True).start()


def die_with_parent() -> None:
    """Have Linux kill this process when its parent ends; for processes that hold nothing to be put in order.

    Elsewhere the end of the channel has to do, which a loop that is blocked does not see.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _close_others(kept: int) -> None:
    """Other workers' channels, above all: while any copy is open, their end is not seen."""
    os.closerange(3, kept)
    os.closerange(kept + 1, min(os.sysconf("SC_OPEN_MAX"), _LAST_DESCRIPTOR))
