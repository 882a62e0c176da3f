"""What is wrong with a zone although it serves: each cause by itself, and not what follows from it.

Shown by ``/healthz`` and ``/readyz``, logged when it begins and ends, and exported as a metric to be alerted on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from broker_auth.callout.skew import WARNING_SECONDS, told
from broker_auth.daemon.state import ZoneState


class TroubleCode(StrEnum):
    """What can be wrong; clocks first, because so much else follows from them."""

    CLOCK = "clock"
    CERTIFICATE = "certificate"
    AUDIT = "audit"
    LATE = "late"


class Trouble(msgspec.Struct, frozen=True):
    """One cause, in one line."""

    code: TroubleCode
    text: str


def troubles(state: ZoneState, now: float) -> tuple[Trouble, ...]:
    """Return what is wrong with a zone at ``now`` (Unix seconds), the most far-reaching first."""
    return (*_clocks(state), *_certificates(state, now), *_audit(state), *_late(state))


def _clocks(state: ZoneState) -> Iterator[Trouble]:
    for name, skew in sorted(state.skews.items()):
        if abs(skew) >= WARNING_SECONDS:
            remedy = "synchronize both (chrony, systemd-timesyncd) before you look at anything else"
            yield Trouble(TroubleCode.CLOCK, f"{told(skew, name.partition('/')[2] or name)}; {remedy}")


def _certificates(state: ZoneState, now: float) -> Iterator[Trouble]:
    for expiry in state.expiries:
        if expiry.not_after > now or expiry.what == "signer":  # an expired signer's certificate still verifies tokens
            continue
        when = datetime.fromtimestamp(expiry.not_after, UTC)
        meaning = {
            "own": "brokers that ask for a certificate refuse this service; renew it and reload",
            "ca": "what it has issued is not accepted; put the renewed CA beside it and reload",
        }.get(expiry.what, "renew it and reload")
        yield Trouble(TroubleCode.CERTIFICATE, f"{expiry.name} expired at {when:%Y-%m-%d %H:%M:%S} UTC: {meaning}")


def _audit(state: ZoneState) -> Iterator[Trouble]:
    if state.audit_trouble:
        yield Trouble(TroubleCode.AUDIT, f"audit records are lost: {state.audit_trouble}; decisions go on")


def _late(state: ZoneState) -> Iterator[Trouble]:
    if state.oldest > WARNING_SECONDS:
        text = f"the oldest request has waited for {state.oldest:.1f} s; add workers or hosts"
        yield Trouble(TroubleCode.LATE, text)
