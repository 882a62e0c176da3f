"""A parser for DER, the encoding of certificates: only what X.509 uses, safe for hostile input.

As strict as Go's ``cryptobyte``: definite lengths in their shortest form, tags below 31. Positions are offsets
into one ``bytes`` object, so that only what the caller keeps is copied.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_MAX_LENGTH_BYTES: Final = 3  # 16 MB; every element read here is far smaller


class DerError(ValueError):
    """The bytes are not the DER that was expected."""


class Element(NamedTuple):
    """One element: the offset of its tag (``start``), of its content, and of the next element (``end``)."""

    tag: int
    start: int
    content: int
    end: int


# As in Go: UTCTime may omit seconds, and zones other than Z are accepted.
_UTC_TIME: Final = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?(?:Z|([+-])(\d\d)(\d\d))", re.ASCII)
_GENERALIZED_TIME: Final = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:Z|([+-])(\d\d)(\d\d))", re.ASCII)
_TIMES: Final = {UTC_TIME: _UTC_TIME, GENERALIZED_TIME: _GENERALIZED_TIME}
_FIRST: Final = -62_135_596_800.0  # 0001-01-01T00:00:00Z
_LAST: Final = 253_402_300_799.0  # 9999-12-31T23:59:59Z

_new: Final = tuple.__new__  # takes a third of the time of `Element(…)`, which matters here


def read(data: bytes, start: int, end: int) -> Element:
    """Return the element at ``start`` of the region that ends at ``end``.

    Raises:
        DerError: the element is missing, truncated or not DER.
    """
    content = start + 2
    if content > end:
        raise DerError("an element is cut short")
    tag, length = data[start], data[start + 1]
    if tag & 0x1F == 0x1F:
        raise DerError("an element has a long tag")
    if length >= 0x80:
        count = length & 0x7F
        length_start, content = content, content + count
        if not 1 <= count <= _MAX_LENGTH_BYTES or content > end:
            raise DerError("an element has an unusable length")
        length = int.from_bytes(data[length_start:content], "big")
        if length < 0x80 or data[length_start] == 0:
            raise DerError("an element's length is not in its shortest form")
    if content + length > end:
        raise DerError("an element is cut short")
    return _new(Element, (tag, start, content, content + length))


def expect(data: bytes, start: int, end: int, tag: int) -> Element:
    """Return the element at ``start`` and check its tag.

    Raises:
        DerError: its tag differs, or :func:`read` fails.
    """
    element = read(data, start, end)
    if element.tag != tag:
        raise DerError(f"an element has tag {element.tag:#04x} instead of {tag:#04x}")
    return element


def only(data: bytes, tag: int) -> Element:
    """Return the element that ``data`` consists of.

    Raises:
        DerError: the tag differs, or bytes follow the element.
    """
    element = expect(data, 0, len(data), tag)
    if element.end != len(data):
        raise DerError("bytes follow an element")
    return element


def children(data: bytes, start: int, end: int, limit: int) -> list[Element]:
    """Return the elements between two offsets.

    Raises:
        DerError: there are more than ``limit`` elements, or an element cannot be read.
    """
    elements: list[Element] = []
    while start < end:
        if len(elements) == limit:
            raise DerError(f"more than {limit} elements")
        element = read(data, start, end)
        elements.append(element)
        start = element.end
    return elements


def unsigned(data: bytes, element: Element) -> int:
    """Return the INTEGER in ``element``, whose tag the caller has checked.

    Raises:
        DerError: it is empty, negative or not in its shortest form.
    """
    first = data[element.content : element.content + 2]
    if not first or first[0] & 0x80:
        raise DerError("a number is empty or negative")
    if len(first) > 1 and first[0] == 0 and element.end - element.content > 1 and not first[1] & 0x80:
        raise DerError("a number is not in its shortest form")
    return int.from_bytes(data[element.content : element.end], "big")


def encode(tag: int, *contents: bytes) -> bytes:
    """Return the element of this tag whose content is the concatenation of ``contents``."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def time(data: bytes, element: Element) -> float:
    """Return the Unix seconds of a UTCTime or GeneralizedTime of any year, from year 1 to 9999.

    Raises:
        DerError: the element is not a time, or not a valid date.
    """
    pattern = _TIMES.get(element.tag)
    match = pattern.fullmatch(data[element.content : element.end]) if pattern else None
    if match is None:
        raise DerError("a time is malformed")
    year, month, day, hour, minute = map(int, match.group(1, 2, 3, 4, 5))
    second = int(match[6] or 0)
    if element.tag == UTC_TIME:
        year += 1900 if year >= 50 else 2000
    try:
        moment = datetime(max(year, 1), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise DerError("a time is not a valid date") from error
    offset = int(match[8] or 0) * 3600 + int(match[9] or 0) * 60
    seconds = moment.timestamp() + (offset if match[7] == b"-" else -offset)
    return min(max(seconds, _FIRST), _LAST)
