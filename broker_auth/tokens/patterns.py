"""Patterns of names whose matching takes bounded time, for text that strangers choose.

Python's ``re`` tries alternatives one after the other, so that ``(a+)+b`` needs minutes for some names of 40
characters. A pattern of a token is compared with the name that a stranger gives. It is therefore compiled here to
the position automaton of Glushkov, which reads each character once and needs at most one step for each position.

The syntax is the part of Python's and Go's that describes names: characters, ``.``, sets such as ``[a-f0-9]``,
``\\d`` and ``\\w`` (ASCII only), groups, ``|``, and the repetitions ``*``, ``+``, ``?`` and ``{1,3}``. A pattern always
matches the whole name; ``^`` at its start and ``$`` at its end are permitted.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_TEXT: Final = 256  # characters of a pattern
MAX_POSITIONS: Final = 128  # characters of a pattern after its repetitions were written out
_MAX_NESTING: Final = 16
_COMPILED: Final = 64  # patterns; at most 20 KB each
_OTHER: Final = 128  # stands for every character that is not ASCII
_ALL: Final = (1 << _OTHER + 1) - 1
_SPECIAL: Final = frozenset(".[](){}*+?|^$\\")
_MAX_REPEATS: Final = 3  # digits of a number of repetitions


class PatternError(ValueError):
    """A pattern is not usable; the message is one line."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern.

    Attributes:
        size: its number of positions, which bounds the time of a match.
    """

    _sets: tuple[int, ...]
    _follows: tuple[int, ...]
    _first: int
    _last: int
    _nullable: bool

    @property
    def size(self) -> int:
        """The number of positions: the steps that a character may cost."""
        return len(self._sets)

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches, in at most ``len(text) * size`` steps."""
        reachable, accepted = self._first, self._nullable
        for character in text:
            code = min(ord(character), _OTHER)
            left, reachable, accepted = reachable, 0, False
            while left:
                bit = left & -left
                left ^= bit
                position = bit.bit_length() - 1
                if self._sets[position] >> code & 1:
                    reachable |= self._follows[position]
                    accepted = accepted or bool(self._last & bit)
            if not (reachable or accepted):
                return False
        return accepted


@lru_cache(_COMPILED)
def compile_pattern(text: str) -> Pattern:
    """Return the compiled pattern.

    Args:
        text: the pattern without its slashes.

    Raises:
        PatternError: it is too long or too costly, or has a form that is not supported.
    """
    if not 0 < len(text) <= MAX_TEXT:
        raise PatternError(f"a pattern has 1 to {MAX_TEXT} characters")
    return _Compiler(text).compile()


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a pattern: its first and last positions as bits, and whether it matches the empty text."""

    first: int
    last: int
    nullable: bool


class _Compiler:
    """A recursive descent parser. Repetitions parse their operand again, so that each gets its own positions."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 1 if text.startswith("^") else 0
        self._sets: list[int] = []
        self._follows: list[int] = []
        self._nesting = 0

    def compile(self) -> Pattern:
        """Parse the whole text."""
        part = self._alternatives()
        if self._peek() == "$" and self._at == len(self._text) - 1:
            self._at += 1
        if self._at < len(self._text):
            raise self._error("is not expected here")
        return Pattern(tuple(self._sets), tuple(self._follows), part.first, part.last, part.nullable)

    def _alternatives(self) -> _Part:
        part = self._sequence()
        while self._peek() == "|":
            self._at += 1
            other = self._sequence()
            part = _Part(part.first | other.first, part.last | other.last, part.nullable or other.nullable)
        return part

    def _sequence(self) -> _Part:
        part: _Part | None = None
        while (character := self._peek()) and character not in "|)$":
            repeated = self._repeated()
            part = repeated if part is None else self._join(part, repeated)
        if part is None:
            raise self._error("ends an empty group or alternative")
        return part

    def _join(self, one: _Part, two: _Part) -> _Part:
        self._link(one.last, two.first)
        return _Part(
            one.first | two.first if one.nullable else one.first,
            one.last | two.last if two.nullable else two.last,
            one.nullable and two.nullable,
        )

    def _link(self, lasts: int, firsts: int) -> None:
        while lasts:
            bit = lasts & -lasts
            lasts ^= bit
            self._follows[bit.bit_length() - 1] |= firsts

    def _repeated(self) -> _Part:
        start = self._at
        part = self._atom()
        low, high = self._repetitions()
        after = self._at
        optional = _Part(part.first, part.last, nullable=True)
        if high is None and low <= 1:
            self._link(part.last, part.first)
            return optional if low == 0 else part
        whole = optional if low == 0 else part
        for number in range(2, (low if high is None else high) + 1):
            self._at = start
            copy = self._atom()
            if high is None and number == low:
                self._link(copy.last, copy.first)
            whole = self._join(whole, copy if number <= low else _Part(copy.first, copy.last, nullable=True))
        self._at = after
        return whole

    def _repetitions(self) -> tuple[int, int | None]:
        """Return how often the operand is repeated, at least and at most; None is without limit."""
        character = self._peek()
        if not character or character not in "*+?{":
            return 1, 1
        self._at += 1
        match character:
            case "*":
                low, high = 0, None
            case "+":
                low, high = 1, None
            case "?":
                low, high = 0, 1
            case _:
                low, high = self._counts()
        following = self._peek()
        if following and following in "*+?{":
            raise self._error("follows a repetition; put the repetition into a group")
        return low, high

    def _counts(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._at)
        inner = self._text[self._at : end] if end >= 0 else ""
        least, comma, most = inner.partition(",")
        if not _is_count(least) or (most and not _is_count(most)):
            raise self._error("does not follow a repetition like {3} or {1,3}; a brace itself is written \\{")
        low = int(least)
        high = low if not comma else int(most) if most else None
        if high is not None and not max(low, 1) <= high:
            raise self._error("follows a repetition that is never possible")
        self._at = end + 1
        return low, high

    def _atom(self) -> _Part:
        character = self._next()
        match character:
            case "(":
                return self._group()
            case "[":
                return self._position(self._set())
            case ".":
                return self._position(_ALL ^ 1 << ord("\n"))
            case "\\":
                return self._position(self._escape())
            case _ if character in _SPECIAL:
                self._at -= 1
                raise self._error("is special here; write a backslash before it if the character itself is meant")
        return self._position(_single(character))

    def _group(self) -> _Part:
        if self._text.startswith("?:", self._at):
            self._at += 2
        self._nesting += 1
        if self._nesting > _MAX_NESTING:
            raise PatternError(f"a pattern nests at most {_MAX_NESTING} groups")
        part = self._alternatives()
        self._nesting -= 1
        if self._next() != ")":
            self._at -= 1
            raise self._error("is not the end of a group")
        return part

    def _position(self, accepted: int) -> _Part:
        if len(self._sets) >= MAX_POSITIONS:
            raise PatternError(f"a pattern has at most {MAX_POSITIONS} characters after repetitions are written out")
        bit = 1 << len(self._sets)
        self._sets.append(accepted)
        self._follows.append(0)
        return _Part(bit, bit, nullable=False)

    def _set(self) -> int:
        """Return the characters of ``[...]``, of which the bracket was read."""
        negated = self._peek() == "^"
        self._at += negated
        accepted = 0
        while True:
            character = self._next()
            if character == "]":
                if not accepted:
                    raise self._error("follows an empty set")
                return _ALL & ~accepted if negated else accepted
            if character == "[":
                raise self._error("follows a bracket inside a set; write \\[ for the character")
            low = self._escape() if character == "\\" else _single(character)
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                accepted |= self._range(low)
            else:
                accepted |= low

    def _range(self, low: int) -> int:
        character = self._next()
        high = self._escape() if character == "\\" else _single(character)
        if low.bit_count() != 1 or high.bit_count() != 1 or high < low or character == "[":
            raise self._error("follows a range that is not possible")
        return (high << 1) - low

    def _escape(self) -> int:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum():
            raise self._error("follows an escape that is not supported; \\d, \\D, \\w and \\W are")
        return _single(character)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        if not character:
            raise PatternError("the pattern ends within a group, a set or an escape")
        if not " " <= character <= "~":
            raise PatternError("a pattern holds only printable ASCII characters")
        self._at += 1
        return character

    def _error(self, problem: str) -> PatternError:
        character = self._peek()
        return PatternError(f"{character!r} at position {self._at} {problem}" if character else f"its end {problem}")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_REPEATS


def _single(character: str) -> int:
    return 1 << ord(character)


def _characters(text: str) -> int:
    return sum(map(_single, text))


_CLASSES: Final = {
    "d": _characters(string.digits),
    "D": _ALL & ~_characters(string.digits),
    "w": _characters(string.digits + string.ascii_letters + "_"),
    "W": _ALL & ~_characters(string.digits + string.ascii_letters + "_"),
}
