"""One token checked by itself, as ``token check`` and monitoring do: verified, in its time, as expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker_auth.times import short_duration
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.claims import ORG_ISSUER_PREFIX, ClientClaims, Purpose, ServerClaims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse, show
from broker_auth.tokens.show import masked
from broker_auth.tokens.verify import Rejected, TokenVerifier, Verified, check_times


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """What is asked of a token beyond that it verifies; None asks nothing.

    Attributes:
        purpose: its kind.
        identity: the server's identity or the client's caller id.
        min_validity: seconds for which it must at least still be valid.
        max_validity: seconds for which it may at most still be valid.
        chain_issuer: whether it may issue others.
    """

    purpose: Purpose | None = None
    identity: str | None = None
    min_validity: float | None = None
    max_validity: float | None = None
    chain_issuer: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Whether a token holds, and what it says.

    Attributes:
        reason: why it does not hold, beginning with a fixed code; None if it does.
        purpose: what it is for, unverified where there is no signer.
        signer: the key that signed it; None if none did.
        claims: what it says, secrets masked; None unless its signature holds.
        expires: Unix seconds; the earliest of its own expiry and its issuer's end.
        chain_issuer: who issued it or may issue others with it, if it is part of a verified trust chain.
    """

    valid: bool
    reason: str | None
    purpose: str | None = None
    signer: str | None = None
    claims: dict[str, Any] | None = None
    expires: float | None = None
    chain_issuer: ChainIssuer | None = None


def check_token(
    raw: str,
    verifier: TokenVerifier,
    now: float,
    *,
    leeway: float = 0.0,
    allow_non_expiring: bool = False,
    expected: Expectations | None = None,
) -> CheckResult:
    """Checks a token; the nonce, which only a connection has, is left out.

    Args:
        raw: the token; surrounding white space is ignored.
        verifier: whose tokens are accepted.
        now: Unix seconds.
        leeway: seconds, for ``nbf`` and ``iat``.
        allow_non_expiring: accept provisioning tokens without ``exp``.
        expected: what else is asked of it.
    """
    token = verifier.examine(raw)
    if isinstance(token, Rejected):
        purpose = str(token.purpose) if token.purpose else None
        return CheckResult(valid=False, reason=f"{token.fault}: {token.detail}", purpose=purpose)
    reason: str | None
    try:
        check_times(token, now, leeway=leeway, allow_non_expiring=allow_non_expiring)
        reason = _unexpected(token, now, expected or Expectations())
    except TokenRejected as rejected:
        reason = str(rejected)
    return CheckResult(
        valid=reason is None,
        reason=reason,
        purpose=str(token.purpose),
        signer=token.signer,
        claims=masked(parse(raw).claims),
        expires=token.expires,
        chain_issuer=token.chain_issuer,
    )


def _unexpected(token: Verified, now: float, expected: Expectations) -> str | None:
    """Everything about a valid token that is not as expected, in one line."""
    found = []
    if expected.purpose not in (None, token.purpose):
        found.append(f"purpose: it is a {token.purpose} token, not a {expected.purpose} one")
    identity = _identity(token)
    if expected.identity not in (None, identity):
        found.append(f"identity: it is {show(identity)}, not {show(expected.identity)}")
    if expected.chain_issuer not in (None, is_chain_issuer(token)):
        found.append(f"chain_issuer: it {'may not' if expected.chain_issuer else 'may'} issue others")
    left = None if token.expires is None else token.expires - now
    if expected.min_validity is not None and left is not None and left < expected.min_validity:
        least = short_duration(expected.min_validity, " ")
        found.append(f"min_validity: it expires in {short_duration(left, ' ')}, less than {least}")
    if expected.max_validity is not None and (left is None or left > expected.max_validity):
        ends = "never expires" if left is None else f"expires in {short_duration(left, ' ')}"
        found.append(f"max_validity: it {ends}, more than {short_duration(expected.max_validity, ' ')}")
    return "; ".join(found) or None


def is_chain_issuer(token: Verified) -> bool:
    """Whether the holder may issue others. In issuer mode the chain was verified with the token."""
    return isinstance(token.claims, ClientClaims) and token.claims.iss.startswith(ORG_ISSUER_PREFIX)


def _identity(token: Verified) -> str:
    claims = token.claims
    if isinstance(claims, ClientClaims):
        return claims.callerid
    return claims.identity if isinstance(claims, ServerClaims) else ""
