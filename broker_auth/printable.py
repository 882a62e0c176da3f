"""Escape untrusted text for display, so that it cannot move the cursor, or hide or reorder other text.

Source: Unicode Standard Annex 9 (bidirectional formatting), ECMA-48 (control characters).
"""

from __future__ import annotations

import re
from typing import Final

_NOT_PLAIN: Final = re.compile("[^ -~\n]")


def printable(text: str, limit: int | None = None) -> str:
    r"""Return ``text`` in one line, with every character that is not printable written as ``\xNN`` or ``\uNNNN``.

    Not printable are control characters (C0, DEL, C1), format characters (bidirectional, invisible), line and
    paragraph separators, surrogates, private characters, and every space but the one in ASCII.

    Args:
        text: anything.
        limit: maximum number of characters kept of ``text``; an ellipsis replaces the rest.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join([_escaped(character) for character in text])


def printable_lines(text: str) -> str:
    """Return ``text`` escaped by :func:`printable`, but with its line feeds and tabs kept."""
    return "\n".join(["\t".join(map(printable, line.split("\t"))) for line in text.split("\n")])


def printable_json(document: str) -> str:
    r"""Return a JSON document with unprintable characters in strings written as ``\uNNNN``; it stays valid JSON.

    Line feeds between values are kept.
    """
    if document.isascii() and "\x7f" not in document:
        return document
    return _NOT_PLAIN.sub(_escaped_in_json, document)


def _escaped_in_json(match: re.Match[str]) -> str:
    character = match.group()
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join([f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)])


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
