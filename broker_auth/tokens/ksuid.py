"""KSUIDs, the token ids of Choria: 4 bytes of time and 16 of randomness in 27 base62 characters.

Source: the segmentio/ksuid format description.
"""

from __future__ import annotations

import os
from typing import Final

EPOCH: Final = 1_400_000_000  # Unix seconds of KSUID time 0
LENGTH: Final = 27
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE: Final = {character: value for value, character in enumerate(_ALPHABET)}
_BYTES: Final = 20


def new(now: int) -> str:
    """Return a new id whose embedded time is ``now`` (Unix seconds)."""
    number = int.from_bytes((now - EPOCH).to_bytes(4, "big") + os.urandom(_BYTES - 4), "big")
    characters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, 62)
        characters.append(_ALPHABET[digit])
    return "".join(reversed(characters))


def timestamp(ksuid: str) -> int | None:
    """Return the embedded time in Unix seconds, or None if ``ksuid`` is not a KSUID."""
    if len(ksuid) != LENGTH:
        return None
    number = 0
    for character in ksuid:
        value = _VALUE.get(character)
        if value is None:
            return None
        number = number * 62 + value
    if number >= 1 << (8 * _BYTES):
        return None
    return (number >> (8 * (_BYTES - 4))) + EPOCH
