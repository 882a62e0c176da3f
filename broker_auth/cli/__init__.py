"""The ``broker-auth`` command line: one module for each command, thin over functions that have their own tests.

Read :mod:`.root` first: the table of commands, and the only place that turns errors into one line and an exit
code.
"""

from broker_auth.cli.root import main

__all__ = ["main"]
