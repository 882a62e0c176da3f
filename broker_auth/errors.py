"""Every error this package raises on purpose. The CLI turns them into one line and an exit code.

What a *decision* refuses is not an error but a value (:class:`broker_auth.policy.decision.Deny`).
"""

from __future__ import annotations

from collections.abc import Sequence


class BrokerAuthError(Exception):
    """Root of the package's errors. ``str()`` is one line: what is wrong, where, what to do."""


class InputError(BrokerAuthError):
    """A file, key, certificate or value that was handed in cannot be used."""


class ConfigurationError(BrokerAuthError):
    """The configuration cannot be used; :attr:`problems` lists everything wrong with it at once."""

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class OperationError(BrokerAuthError):
    """Something outside (a server, a process, the network) did not do what was asked of it."""
