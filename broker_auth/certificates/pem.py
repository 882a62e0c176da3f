"""A PEM parser that is as tolerant as every program that may read the file.

nats-server reads PEM with Go's ``encoding/pem``, Python's TLS with OpenSSL. Each skips, or stops at, blocks that the
other accepts (docs/files.md). This parser returns every block, and records whether and why Go does not see it, so that
`config check` can name the line instead of quoting a library. Its time is linear in the size of the file.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from dataclasses import dataclass
from typing import Final

_LABEL: Final = rb"[^\r\n-]{1,64}"
# The closing dashes are not consumed: if lines are joined, they may begin the next boundary.
_BOUNDARY: Final = re.compile(rb"-----(BEGIN|END) (" + _LABEL + rb")(?=-----)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_WHITE: Final = b" \t\r\n\v\f"
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GO_BEGIN: Final = b"-----BEGIN "
_GO_END: Final = b"\n-----END "
_DASHES: Final = b"-----"

JOINED: Final = "its BEGIN line is joined to the line before; put a line end between them"
INDENTED: Final = "its lines are indented; begin the BEGIN and END lines at the margin"
MARKED: Final = "a byte-order mark stands before its BEGIN line; save the file without one"
AFTER_TEXT: Final = "its BEGIN line does not begin a line; put it on a line alone"
END_JOINED: Final = "its END line (line {}) is joined to what follows; put a line end behind it"
OLD_LINE_ENDS: Final = "its lines end in carriage returns alone; write line feeds"
UNREADABLE: Final = "Go's PEM reader passes over it; write it again with openssl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block between a BEGIN and an END line.

    Attributes:
        label: the label in the BEGIN line, such as ``CERTIFICATE``.
        line: number of the BEGIN line, counted from 1.
        body: the decoded content; empty if :attr:`fault` is set.
        has_headers: whether ``Name: value`` lines stand before the content.
        encrypted: whether its label or headers say that a passphrase is needed.
        fault: why no program can read it; empty if any program can.
        unseen: why Go, and so nats-server, does not see it; empty if Go sees it.
    """

    label: str
    line: int
    body: bytes
    has_headers: bool = False
    encrypted: bool = False
    fault: str = ""
    unseen: str = ""

    def __repr__(self) -> str:
        """Show label and line, never the content, which may be a private key."""
        return f"Block({self.label!r}, line={self.line})"

    @property
    def is_certificate(self) -> bool:
        """Whether it is an X.509 certificate, under any label that OpenSSL accepts."""
        return self.label in ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")

    @property
    def is_private_key(self) -> bool:
        """Whether it is a private key, by Go's rule."""
        return self.label == "PRIVATE KEY" or self.label.endswith(" PRIVATE KEY")


@dataclass(frozen=True, slots=True)
class _Boundary:
    begin: bool
    label: bytes
    start: int
    end: int  # after the closing dashes
    line: int


def split(data: bytes) -> tuple[Block, ...]:
    """Return every PEM block of a file, in order, ignoring text around them."""
    seen = _seen_by_go(data)
    blocks = []
    open_: _Boundary | None = None
    for boundary in _boundaries(data):
        if boundary.begin:
            if open_ is not None and _begins_line(data, open_.start):
                blocks.append(_faulty(open_, "it has no END line"))
            open_ = boundary
        elif open_ is not None:
            blocks.append(_block(data, open_, boundary, seen))
            open_ = None
        elif _begins_line(data, boundary.start):
            blocks.append(_faulty(boundary, "its BEGIN line is missing"))
    if open_ is not None and _begins_line(data, open_.start):
        blocks.append(_faulty(open_, "it has no END line"))
    return tuple(blocks)


def what_else(data: bytes) -> str:
    """Return a description of a file without PEM blocks, judged by its first bytes, and what to do about it."""
    if not data.strip(_WHITE):
        return "is empty"
    if data.startswith(_UTF16):
        return "is UTF-16 text; save it as ASCII"
    if data[:1] == b"\x30":
        return "is binary (DER); convert it with: openssl x509 (or pkey) -inform DER"
    return "holds no PEM block (-----BEGIN …)"


def _boundaries(data: bytes) -> list[_Boundary]:
    blocks = []
    line, counted = 1, 0
    old_line_ends = b"\n" not in data
    for match in _BOUNDARY.finditer(data):
        line += data.count(b"\r" if old_line_ends else b"\n", counted, match.start())
        counted = match.start()
        blocks.append(_Boundary(match[1] == b"BEGIN", match[2], match.start(), match.end() + len(_DASHES), line))
    return blocks


def _begins_line(data: bytes, start: int) -> bool:
    """Return whether only white space or a byte-order mark precedes it: an example in a comment is not a block."""
    return not _before(data, start).removeprefix(codecs.BOM_UTF8).strip(_WHITE)


def _before(data: bytes, start: int) -> bytes:
    """Return the text before a position in its line, at most 128 bytes of it."""
    near = data[max(0, start - 128) : start]
    return _LINE_END.split(near)[-1]


def _faulty(boundary: _Boundary, fault: str) -> Block:
    return Block(label=_text(boundary.label), line=boundary.line, body=b"", fault=fault, unseen=fault)


def _block(data: bytes, begin: _Boundary, end: _Boundary, seen: frozenset[int]) -> Block:
    if begin.label != end.label:
        return _faulty(begin, f"its END line says {_text(end.label)}")
    headers, content = _content(data[begin.end : end.start])
    label = _text(begin.label)
    encrypted = label == "ENCRYPTED PRIVATE KEY" or any(b"ENCRYPTED" in header for header in headers)
    body, fault = _decoded(content)
    unseen = ""
    if begin.start not in seen:
        unseen = fault or _why_unseen(data, begin, end)
    return Block(
        label=label,
        line=begin.line,
        body=body,
        has_headers=bool(headers),
        encrypted=encrypted,
        fault=fault,
        unseen=unseen,
    )


def _content(inside: bytes) -> tuple[list[bytes], bytes]:
    """Return the headers (RFC 1421, ``Name: value``, up to the first line without a colon) and the base64."""
    if b":" not in inside:
        return [], inside
    headers: list[bytes] = []
    position = 0
    lines = _LINE_END.split(inside)
    while position < len(lines) and (b":" in lines[position] or (not headers and not lines[position].strip(_WHITE))):
        if lines[position].strip(_WHITE):
            headers.append(lines[position])
        position += 1
    return headers, b"\n".join(lines[position:])


def _decoded(content: bytes) -> tuple[bytes, str]:
    packed = content.translate(None, _WHITE)
    if not packed:
        return b"", "it is empty"
    try:
        return base64.b64decode(packed, validate=True), ""
    except (binascii.Error, ValueError):
        return b"", "its base64 is damaged"


def _why_unseen(data: bytes, begin: _Boundary, end: _Boundary) -> str:
    before = _before(data, begin.start)
    if before == codecs.BOM_UTF8:
        return MARKED
    if before.endswith(_DASHES):
        return JOINED
    if before and not before.strip(_WHITE):
        return INDENTED
    if before.strip(_WHITE):
        return JOINED if before.rstrip(_WHITE).endswith(_DASHES) else AFTER_TEXT
    if data[end.end : end.end + 1].strip(_WHITE) or _rest_of_line(data, end.end):
        return END_JOINED.format(end.line)
    if _before(data, end.start):
        return INDENTED
    if b"\n" not in data[begin.start : end.end]:
        return OLD_LINE_ENDS
    return UNREADABLE


def _rest_of_line(data: bytes, position: int) -> bytes:
    return _LINE_END.split(data[position : position + 128], maxsplit=1)[0].strip(_WHITE)


def _text(label: bytes) -> str:
    return label.decode("ascii", "replace")


# --- Go's encoding/pem (Decode, Go 1.25 and later)


def _seen_by_go(data: bytes) -> frozenset[int]:
    """Return the offsets of the blocks that a loop of ``pem.Decode`` returns."""
    seen: list[int] = []
    position, skip = 0, 0
    while True:
        position += skip
        end = data.find(_GO_END, position)
        if end < 0:
            return frozenset(seen)
        skip = end + len(_GO_END) - position
        begin = data.rfind(_GO_BEGIN, position, end)
        if begin < 0 or (begin > position and data[begin - 1 : begin] != b"\n"):
            continue
        after = _go_block(data, begin, end)
        if after is None:
            continue
        seen.append(begin)
        position, skip = after, 0


def _go_block(data: bytes, begin: int, end: int) -> int | None:
    """Return the offset after the block at which Go continues; None if Go does not see the block."""
    label, rest = _go_line(data, begin + len(_GO_BEGIN))
    if not label.endswith(_DASHES):
        return None
    headers = False
    while rest <= end:
        line, following = _go_line(data, rest)
        if b":" not in line:
            break
        headers, rest = True, following
    if rest > end + 1 or (headers and rest > end):
        return None
    closing, after = _go_line(data, end + len(_GO_END))
    if closing != label:
        return None
    try:
        base64.b64decode(data[rest:end].translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return after


def _go_line(data: bytes, start: int) -> tuple[bytes, int]:
    """Return a line without its line end and trailing blanks, and the offset of the next line."""
    end = data.find(b"\n", start)
    if end < 0:
        return data[start:].rstrip(b" \t"), len(data)
    return data[start : end - 1 if end > start and data[end - 1 : end] == b"\r" else end].rstrip(b" \t"), end + 1
