"""What is wrong with a configuration: one line each, all of them at once, never a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from broker_auth.printable import printable
from broker_auth.settings.model import Settings

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_.<>-]{0,120}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong, or (in :attr:`Report.warnings`) probably not intended.

    Attributes:
        file: the configuration file, or ``environment``.
        line: counted from 1; None where no line is to blame (a key that is missing).
        key: the key, or the environment variable; by :func:`shown_key`.
        what: what is wrong.
        remedy: what to write or do instead.
    """

    file: str
    line: int | None = None
    key: str | None = None
    what: str
    remedy: str

    def __str__(self) -> str:
        """``FILE:LINE: KEY: what; remedy``, in one line."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = "" if self.key is None else f"{self.key}: "
        return printable(f"{place}: {subject}{self.what}; {self.remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything found in one configuration; :attr:`settings` only if there is no problem."""

    settings: Settings | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether the configuration can be used; warnings do not stop it."""
        return not self.problems


@dataclass(slots=True, kw_only=True)
class Findings:
    """Collects problems and warnings while a configuration is read; repetitions count once."""

    file: str
    _problems: dict[Problem, None] = field(default_factory=dict)
    _warnings: dict[Problem, None] = field(default_factory=dict)

    def problem(self, problem: Problem) -> None:
        """Adds what makes the configuration unusable."""
        self._problems.setdefault(problem)

    def warning(self, warning: Problem) -> None:
        """Adds what is allowed but probably not meant."""
        self._warnings.setdefault(warning)

    def report(self, settings: Settings | None) -> Report:
        """The report, in the order of the file's lines; what names no line comes last."""
        return Report(
            settings=None if self._problems else settings,
            problems=tuple(sorted(self._problems, key=_position)),
            warnings=tuple(sorted(self._warnings, key=_position)),
        )


def _position(problem: Problem) -> tuple[bool, int]:
    return (problem.line is None, problem.line or 0)


def shown_key(key: str) -> str:
    """The key, cut where it stops looking like one: a misplaced secret may follow there."""
    plain = _PLAIN_KEY.match(key)
    assert plain is not None  # the pattern matches the empty string
    return key if plain.end() == len(key) else f"{plain[0]}…"


def shown(value: str) -> str:
    """A value for a message: quoted, and cut when it is long. Not for secrets."""
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
