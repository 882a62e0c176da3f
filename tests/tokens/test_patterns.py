"""Patterns of names: they match what Python's ``re`` matches, and no pattern can take long for any name."""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker_auth.tokens.patterns import MAX_POSITIONS, MAX_TEXT, PatternError, compile_pattern

ATOMS = st.sampled_from(
    ["a", "b", "1", "-", r"\.", r"\d", r"\D", r"\w", r"\W", ".", "[ab]", "[^a]", "[a-c1-]", r"[\d_]"]
)
REPETITIONS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "{2,3}"])
EXPRESSIONS = st.recursive(
    st.tuples(ATOMS, REPETITIONS).map("".join),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map("".join)
        | st.tuples(inner, inner, REPETITIONS).map(lambda parts: f"({parts[0]}|{parts[1]}){parts[2]}")
        | st.tuples(inner, REPETITIONS).map(lambda parts: f"(?:{parts[0]}){parts[1]}")
    ),
    max_leaves=6,
)
NAMES = st.text(alphabet="ab1-._cé", max_size=8)


@given(EXPRESSIONS, NAMES)
@example("(a|b){2,}c", "abac")
@example("(a?){2}", "")
@example("a.c", "a\nc")
def test_patterns_match_as_re_does(text: str, name: str) -> None:
    try:
        pattern = compile_pattern(text)
    except PatternError:  # too large
        return
    expected = re.compile(text, re.ASCII).fullmatch(name) is not None
    assert pattern.matches(name) is expected


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        (
            r"node\d+\.example\.net",
            ["node1.example.net", "node22.example.net"],
            ["node.example.net", "node1xexample.net"],
        ),
        (r"^node[a-f0-9]{4}$", ["node00ff"], ["node00fg", "xnode00ff", "node00ff0"]),
        ("a|b", ["a", "b"], ["ab", "", "A"]),
        (".*", ["", "anything"], []),
        (r"a\\b", ["a\\b"], ["ab"]),
        (r"[\]\[^-]+", ["]", "[^-"], ["a"]),
        (r"\D", ["é", "x"], ["1"]),
        ("a/b", ["a/b"], ["a"]),
    ],
)
def test_patterns(text: str, matching: list[str], other: list[str]) -> None:
    pattern = compile_pattern(text)
    assert all(map(pattern.matches, matching))
    assert not any(map(pattern.matches, other))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * (MAX_TEXT + 1),
        "^",
        "$",
        "a$b",
        "a^",
        "(",
        ")",
        "()",
        "(a",
        "a)",
        "a|",
        "|a",
        "[",
        "[]",
        "[a",
        "[z-a]",
        r"[\d-z]",
        "[[a]]",
        "*",
        "a**",
        "a*?",
        "a++",
        "a{",
        "a{}",
        "a{x}",
        "a{0}",
        "a{2,1}",
        "a{1000}",
        "a{,2}",
        "a}",
        "a]",
        "\\",
        r"\b",
        r"\1",
        "(?=a)",
        "(?P<n>a)",
        "é",
        "a\n",
        "a{129}",
        "(((a{9}){9}){9}){9}",
        "(" * 17 + "a" + ")" * 17,
        "(" * 120 + "a" + ")" * 120,
    ],
)
def test_unusable_pattern_says_why(text: str) -> None:
    with pytest.raises(PatternError) as raised:
        compile_pattern(text)
    assert len(str(raised.value).splitlines()) == 1


@given(st.text(alphabet=string.printable + "é\0", max_size=40) | st.text(alphabet="()[]{}*+?|\\^$a1,-", max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        pattern = compile_pattern(text)
    except PatternError:
        return
    assert 0 < pattern.size <= MAX_POSITIONS
    pattern.matches("a" * 253)


class Counted(Sequence[int]):
    """Numbers that count how often one is read."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers, self.read = numbers, 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return self._numbers[index]


@pytest.mark.parametrize(
    "text", ["(a+)+b", "(a|a)*b", "(a*)*b", "a*a*a*a*a*a*a*a*b", "(a?){64}(a?){60}b", "(.*)*.*.*x"]
)
def test_no_pattern_needs_more_than_its_size_for_each_character(text: str) -> None:
    name, pattern = "a" * 253, compile_pattern(text)
    counted = Counted(pattern._sets)
    dataclasses.replace(pattern, _sets=counted).matches(name)  # type: ignore[arg-type]
    assert len(name) <= counted.read <= pattern.size * len(name)
