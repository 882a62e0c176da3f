"""Base64url without padding, as JWTs use it (faster with ``pybase64`` installed), and public keys in hex."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Final

_ALPHABET: Final = b"-_"
_PLUS, _SLASH, _EQUALS = b"+/="  # searching for integers takes a fifth of the time
_PADDING: Final = (b"", b"===", b"==", b"=")  # by length modulo four; a remainder of 1 is never valid

_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")

_encode: Callable[[bytes, bytes], bytes]
_decode: Callable[[bytes, bytes, bool], bytes]

try:  # the `fast` extra is optional
    import pybase64

    _encode, _decode = pybase64.b64encode, pybase64.b64decode
except ImportError:
    _encode, _decode = base64.b64encode, base64.b64decode


def encode(data: bytes) -> bytes:
    """Return ``data`` as base64url."""
    return _encode(data, _ALPHABET).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """Return the bytes that ``text`` encodes.

    Raises:
        ValueError: the text holds padding, or a character outside the base64url alphabet.
    """
    # The decoders accept these, some with a warning.
    if _PLUS in text or _SLASH in text or _EQUALS in text:
        raise ValueError("not base64url without padding")
    return _decode(text + _PADDING[len(text) % 4], _ALPHABET, True)


def is_hex_key(text: str) -> bool:
    """Return whether a text is 32 bytes in hex, as Choria writes Ed25519 public keys."""
    return _HEX_KEY.fullmatch(text) is not None
