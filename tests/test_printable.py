"""Text from a client or a broker cannot move the cursor, or hide or reorder other text."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.audit.record import encode
from broker_auth.cli.output import one_line
from broker_auth.printable import printable, printable_json, printable_lines
from tests.audit.records import denied

UNSAFE = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\ufeff",
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    "\U000e0041",  # an invisible tag
]


@pytest.mark.parametrize("character", [*UNSAFE, "\ud800"], ids=lambda character: f"U+{ord(character):04X}")
def test_unsafe_characters_are_escaped_everywhere(character: str) -> None:
    text = f"a{character}b"
    for shown in (printable(text), one_line(text.replace("\n", ""))):
        assert character not in shown
        shown.encode()
    assert printable(text)[1] == "\\"


@pytest.mark.parametrize("character", UNSAFE, ids=lambda character: f"U+{ord(character):04X}")
def test_record_contains_escaped_characters_and_is_read_back_unchanged(character: str) -> None:
    line = encode(denied(name=f"a{character}b")).decode()
    assert character not in line.rstrip("\n")
    assert json.loads(line)["name"] == f"a{character}b"


def test_letters_of_any_language_are_unchanged() -> None:
    text = "Ærø 東京 Ωμέγα 🙂"
    assert printable(text) == text
    assert "東京" in encode(denied(name=text)).decode()


@given(st.text())
def test_output_is_printable(text: str) -> None:
    assert printable(text).isprintable()
    assert printable_lines(text).replace("\n", "").replace("\t", "").isprintable()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_json_document_is_equivalent(text: str) -> None:
    document = printable_json(msgspec.json.encode({"a": text}).decode())
    assert document.isprintable()
    assert json.loads(document) == {"a": text}
