"""Makes a program die with its parent, even if the parent is killed.

For programs started by the demo, the bench and the tests. Production has a service manager for that.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence

# Asks Linux to kill this process when the thread that started it ends, then executes the program. A separate
# program, because subprocess's preexec_fn may deadlock in a process with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent ended before the program started")
os.execv(sys.argv[2], sys.argv[2:])
"""


def dies_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command line that runs ``command`` (full path and arguments) so that it dies with this process.

    Only on Linux and from the main thread, which lives as long as the process; otherwise returns ``command``.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
