"""Readable output of tokens, with secrets masked and untrusted text escaped."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker_auth.times import MAX_TIME, rfc3339, short_duration
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.chain import ChainIssuer

SECRET_CLAIMS: Final = frozenset({"cht", "chpwd"})  # access token and broker password of a provisioning token
MASK: Final = "*****"

_LABELS: Final = {
    "purpose": "Purpose",
    "callerid": "Caller id",
    "identity": "Identity",
    "ou": "Organization",
    "jti": "Token id",
    "iss": "Issuer",
    "sub": "Subject",
    "iat": "Issued",
    "nbf": "Not before",
    "exp": "Expires",
    "issexp": "Issuer expires",
    "public_key": "Public key",
    "tcs": "Trust chain signature",
    "collectives": "Collectives",
    "agents": "Agents",
    "permissions": "Permissions",
    "pub_subjects": "Publishes also",
    "sub_subjects": "Subscribes also",
    "user_properties": "User properties",
    "opa_policy": "OPA policy",
    "cht": "Access token",
    "chs": "Secure",
    "chu": "URLs",
    "chsrv": "SRV domain",
    "chpd": "Provision by default",
    "chrd": "Registration data",
    "chf": "Facts",
    "chusr": "Broker user",
    "chpwd": "Broker password",
    "v2": "Protocol version 2",
    "update": "Upgrades allowed",
    "extensions": "Extensions",
}
_TIMES: Final = frozenset({"iat", "nbf", "exp", "issexp"})


def masked(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims as they may be shown: secrets masked, and valid JSON only."""
    return {name: _finite(value) for name, value in claims.items()} | masked_secrets(claims)


def masked_secrets(claims: Mapping[str, Any]) -> dict[str, str]:
    """Return a mask for each secret claim that is present and not empty."""
    return {name: MASK for name in SECRET_CLAIMS if claims.get(name) not in (None, "")}


def _finite(value: Any) -> Any:
    """Replace infinities, which ``1e999`` in a token becomes but JSON does not have. Tokens nest at most 16 deep."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return value


def lines(claims: Mapping[str, Any], now: float) -> Iterator[str]:
    """Yield a line for each claim: known claims in a fixed order, then the others."""
    safe = masked(claims)
    for name in (*(name for name in _LABELS if name in safe), *(name for name in safe if name not in _LABELS)):
        label = _LABELS.get(name, name)
        yield f"{label:>22}: {_text(name, safe[name], now)}"


def chain_issuer_line(issuer: ChainIssuer, now: float) -> str:
    """Return a line, in the format of :func:`lines`, with the end of a chain issuer's validity."""
    return f"{'Chain issuer':>22}: {issuer.id}, accepted until {moment(issuer.ends, now)}"


def bounds_lines(bounds: Bounds | None) -> Iterator[str]:
    """Yield lines, in the format of :func:`lines`, with the nodes that may wait by a provisioning token."""
    if bounds is not None:
        yield from (f"{label:>22}: {value}" for label, value in bounds.lines())


def _text(name: str, value: Any, now: float) -> str:
    if name in _TIMES and isinstance(value, int | float) and not isinstance(value, bool):
        return moment(value, now)
    if name == "permissions" and isinstance(value, dict):
        return ", ".join(key for key, granted in value.items() if granted is True) or "none"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return ", ".join(value)
    return json.dumps(value)


def moment(time: float, now: float) -> str:
    """Return a time (Unix seconds) as a date, with its distance from ``now``."""
    if not 0 <= time <= MAX_TIME:
        return f"{time}, which is not a valid date"
    date = rfc3339(int(time))
    if time > now:
        return f"{date} (in {short_duration(time - now, ' ')})"
    return f"{date} ({short_duration(now - time, ' ')} ago)"
