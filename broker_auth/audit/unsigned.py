"""Parses tokens without their signature, as audit records store them; verifies nothing."""

from __future__ import annotations

from typing import Final

from broker_auth.tokens.jws import ASCII_SPACE, Jws, parse

_PLACEHOLDER: Final = "AA"  # base64url of one byte, which is not a valid signature of any algorithm


def parse_unsigned(raw: str) -> Jws:
    """Parse a token that may lack its signature.

    Raises:
        TokenRejected: it is not a token, with or without a signature.
    """
    return parse(with_placeholder(raw))


def with_placeholder(raw: str) -> str:
    """Return the token with one zero byte in place of a missing signature."""
    text = raw.rstrip(ASCII_SPACE)
    return text + _PLACEHOLDER if text.endswith(".") else raw
