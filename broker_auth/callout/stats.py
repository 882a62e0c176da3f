"""Counters of a worker: plain numbers on the hot path, exported elsewhere on request."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

import msgspec

from broker_auth.callout.chain_issuers import ChainIssuers, Ends, merge
from broker_auth.callout.request import WireFault
from broker_auth.policy.decision import Admit, Decision

LATENCY_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds


class Snapshot(msgspec.Struct, kw_only=True):
    """Counters at one moment, which can be added, for running and ended processes.

    Attributes:
        decisions: rule, code and count.
        chain_issuers: when each recently seen chain issuer was last seen and when it ends.
    """

    decisions: list[tuple[str, str, int]] = []
    unanswered: dict[str, int] = {}
    latency: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    latency_sum: float = 0.0
    signer_used: dict[str, float] = {}
    reply_failures: int = 0
    chain_issuers: Ends = {}
    dropped: dict[str, int] = {}
    left: dict[str, int] = {}
    answered_for_others: dict[str, int] = {}

    def __add__(self, other: Snapshot) -> Snapshot:
        """Return the sum; the last use of a signer is the later one."""
        decisions: Counter[tuple[str, str]] = Counter()
        for rule, code, count in (*self.decisions, *other.decisions):
            decisions[rule, code] += count
        used = dict(self.signer_used)
        for signer, when in other.signer_used.items():
            used[signer] = max(when, used.get(signer, when))
        return Snapshot(
            decisions=[(rule, code, count) for (rule, code), count in decisions.items()],
            unanswered=dict(Counter(self.unanswered) + Counter(other.unanswered)),
            latency=[mine + theirs for mine, theirs in zip(self.latency, other.latency, strict=True)],
            latency_sum=self.latency_sum + other.latency_sum,
            signer_used=used,
            reply_failures=self.reply_failures + other.reply_failures,
            chain_issuers=merge(self.chain_issuers, other.chain_issuers),
            dropped=dict(Counter(self.dropped) + Counter(other.dropped)),
            left=dict(Counter(self.left) + Counter(other.left)),
            answered_for_others=dict(Counter(self.answered_for_others) + Counter(other.answered_for_others)),
        )


class Stats:
    """Counters of one process.

    Attributes:
        decisions: by rule and code (``admitted`` or the denial's).
        unanswered: messages that got no reply, by fault.
        latency: requests by bucket of :data:`LATENCY_BUCKETS`; the last bucket is unbounded.
        latency_sum: seconds.
        signer_used: Unix seconds of the last admission, by signer.
        reply_failures: answers that could not be created or sent.
        chain_issuers: issuers of presented tokens, and when they end.
        dropped: connections dropped because their broker did not read or answer, by broker.
        left: number of times this process unsubscribed because it could not answer, by broker.
        answered_for_others: requests answered because the worker that received them did not, by broker.
    """

    __slots__ = (
        "answered_for_others",
        "chain_issuers",
        "decisions",
        "dropped",
        "latency",
        "latency_sum",
        "left",
        "reply_failures",
        "signer_used",
        "unanswered",
    )

    def __init__(self) -> None:
        self.decisions: Counter[tuple[str, str]] = Counter()
        self.unanswered: Counter[WireFault] = Counter()
        self.latency = [0] * (len(LATENCY_BUCKETS) + 1)
        self.latency_sum = 0.0
        self.signer_used: dict[str, float] = {}
        self.reply_failures = 0
        self.chain_issuers = ChainIssuers()
        self.dropped: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.answered_for_others: Counter[str] = Counter()

    def decided(self, decision: Decision, now: float) -> None:
        """Count one decision."""
        if isinstance(decision, Admit):
            self.decisions[decision.rule, "admitted"] += 1
            if decision.signer:
                self.signer_used[decision.signer] = now
        else:
            self.decisions[decision.rule, decision.code] += 1
        if decision.chain_issuer is not None:
            self.chain_issuers.observe(decision.chain_issuer, now)

    def took(self, count: int, seconds: float) -> None:
        """Count ``count`` decisions that took ``seconds`` each."""
        self.latency[bisect_left(LATENCY_BUCKETS, seconds)] += count
        self.latency_sum += seconds * count

    def snapshot(self) -> Snapshot:
        """Return the current counters."""
        return Snapshot(
            decisions=[(str(rule), str(code), count) for (rule, code), count in self.decisions.items()],
            unanswered={fault.value: count for fault, count in self.unanswered.items()},
            latency=list(self.latency),
            latency_sum=self.latency_sum,
            signer_used=dict(self.signer_used),
            reply_failures=self.reply_failures,
            chain_issuers=dict(self.chain_issuers.ends),
            dropped=dict(self.dropped),
            left=dict(self.left),
            answered_for_others=dict(self.answered_for_others),
        )
