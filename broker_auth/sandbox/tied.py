"""A program that ends with the one that started it, even if that is killed.

For what the demo, the bench and the tests start: nobody is left to end it otherwise. Production has a
service manager for that.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

# Becomes the program by exec, after asking Linux to kill it when the thread that started it ends. A
# program of its own because subprocess's preexec_fn may deadlock in a process with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before the program started")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied(command: Sequence[str]) -> list[str]:
    """The command line that runs ``command``, a program's whole path and arguments, tied to this process.

    On Linux and in the main thread, which lives as long as the process; elsewhere as it is.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
