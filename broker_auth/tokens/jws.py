"""A strict parser of tokens: JWS compact serialization (RFC 7515).

Untrusted input is bounded and parsed here, before any key is used. The header selects nothing: ``alg`` must
later fit the key (docs/policy.md#what-is-accepted-as-a-token); ``jwk``, ``jku``, ``x5u``, ``x5c`` and ``kid``
are ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from broker_auth import encoding
from broker_auth.tokens.faults import TokenFault, TokenRejected

MAX_TOKEN_BYTES: Final = 16 * 1024  # docs/policy.md#what-is-accepted-as-a-token
MAX_DEPTH: Final = 16  # docs/policy.md#what-is-accepted-as-a-token

# Possessive, and an unclosed string extends to the end: untrusted text always costs a single pass.
_JSON_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
ASCII_SPACE: Final = " \t\r\n\v\f"
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Jws:
    """The parts of a token, unverified."""

    algorithm: str
    claims: dict[str, Any]
    signing_input: bytes
    signature: bytes


def parse(raw: str) -> Jws:
    """Parse a token. Surrounding ASCII white space is stripped, because files end in newlines.

    Raises:
        TokenRejected: the text is not a token by the rules above.
    """
    if len(raw) > MAX_TOKEN_BYTES + 1024 or len(text := raw.strip(ASCII_SPACE)) > MAX_TOKEN_BYTES:
        raise TokenRejected(TokenFault.TOO_LARGE, f"token is larger than {MAX_TOKEN_BYTES} bytes")
    parts = text.split(".", 3)
    if len(parts) != 3 or not parts[0] or not parts[1] or not parts[2]:
        raise TokenRejected(TokenFault.NOT_COMPACT, "token does not have three non-empty parts")
    header = _json_object(_decode(parts[0], "header"), "header")
    claims = _json_object(_decode(parts[1], "claims"), "claims")
    if "crit" in header:
        raise TokenRejected(TokenFault.CRITICAL_HEADER, "token header demands extensions ('crit')")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise TokenRejected(TokenFault.HEADER, "token header names no algorithm ('alg')")
    return Jws(algorithm, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), _decode(parts[2], "signature"))


def _decode(part: str, what: str) -> bytes:
    """Decode canonical base64url without padding, so that each byte string has exactly one encoding."""
    try:
        text = part.encode("ascii")
        decoded = encoding.decode(text)
    except ValueError as error:
        raise TokenRejected(TokenFault.ENCODING, f"token {what} is not base64url without padding") from error
    if encoding.encode(decoded) != text:
        raise TokenRejected(TokenFault.ENCODING, f"token {what} is not canonical base64url")
    return decoded


def _json_object(data: bytes, what: str) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenRejected(TokenFault.NOT_JSON, f"token {what} is not UTF-8") from error
    _bound_depth(text, what)
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
        # Lone surrogates survive json.loads but can be neither hashed nor shown later.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise TokenRejected(TokenFault.NOT_JSON, f"token {what} is not valid JSON") from error
    if not isinstance(value, dict):
        raise TokenRejected(TokenFault.NOT_JSON, f"token {what} is not a JSON object")
    return value


def _bound_depth(text: str, what: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return  # the common case: too few opening brackets to nest deeper
    depth = 0
    for character in _JSON_STRING.sub("", text):
        if character in "{[":
            depth += 1
            if depth > MAX_DEPTH:
                raise TokenRejected(TokenFault.TOO_DEEP, f"token {what} nests deeper than {MAX_DEPTH}")
        elif character in "}]":
            depth -= 1


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise TokenRejected(TokenFault.DUPLICATE_CLAIM, f"token holds {show(twice)} twice")
    return unique


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def show(value: object) -> str:
    """Return an untrusted value for a log line: quoted, escaped, bounded."""
    text = value if isinstance(value, str) else str(value)
    return ascii(text[:_SHOWN]) + ("…" if len(text) > _SHOWN else "")
