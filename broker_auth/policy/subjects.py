"""NATS subjects, and what may become part of one (docs/policy.md#permissions)."""

from __future__ import annotations

import re
from typing import Final

MAX_NAME_LENGTH: Final = 253  # characters; a DNS name's
_UNFIT: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
# Host names, nearly all there is, are known fit at one look; whatever else is looked at closely.
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def is_subject(text: str) -> bool:
    """Whether ``text`` is a subject, wildcards allowed: no empty token, no white space, ``>`` only last."""
    tokens = text.split(".")
    return all(tokens) and not _UNFIT.search(text) and ">" not in tokens[:-1]


def is_literal(text: str) -> bool:
    """Whether ``text`` can stand in a subject as it is, dots included: no wildcard, no empty token."""
    return "*" not in text and ">" not in text and is_subject(text)


def is_token(text: str) -> bool:
    """Whether ``text`` can be one token of a subject: :func:`is_literal` without dots."""
    return "." not in text and is_literal(text)


def is_node_name(text: str) -> bool:
    """Whether a provisioning node's connection name may become its subject."""
    return len(text) <= MAX_NAME_LENGTH and (_HOST_NAME.fullmatch(text) is not None or is_literal(text))


def covers(pattern: str, subject: str) -> bool:
    """Return whether ``pattern`` matches every message subject that ``subject``, wildcards allowed, matches."""
    wide, narrow = pattern.split("."), subject.split(".")
    for position, token in enumerate(wide):
        if token == ">":
            return len(narrow) > position
        if position >= len(narrow) or narrow[position] == ">":
            return False
        if token not in ("*", narrow[position]):
            return False
    return len(wide) == len(narrow)
