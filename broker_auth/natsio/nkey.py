"""NATS nkeys: typed, checksummed text for Ed25519 and X25519 keys.

A public key is ``base32(prefix, 32 bytes, CRC16)``; a seed carries two prefix bytes. The ``nkeys``
package signs with seeds but does not support curve keys, and every request on the hot path names keys that
must be checked, so this module encodes and decodes them (nats-io/nkeys ``strkey.go``).
"""

from __future__ import annotations

import base64
import secrets
from binascii import crc_hqx
from enum import IntEnum

from nacl.public import PrivateKey
from nacl.signing import SigningKey

from broker_auth.errors import InputError

_SEED_PREFIX = 18 << 3
_KEY_BYTES = 32
_PUBLIC_CHARS = 56  # 1 + 32 + 2 bytes are exactly 280 bits: no spare bits, so text is canonical
_SEED_CHARS = 58  # 2 + 32 + 2 bytes are 288 bits in 290: two spare bits must be zero
# Maps RFC 4648's alphabet to Python's digits and anything else to "!", which int() rejects: it would
# accept signs, spaces and underscores.
_DIGITS = dict(zip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghijklmnopqrstuv", strict=True))
_TO_BASE_32 = bytes(_DIGITS.get(code, ord("!")) for code in range(256))


class NkeyKind(IntEnum):
    """The kinds of keys; the value is the prefix byte, which determines the first letter of the text."""

    ACCOUNT = 0  # A…
    SERVER = 13 << 3  # N…
    USER = 20 << 3  # U…
    CURVE = 23 << 3  # X…


def generate_seed(kind: NkeyKind) -> str:
    """Return a new random seed (``SA…``, ``SN…``, ``SU…``, ``SX…``). The caller must keep it secret."""
    return encode_seed(secrets.token_bytes(_KEY_BYTES), kind)


def public_nkey(seed: str) -> str:
    """Return the public key of a seed, of the same kind.

    Raises:
        InputError: the text is not a seed of a known kind.
    """
    kind = seed_kind(seed)
    raw = decode_seed(seed, kind)
    key = PrivateKey(raw).public_key if kind is NkeyKind.CURVE else SigningKey(raw).verify_key
    return encode_public(bytes(key), kind)


def encode_public(key: bytes, kind: NkeyKind) -> str:
    """Return the text of a 32 byte public key."""
    return _encode(bytes((kind,)) + _exact(key))


def encode_seed(seed: bytes, kind: NkeyKind) -> str:
    """Return the text of a 32 byte seed."""
    prefix = bytes((_SEED_PREFIX | kind >> 5, (kind & 31) << 3))
    return _encode(prefix + _exact(seed))


def decode_public(text: str, kind: NkeyKind) -> bytes:
    """Return the 32 bytes of a public key of this kind. Each key has exactly one text.

    Raises:
        InputError: not canonical base32, a wrong checksum, or a key of another kind.
    """
    if len(text) != _PUBLIC_CHARS:
        raise InputError(f"not a public {kind.name.lower()} nkey: {_PUBLIC_CHARS} characters expected")
    raw = _decode(text, "public")
    if raw[0] != kind:
        raise InputError(f"not a public {kind.name.lower()} nkey: it is of another kind")
    return raw[1:]


def decode_seed(text: str, kind: NkeyKind) -> bytes:
    """Return the 32 secret bytes of a seed of this kind. The seed never appears in an error.

    Raises:
        InputError: not canonical base32, a wrong checksum, or a seed of another kind.
    """
    if seed_kind(text) is not kind:
        raise InputError(f"not a seed of a {kind.name.lower()} nkey: it is of another kind")
    return _decode_seed(text)[2:]


def seed_kind(text: str) -> NkeyKind:
    """Return the kind of a seed.

    Raises:
        InputError: the text is not a seed, or its kind is not used here.
    """
    raw = _decode_seed(text)
    prefix = (raw[0] & 7) << 5 | raw[1] >> 3
    if raw[0] & 0xF8 != _SEED_PREFIX or raw[1] & 7:
        raise InputError("not an nkey seed: it must begin with S")
    try:
        return NkeyKind(prefix)
    except ValueError:
        raise InputError("not a seed of an account, server, user or curve nkey") from None


def _decode_seed(text: str) -> bytes:
    if len(text) != _SEED_CHARS:
        raise InputError(f"not an nkey seed: {_SEED_CHARS} characters expected")
    return _decode(text, "seed")


def _decode(text: str, what: str) -> bytes:
    """Decode base32, check the CRC16 at the end (XMODEM, little endian) and remove it.

    Base32 is read as one number in base 32, five times as fast as :func:`base64.b32decode`.
    """
    bits = len(text) * 5
    try:
        number = int(text.encode("ascii").translate(_TO_BASE_32), 32)
    except ValueError:  # includes UnicodeEncodeError
        # `from None`: the interpreter's message quotes the text, which may be a secret
        raise InputError(f"not a {what} nkey: not base32") from None
    if spare := bits % 8:
        if number & (1 << spare) - 1:
            raise InputError(f"not a {what} nkey: not canonical base32")
        number >>= spare
    raw = number.to_bytes(bits // 8, "big")
    body = raw[:-2]
    if crc_hqx(body, 0) != raw[-2] | raw[-1] << 8:
        raise InputError(f"not a {what} nkey: the checksum is wrong")
    return body


def _encode(body: bytes) -> str:
    raw = body + crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(raw).rstrip(b"=").decode("ascii")


def _exact(key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise InputError(f"an nkey holds {_KEY_BYTES} bytes, not {len(key)}")
    return key
