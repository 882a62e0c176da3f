"""Forks processes that inherit the validated configuration but nothing of the parent's event loop.

A fork, not a new program: a worker that replaces a dead one must run with the accepted configuration, even if the
files have changed since. The parent has no threads and runs plain asyncio, so that it can fork inside its loop; the
child discards everything that belongs to that loop.
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
# A terminal sends these to every process of its group; only the parent reacts to them.
_IGNORED: Final = (signal.SIGINT, signal.SIGHUP)
_DEFAULT: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD)
_LAST_DESCRIPTOR: Final = 65536
_PARENT_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
CRASHED: Final = 70  # EX_SOFTWARE of sysexits.h

Body = Callable[[socket.socket], None]
"""The code of the child; its argument is the child's end of the channel."""


def spawn(body: Body) -> tuple[int, socket.socket]:
    """Fork a process that runs ``body``; return its pid and the parent's end of a channel to it.

    Each side reads end of file when the other process has ended.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    # The parent's signal handlers must not run in the child.
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
        # Never collect objects inherited from the parent: their finalizers would close file descriptors whose
        # numbers the child has reused.
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
    except BaseException:  # must not propagate into the parent's stack frames
        _log.exception("worker failed")
    finally:
        logs.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_with_parent(channel: socket.socket, grace: float) -> None:
    """End this process ``grace`` seconds after its parent has ended, even if its loop is blocked.

    Uses a thread, because a blocked loop notices neither the end of the channel nor a signal. Only for processes that
    do not fork.
    """

    def watch(descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, 0)  # POLLHUP is always reported
        poll.poll()
        time.sleep(grace)
        os._exit(CRASHED)

    threading.Thread(target=watch, args=(os.dup(channel.fileno()),), name="end with parent", daemon=True).start()


def die_with_parent() -> None:
    """Make Linux kill this process when its parent ends; for processes that need no cleanup.

    Other systems rely on the end of the channel, which a blocked loop does not notice.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _close_others(kept: int) -> None:
    """Close inherited descriptors, such as other workers' channels, whose end is not seen while a copy is open."""
    os.closerange(3, kept)
    os.closerange(kept + 1, min(os.sysconf("SC_OPEN_MAX"), _LAST_DESCRIPTOR))
