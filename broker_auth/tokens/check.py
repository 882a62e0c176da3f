"""Checks of a single token, for ``token check`` and monitoring: signature, times, expectations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker_auth.times import short_duration
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.claims import ORG_ISSUER_PREFIX, ClientClaims, Purpose, ServerClaims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse, show
from broker_auth.tokens.show import masked
from broker_auth.tokens.verify import Rejected, TokenVerifier, Verified, check_times

ACCEPTED: Final = "accepted"
_SOON: Final = "min_validity"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A property of a valid token that differs from an expectation: a fixed code, and a message."""

    code: str
    text: str

    def __str__(self) -> str:
        """Return both in one line."""
        return f"{self.code}: {self.text}"


Requirement = Callable[[Verified, Mapping[str, Any]], Mismatch | None]
"""A check of a valid token and its raw claims; returns None if the requirement is met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """The requirements on a token beyond a valid signature; None requires nothing.

    Attributes:
        purpose: the kind of token.
        identity: the server's identity or the client's caller id.
        min_validity: minimum remaining validity in seconds.
        max_validity: maximum remaining validity in seconds.
        chain_issuer: whether it may issue other tokens.
        requirements: further requirements, each with its code.
    """

    purpose: Purpose | None = None
    identity: str | None = None
    min_validity: float | None = None
    max_validity: float | None = None
    chain_issuer: bool | None = None
    requirements: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of checking a token.

    Attributes:
        code: ``accepted``, a token's fault, or the first expectation that it does not meet.
        reason: why it is not valid, beginning with a fixed code; None if it is valid.
        purpose: the kind of token, unverified without a signer.
        signer: the key that signed it; None if no configured key did.
        claims: its claims, with secrets masked; None unless its signature is valid.
        expires: Unix seconds; the earlier of its expiry and its issuer's end.
        chain_issuer: its chain issuer, or itself if it is a chain issuer; None outside a verified trust chain.
        soon: whether nothing is wrong with it but that it expires sooner than expected.
        bounds: the nodes that may wait by it; None if any may.
    """

    valid: bool
    code: str
    reason: str | None
    purpose: str | None = None
    signer: str | None = None
    claims: dict[str, Any] | None = None
    expires: float | None = None
    chain_issuer: ChainIssuer | None = None
    soon: bool = False
    bounds: Bounds | None = None


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
        return CheckResult(valid=False, code=token.fault, reason=f"{token.fault}: {token.detail}", purpose=purpose)
    claims = parse(raw).claims
    try:
        check_times(token, now, leeway=leeway, allow_non_expiring=allow_non_expiring)
        mismatches = _mismatches(token, claims, now, expected or Expectations())
    except TokenRejected as rejected:
        mismatches = [Mismatch(rejected.fault, rejected.detail)]
    return CheckResult(
        valid=not mismatches,
        code=mismatches[0].code if mismatches else ACCEPTED,
        reason="; ".join(map(str, mismatches)) or None,
        purpose=str(token.purpose),
        signer=token.signer,
        claims=masked(claims),
        expires=token.expires,
        chain_issuer=token.chain_issuer,
        soon=[mismatch.code for mismatch in mismatches] == [_SOON],
        bounds=token.bounds,
    )


def _mismatches(token: Verified, claims: Mapping[str, Any], now: float, expected: Expectations) -> list[Mismatch]:
    """Return each property of a valid token that differs from the expectations."""
    mismatches = []
    if expected.purpose not in (None, token.purpose):
        text = f"it is a {token.purpose} token, not a {expected.purpose} one"
        mismatches.append(Mismatch("purpose", text))
    identity = _identity(token)
    if expected.identity not in (None, identity):
        mismatches.append(Mismatch("identity", f"it is {show(identity)}, not {show(expected.identity)}"))
    if expected.chain_issuer not in (None, is_chain_issuer(token)):
        text = f"it {'may not' if expected.chain_issuer else 'may'} issue others"
        mismatches.append(Mismatch("chain_issuer", text))
    for requirement in expected.requirements:
        if (mismatch := requirement(token, claims)) is not None:
            mismatches.append(mismatch)
    left = None if token.expires is None else token.expires - now
    if expected.min_validity is not None and left is not None and left < expected.min_validity:
        least = short_duration(expected.min_validity, " ")
        mismatches.append(Mismatch(_SOON, f"it expires in {short_duration(left, ' ')}, less than {least}"))
    if expected.max_validity is not None and (left is None or left > expected.max_validity):
        ends = "never expires" if left is None else f"expires in {short_duration(left, ' ')}"
        most = short_duration(expected.max_validity, " ")
        mismatches.append(Mismatch("max_validity", f"it {ends}, more than {most}"))
    return mismatches


def is_chain_issuer(token: Verified) -> bool:
    """Return whether the token allows issuing others. In issuer mode the chain was verified with the token."""
    return isinstance(token.claims, ClientClaims) and token.claims.iss.startswith(ORG_ISSUER_PREFIX)


def _identity(token: Verified) -> str:
    claims = token.claims
    if isinstance(claims, ClientClaims):
        return claims.callerid
    return claims.identity if isinstance(claims, ServerClaims) else ""
