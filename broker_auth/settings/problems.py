"""Problems of a configuration: each in one line, all at once, never with a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from broker_auth.printable import printable
from broker_auth.settings.model import Settings

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_.<>-]{0,120}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem, or (in :attr:`ConfigurationReport.warnings`) a setting that is probably not intended.

    Attributes:
        file: the configuration file, or ``environment``.
        line: counted from 1; None if the problem has no line (a missing key).
        key: the key or environment variable, as :func:`shown_key` returns it.
        what: the problem.
        remedy: what to write or do instead.
    """

    file: str
    line: int | None = None
    key: str | None = None
    what: str
    remedy: str

    def __str__(self) -> str:
        """Return ``FILE:LINE: KEY: what; remedy`` as one line."""
        return printable(f"{self.statement}; {self.remedy}")

    @property
    def statement(self) -> str:
        """``FILE:LINE: KEY: what`` as one line, without the remedy."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = "" if self.key is None else f"{self.key}: "
        return printable(f"{place}: {subject}{self.what}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReport:
    """The result of checking a configuration; :attr:`settings` only if there is no problem."""

    settings: Settings | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the configuration can be used, possibly with warnings."""
        return not self.problems


@dataclass(slots=True, kw_only=True)
class Findings:
    """A collector of problems and warnings while a configuration is read; removes duplicates."""

    file: str
    _problems: dict[Problem, None] = field(default_factory=dict)
    _warnings: dict[Problem, None] = field(default_factory=dict)

    def problem(self, problem: Problem) -> None:
        """Add a problem that makes the configuration unusable."""
        self._problems.setdefault(problem)

    def warning(self, warning: Problem) -> None:
        """Add a warning about a setting that is allowed but probably not intended."""
        self._warnings.setdefault(warning)

    def report(self, settings: Settings | None) -> ConfigurationReport:
        """Return the report in the order of lines; entries without a line come last."""
        return ConfigurationReport(
            settings=None if self._problems else settings,
            problems=tuple(sorted(self._problems, key=_position)),
            warnings=tuple(sorted(self._warnings, key=_position)),
        )


def _position(problem: Problem) -> tuple[bool, int]:
    return (problem.line is None, problem.line or 0)


def shown_key(key: str) -> str:
    """Return the key up to the first character that keys do not have: a misplaced secret may follow."""
    plain = _PLAIN_KEY.match(key)
    assert plain is not None  # the pattern matches the empty string
    return key if plain.end() == len(key) else f"{plain[0]}…"


def shown(value: str) -> str:
    """Return a value for a message: quoted, and shortened if it is long. Not for secrets."""
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
