"""Values of the certificate extensions that restrict a key's use, read like Go's ``crypto/x509`` does.

Every function takes an extension's value and raises :class:`broker_auth.certificates.der.DerError` if it is malformed.
"""

from __future__ import annotations

from typing import Final

from broker_auth.certificates import der

_MAX_USAGES: Final = 128
_ANY_USAGE: Final = bytes.fromhex("551d2500")
_SERVER_AUTH: Final = bytes.fromhex("2b06010505070301")
_CLIENT_AUTH: Final = bytes.fromhex("2b06010505070302")
_SIGNS_CERTIFICATES: Final = 0x04  # keyCertSign, in the first byte of a key usage
_SIGNS_LISTS: Final = 0x02  # cRLSign


def basic_constraints(value: bytes) -> tuple[bool | None, int | None]:
    """Return the CA flag and the path length."""
    outer = der.only(value, der.SEQUENCE)
    fields = der.children(value, outer.content, outer.end, 2)
    authority, length = False, None
    if fields and fields[0].tag == der.BOOLEAN:
        authority = value[fields[0].content : fields[0].end] == b"\xff"
        fields = fields[1:]
    if fields:
        length = der.unsigned(value, der.expect(value, fields[0].start, outer.end, der.INTEGER))
    return authority, length


def may_sign_certificates(value: bytes) -> bool:
    """Return whether a key usage includes keyCertSign, or is empty."""
    return _allows(value, _SIGNS_CERTIFICATES)


def may_sign_lists(value: bytes) -> bool:
    """Return whether a key usage includes cRLSign, or is empty."""
    return _allows(value, _SIGNS_LISTS)


def is_for_clients(value: bytes) -> bool:
    """Return whether an extended key usage includes clientAuth or anyExtendedKeyUsage."""
    return _names(value, _CLIENT_AUTH)


def is_for_servers(value: bytes) -> bool:
    """Return whether an extended key usage includes serverAuth or anyExtendedKeyUsage."""
    return _names(value, _SERVER_AUTH)


def _allows(value: bytes, use: int) -> bool:
    bits = der.only(value, der.BIT_STRING)
    used = value[bits.content + 1 : bits.end]
    return not any(used) or bool(used[0] & use)


def _names(value: bytes, expected: bytes) -> bool:
    outer = der.only(value, der.SEQUENCE)
    usages = der.children(value, outer.content, outer.end, _MAX_USAGES)
    return any(value[usage.content : usage.end] in (expected, _ANY_USAGE) for usage in usages)
