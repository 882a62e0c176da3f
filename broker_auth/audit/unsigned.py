"""Tokens that lack their signature, as audit records keep them: taken apart, never verified."""

from __future__ import annotations

from typing import Final

from broker_auth.tokens.jws import ASCII_SPACE, Jws, parse

_PLACEHOLDER: Final = "AA"  # base64url of one byte, which is no signature of any algorithm


def parse_unsigned(raw: str) -> Jws:
    """Take a token apart that may lack its signature.

    Raises:
        TokenRejected: it is no token, with or without a signature.
    """
    return parse(with_placeholder(raw))


def with_placeholder(raw: str) -> str:
    """Return the token with one zero byte in the place of a missing signature."""
    text = raw.rstrip(ASCII_SPACE)
    return text + _PLACEHOLDER if text.endswith(".") else raw
