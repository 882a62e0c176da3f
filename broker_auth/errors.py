"""The errors that this package raises on purpose. The CLI turns them into one line and an exit code.

A denied request is not an error but a value (:class:`broker_auth.policy.decision.Deny`).
"""

from __future__ import annotations

from collections.abc import Sequence


class BrokerAuthError(Exception):
    """Base class of the package's errors. ``str()`` is one line: what is wrong, where, what to do."""


class InputError(BrokerAuthError):
    """A file, key, certificate or argument cannot be used."""


class ConfigurationError(BrokerAuthError):
    """The configuration cannot be used; :attr:`problems` lists everything wrong with it at once."""

    def __init__(self, problems: Sequence[object]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class OperationError(BrokerAuthError):
    """A server, a process or the network failed to do what was requested."""
