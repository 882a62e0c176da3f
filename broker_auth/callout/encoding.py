"""Base64url without padding, as JWTs use it; faster with ``pybase64`` installed."""

from __future__ import annotations

import base64
from collections.abc import Callable

_Decode = Callable[..., bytes]

try:  # the `fast` extra is optional
    import pybase64

    _encode: Callable[[bytes], bytes] = pybase64.urlsafe_b64encode
    _decode: _Decode = pybase64.b64decode
except ImportError:
    _encode = base64.urlsafe_b64encode
    _decode = base64.b64decode


def encode(data: bytes) -> bytes:
    """The text of ``data``."""
    return _encode(data).rstrip(b"=")


def decode(text: bytes) -> bytes:
    """The data of ``text``.

    Raises:
        ValueError: it holds anything but base64url characters, or padding.
    """
    if b"=" in text or b"+" in text or b"/" in text:  # which the decoders let pass, some with a warning
        raise ValueError("not base64url without padding")
    return _decode(text + b"=" * (-len(text) % 4), b"-_", validate=True)
