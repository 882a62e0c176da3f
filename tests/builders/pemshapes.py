"""PEM files in formats found in practice, each made from a certificate or key."""

from __future__ import annotations

import base64
from collections.abc import Callable

Shape = Callable[[bytes, bytes], bytes]
"""A function from two PEM blocks, of which the first counts, to a file."""

TEXT = b"Certificate:\n    Data:\n        Version: 3 (0x2)\n        Serial Number: 12:34\n"
BAG = b"Bag Attributes\n    friendlyName: server\n    localKeyID: 01 02 \nKey Attributes: <No Attributes>\n"
EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
BROKEN_CRL = b"-----BEGIN X509 CRL-----\nAAAA!!!!\n-----END X509 CRL-----\n"
BROKEN = b"-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n"


def decoded(pem: bytes) -> bytes:
    """Return the content of one PEM block."""
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def relabelled(pem: bytes, label: str, *, headers: bytes = b"", der: bytes = b"") -> bytes:
    """Return the block under another label, with headers or another content."""
    packed = base64.b64encode(der or decoded(pem))
    lines = b"\n".join(packed[start : start + 64] for start in range(0, len(packed), 64))
    name = label.encode()
    return b"-----BEGIN " + name + b"-----\n" + headers + lines + b"\n-----END " + name + b"-----\n"


def indented(pem: bytes) -> bytes:
    """Return each line moved to the right, as in a YAML file."""
    return b"".join(b"    " + line + b"\n" for line in pem.splitlines())


def negative_serial(pem: bytes) -> bytes:
    """Return the certificate with its serial number's first bit set; the signature is wrong then."""
    der = bytearray(decoded(pem))
    place = der.index(b"\xa0\x03\x02\x01\x02\x02") + 7
    der[place] |= 0x80
    return relabelled(pem, "CERTIFICATE", der=bytes(der))


BOTH_READ: dict[str, Shape] = {
    "plain": lambda one, _: one,
    "two": lambda one, other: one + other,
    "text": lambda one, other: TEXT + one + TEXT + other,
    "bag attributes": lambda one, other: BAG + one + BAG + other,
    "byte-order mark before text": lambda one, _: b"\xef\xbb\xbf" + TEXT + one,
    "carriage returns": lambda one, other: (one + other).replace(b"\n", b"\r\n"),
    "no final newline": lambda one, _: one.rstrip(),
    "EC parameters": lambda one, _: EC_PARAMETERS + one,
    "trailing blanks": lambda one, _: one.replace(b"\n", b"  \n"),
    "an example in a comment": lambda one, _: b"# -----BEGIN CERTIFICATE-----\n" + one,
    "one long line": lambda one, _: b"\n".join(
        (one.splitlines()[0], base64.b64encode(decoded(one)), one.splitlines()[-1])
    ),
}
"""Formats that Go and OpenSSL both read."""

PYTHON_ONLY: dict[str, Shape] = {
    "byte-order mark": lambda one, _: b"\xef\xbb\xbf" + one,
    "X509 CERTIFICATE": lambda one, _: relabelled(one, "X509 CERTIFICATE"),
    "TRUSTED CERTIFICATE": lambda one, _: relabelled(one, "TRUSTED CERTIFICATE"),
}
"""Formats of CA files that OpenSSL reads and Go does not."""

GO_ONLY: dict[str, Shape] = {
    "broken CRL first": lambda one, _: BROKEN_CRL + one,
    "broken CRL between": lambda one, other: one + BROKEN_CRL + other,
    "broken certificate between": lambda one, other: one + BROKEN + other,
    "blank lines": lambda one, _: one.replace(b"\n", b"\n\n"),
    "cut short behind it": lambda one, other: one + other[:200],
    "joined behind it": lambda one, other: one + other.rstrip() + one,
}
"""Formats of CA files that Go reads at least in part, while OpenSSL refuses the whole file."""

NEITHER: dict[str, Shape] = {
    "joined": lambda one, other: one.rstrip() + other,
    "indented": lambda one, _: indented(one),
    "headers": lambda one, _: relabelled(one, "CERTIFICATE", headers=b"Comment: x\n\n"),
    "headers without a blank line": lambda one, _: relabelled(one, "CERTIFICATE", headers=b"Comment: x\n"),
    "text on the BEGIN line": lambda one, _: b"ca: " + one,
    "carriage returns alone": lambda one, _: one.replace(b"\n", b"\r"),
}
"""Formats of CA files that neither reads."""
