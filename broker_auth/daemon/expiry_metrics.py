"""Metrics of everything that expires: certificates, CRLs and chain issuers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf

from prometheus_client.core import Metric

from broker_auth.callout.chain_issuers import IN_USE_SECONDS
from broker_auth.daemon.families import gauge
from broker_auth.daemon.state import ZoneState


def expiries(states: Sequence[ZoneState], now: float) -> Iterator[Metric]:
    """Yield the families; each configured certificate has one row, even if several zones use it."""
    configured = dict.fromkeys((expiry.what, expiry.name, expiry.not_after) for s in states for expiry in s.expiries)
    presented = [("broker", broker, when) for s in states for broker, when in s.certificates.items()]
    yield gauge(
        "certificate_expiry_timestamp_seconds",
        "Expiry of a certificate: `signer` of tokens, `ca` of peers or brokers, `own` presented to brokers, `broker` "
        "presented by the connected servers of a broker (the earliest).",
        ("what", "name"),
        [((what, name), when) for what, name, when in (*configured, *presented)],
    )
    yield _chain_issuers(states, now)
    yield from _crls(states)


def _chain_issuers(states: Sequence[ZoneState], now: float) -> Metric:
    return gauge(
        "chain_issuer_expiry_timestamp_seconds",
        "Time at which a chain issuer and all tokens it issued stop being accepted; by token id, of the last week.",
        ("zone", "issuer"),
        [
            ((s.zone, issuer), ends)
            for s in states
            for issuer, (seen, ends) in s.counted.chain_issuers.items()
            if now - seen < IN_USE_SECONDS
        ],
    )


def _crls(states: Sequence[ZoneState]) -> Iterator[Metric]:
    """Yield each CRL once; of several by one CA in a file, what the file says in total and at the latest."""
    entries: Counter[tuple[str, str]] = Counter()
    ends: dict[tuple[str, str], float] = {}
    for one in (crl for state in states for crl in state.crls):
        key = one.file, one.name
        entries[key] += one.entries
        ends[key] = max(inf if one.next_update is None else one.next_update, ends.get(key, 0.0))
    labels = ("file", "issuer")
    yield gauge("crl_entries", "Certificates in the CRLs of a CA that are in force.", labels, entries.items())
    yield gauge(
        "crl_next_update_timestamp_seconds", "When the CRL of a CA expires; +Inf if never.", labels, ends.items()
    )
