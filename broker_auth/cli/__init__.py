"""The ``broker-auth`` command: one module per command, thin over functions that are tested by themselves.

Read :mod:`.root` first: the table of commands, and the one place that turns errors into one line and
an exit code.
"""

from broker_auth.cli.root import main

__all__ = ["main"]
