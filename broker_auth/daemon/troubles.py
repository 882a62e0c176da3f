"""Troubles of a zone that is still serving: root causes, not their consequences.

Shown by ``/healthz`` and ``/readyz``, logged when they begin and end, and exported as a metric for alerts.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from broker_auth.callout.skew import WARNING_SECONDS, describe
from broker_auth.daemon.state import ZoneState
from broker_auth.settings.crls import doubt

UNSYNCHRONIZED_SECONDS: Final = 10.0  # file and bucket are compared several times a second


class TroubleCode(StrEnum):
    """Codes of troubles; clocks first, because wrong clocks cause many other problems."""

    CLOCK = "clock"
    CERTIFICATE = "certificate"
    AUDIT = "audit"
    REVOCATIONS = "revocations"
    CRL = "crl"
    SYNCHRONIZATION = "synchronization"
    NODE_COUNTS = "node_counts"
    LATE = "late"


class Trouble(msgspec.Struct, frozen=True):
    """A trouble, described in one line."""

    code: TroubleCode
    text: str


def troubles(state: ZoneState, now: float) -> tuple[Trouble, ...]:
    """Return the troubles of a zone at ``now`` (Unix seconds), most far-reaching first."""
    return (
        *_clocks(state),
        *_certificates(state, now),
        *_audit(state),
        *_revocations(state),
        *_crls(state, now),
        *_synchronization(state, now),
        *_node_counts(state),
        *_late(state),
    )


def _clocks(state: ZoneState) -> Iterator[Trouble]:
    for name, skew in sorted(state.skews.items()):
        if abs(skew) >= WARNING_SECONDS:
            remedy = "synchronize both clocks (chrony, systemd-timesyncd) before investigating anything else"
            yield Trouble(TroubleCode.CLOCK, f"{describe(skew, name.partition('/')[2] or name)}; {remedy}")


def _certificates(state: ZoneState, now: float) -> Iterator[Trouble]:
    for expiry in state.expiries:
        if (
            expiry.not_after > now or expiry.what == "signer"
        ):  # tokens are verified with a signer's key even if its certificate has expired
            continue
        when = datetime.fromtimestamp(expiry.not_after, UTC)
        meaning = {
            "own": "brokers that require a certificate refuse this service; renew it and reload",
            "ca": "certificates issued by it are not accepted; add the renewed CA to the file and reload",
        }.get(expiry.what, "renew it and reload")
        yield Trouble(TroubleCode.CERTIFICATE, f"{expiry.name} expired at {when:%Y-%m-%d %H:%M:%S} UTC: {meaning}")


def _audit(state: ZoneState) -> Iterator[Trouble]:
    if state.audit_trouble:
        yield Trouble(TroubleCode.AUDIT, f"audit records are lost: {state.audit_trouble}; decisions continue")


def _revocations(state: ZoneState) -> Iterator[Trouble]:
    if state.revocation_trouble:
        text = f"the file of revocations cannot be read, so its last good state counts: {state.revocation_trouble}"
        yield Trouble(TroubleCode.REVOCATIONS, text)


def _crls(state: ZoneState, now: float) -> Iterator[Trouble]:
    for reason in state.crl_troubles:
        text = f"a file of CRLs cannot be used, so its last good CRLs count: {reason}"
        yield Trouble(TroubleCode.CRL, text)
    for one in state.crls:
        if doubtful := doubt(one, now):
            yield Trouble(TroubleCode.CRL, f"{one.file}: {doubtful}; publish the current one")


def _synchronization(state: ZoneState, now: float) -> Iterator[Trouble]:
    last = state.synchronized
    late = last is not None and last > 0 and now - last > UNSYNCHRONIZED_SECONDS
    if last is None or not (late or state.sync_trouble):
        return
    since = f"since {datetime.fromtimestamp(last, UTC):%Y-%m-%d %H:%M:%S} UTC" if last else "yet"
    why = state.sync_trouble or "the process that exchanges them does not answer"
    text = f"revocations were not exchanged with other hosts {since}, so the file of this host counts: {why}"
    yield Trouble(TroubleCode.SYNCHRONIZATION, text)


def _node_counts(state: ZoneState) -> Iterator[Trouble]:
    if state.counting_trouble:
        text = f"nodes are not counted, so tokens for a number of nodes admit no new ones: {state.counting_trouble}"
        yield Trouble(TroubleCode.NODE_COUNTS, text)


def _late(state: ZoneState) -> Iterator[Trouble]:
    if state.oldest > WARNING_SECONDS:
        text = f"the oldest request has waited for {state.oldest:.1f} s; add workers or hosts"
        yield Trouble(TroubleCode.LATE, text)
