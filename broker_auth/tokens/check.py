"""Checks of a single token, for ``token check`` and monitoring: signature, times, expectations."""

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
    """The requirements on a token beyond a valid signature; None requires nothing.

    Attributes:
        purpose: the kind of token.
        identity: the server's identity or the client's caller id.
        min_validity: minimum remaining validity in seconds.
        max_validity: maximum remaining validity in seconds.
        chain_issuer: whether it may issue other tokens.
    """

    purpose: Purpose | None = None
    identity: str | None = None
    min_validity: float | None = None
    max_validity: float | None = None
    chain_issuer: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of checking a token.

    Attributes:
        reason: why it is not valid, beginning with a fixed code; None if it is valid.
        purpose: the kind of token, unverified without a signer.
        signer: the key that signed it; None if no configured key did.
        claims: its claims, with secrets masked; None unless its signature is valid.
        expires: Unix seconds; the earlier of its expiry and its issuer's end.
        chain_issuer: its chain issuer, or itself if it is a chain issuer; None outside a verified trust chain.
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
    """Check a token, except for the nonce, which only a connection has.

    Args:
        raw: the token; surrounding white space is ignored.
        verifier: the accepted signers.
        now: Unix seconds.
        leeway: seconds, for ``nbf`` and ``iat``.
        allow_non_expiring: accept provisioning tokens without ``exp``.
        expected: further requirements.
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
    """Return each property of a valid token that differs from the expectation, in one line; None if all match."""
    differences = []
    if expected.purpose not in (None, token.purpose):
        differences.append(f"purpose: it is a {token.purpose} token, not a {expected.purpose} one")
    identity = _identity(token)
    if expected.identity not in (None, identity):
        differences.append(f"identity: it is {show(identity)}, not {show(expected.identity)}")
    if expected.chain_issuer not in (None, is_chain_issuer(token)):
        differences.append(f"chain_issuer: it {'may not' if expected.chain_issuer else 'may'} issue others")
    left = None if token.expires is None else token.expires - now
    if expected.min_validity is not None and left is not None and left < expected.min_validity:
        least = short_duration(expected.min_validity, " ")
        differences.append(f"min_validity: it expires in {short_duration(left, ' ')}, less than {least}")
    if expected.max_validity is not None and (left is None or left > expected.max_validity):
        ends = "never expires" if left is None else f"expires in {short_duration(left, ' ')}"
        differences.append(f"max_validity: it {ends}, more than {short_duration(expected.max_validity, ' ')}")
    return "; ".join(differences) or None


def is_chain_issuer(token: Verified) -> bool:
    """Return whether the token allows issuing others. In issuer mode the chain was verified with the token."""
    return isinstance(token.claims, ClientClaims) and token.claims.iss.startswith(ORG_ISSUER_PREFIX)


def _identity(token: Verified) -> str:
    claims = token.claims
    if isinstance(claims, ClientClaims):
        return claims.callerid
    return claims.identity if isinstance(claims, ServerClaims) else ""
