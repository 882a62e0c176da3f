"""Names in certificates as text: distinguished names and alternative names.

Chains are verified by the bytes of names, so nothing here affects whether a chain is valid. Text is used for display
and for the policy's identities. Every string type of X.520 is decoded, leniently; characters that cannot be shown on
a terminal, above all control and bidirectional ones, become U+FFFD.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from broker_auth.certificates import der

MAX_TEXT: Final = 256  # characters of a displayed name
MAX_ALTERNATIVE_NAMES: Final = 4096  # read from one certificate; further names grant nothing
_MAX_ATTRIBUTES: Final = 256  # in one distinguished name

_ENCODINGS: Final = {
    12: "utf-8",  # UTF8String
    18: "latin-1",  # NumericString
    19: "latin-1",  # PrintableString; real CAs write & and * into it
    20: "latin-1",  # TeletexString; T.61 in theory, Latin-1 in practice (Go, OpenSSL, BoringSSL)
    22: "latin-1",  # IA5String
    26: "latin-1",  # VisibleString
    28: "utf-32-be",  # UniversalString
    30: "utf-16-be",  # BMPString
}
_COMMON_NAME: Final = bytes.fromhex("550403")
_LABELS: Final = {
    _COMMON_NAME: "CN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("0992268993f22c640119"): "DC",
    bytes.fromhex("0992268993f22c640101"): "UID",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
}


class AlternativeNames(NamedTuple):
    """The alternative names of the kinds that identities can use, each in the certificate's order.

    Attributes:
        ordered: all of them, in the certificate's order.
    """

    dns: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()


def common_name(name: bytes) -> str:
    """Return the last common name of a DER-encoded distinguished name, as Go does; empty if it has no common name."""
    try:
        names = [_text(tag, value) for oid, tag, value in _attributes(name) if oid == _COMMON_NAME]
    except der.DerError:
        return ""
    return names[-1] if names else ""


def readable(name: bytes) -> str:
    """Return a DER-encoded distinguished name as text, like ``O=Example, CN=fleet CA``; at most 256 characters."""
    parts = []
    try:
        parts = [f"{_LABELS.get(oid, oid.hex())}={_text(tag, value)}" for oid, tag, value in _attributes(name)]
    except der.DerError:
        parts.append("(unreadable)")
    return shorten(", ".join(parts) or "(empty name)")


def shorten(text: str) -> str:
    """Return at most 256 characters of ``text``."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def alternative_names(extension: bytes) -> AlternativeNames:
    """Return the names in a subjectAltName extension's value, without the kinds that identities cannot use.

    Raises:
        DerError: the value is not a sequence of elements.
    """
    outer = der.only(extension, der.SEQUENCE)
    kinds: dict[int, list[str]] = {0x82: [], 0x81: [], 0x86: [], 0x87: []}
    ordered: list[str] = []
    at = outer.content
    for _ in range(MAX_ALTERNATIVE_NAMES):
        if at >= outer.end:
            break
        element = der.read(extension, at, outer.end)
        at = element.end
        names = kinds.get(element.tag)
        if names is None:
            continue
        value = extension[element.content : element.end]
        name = _address(value) if element.tag == 0x87 else printable(value.decode("latin-1"))
        if name:
            names.append(name)
            ordered.append(name)
    dns, email, uri, ip = (tuple(names) for names in kinds.values())
    return AlternativeNames(dns, email, uri, ip, tuple(ordered))


def printable(text: str) -> str:
    """Return ``text`` with each unprintable character (control, bidirectional, surrogate) replaced by U+FFFD."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _text(tag: int, value: bytes) -> str:
    encoding = _ENCODINGS.get(tag)
    return printable(value.decode(encoding, "replace")) if encoding else f"#{value.hex()}"


def _address(value: bytes) -> str:
    return str(ipaddress.ip_address(value)) if len(value) in (4, 16) else ""


def _attributes(name: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield object identifier, string tag and value of each attribute, in order."""
    outer = der.only(name, der.SEQUENCE)
    count = 0
    for group in der.children(name, outer.content, outer.end, _MAX_ATTRIBUTES):
        for attribute in der.children(name, group.content, group.end, _MAX_ATTRIBUTES):
            count += 1
            if group.tag != der.SET or attribute.tag != der.SEQUENCE or count > _MAX_ATTRIBUTES:
                raise der.DerError("a distinguished name is malformed (X.501)")
            oid = der.expect(name, attribute.content, attribute.end, der.OBJECT_IDENTIFIER)
            value = der.read(name, oid.end, attribute.end)
            yield name[oid.content : oid.end], value.tag, name[value.content : value.end]
