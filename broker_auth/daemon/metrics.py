"""Prometheus metrics of the whole service, including the counts of workers that have ended.

Computed in the supervisor on each scrape; the workers' hot path is not involved. The names are a stable
interface: the Grafana dashboard and operators' alerts depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from broker_auth import __version__
from broker_auth.callout.request import WireFault
from broker_auth.daemon.expiry_metrics import expiries
from broker_auth.daemon.families import Rows, counter, gauge, latency
from broker_auth.daemon.slot import Cause
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.troubles import TroubleCode, troubles
from broker_auth.policy.outcomes import outcomes

_Make = Callable[[str, str, tuple[str, ...], Rows], Metric]

_BY_ZONE: Final[Sequence[tuple[_Make, str, str, Callable[[ZoneState], float]]]] = (
    (gauge, "workers", "Running worker processes.", lambda s: len(s.resident)),
    (gauge, "workers_wanted", "Configured number of worker processes.", lambda s: s.expected_workers),
    (gauge, "zone_ready", "1 while a worker is subscribed at every broker of the zone.", lambda s: float(s.ready)),
    (gauge, "in_flight", "Requests received but not answered yet.", lambda s: s.pending),
    (
        gauge,
        "oldest_request_seconds",
        "Age of the oldest pending request; requests are dropped after 1.5 s.",
        lambda s: s.oldest,
    ),
    (
        counter,
        "late",
        "Requests dropped because they were received too late.",
        lambda s: s.counted.unanswered.get("late", 0),
    ),
    (counter, "reply_failures", "Answers that could not be created or sent.", lambda s: s.counted.reply_failures),
    (counter, "log_lost", "Log lines dropped because stderr was not read in time.", lambda s: s.log_lost),
    (
        counter,
        "task_failures",
        "Long-lived tasks that ended unexpectedly and were restarted.",
        lambda s: s.task_failures,
    ),
    (counter, "audit_lost", "Audit records that were lost.", lambda s: s.audit_lost),
    (gauge, "revocations", "Revocations in force.", lambda s: s.revoked),
)

_BY_LABEL: Final[Sequence[tuple[_Make, str, str, str, Callable[[ZoneState], Mapping[str, float]]]]] = (
    (
        counter,
        "unanswered",
        "Messages that were not answered, by fault; `late`: received too late to be answered.",
        "fault",
        lambda s: _known(WireFault, s.counted.unanswered),
    ),
    (
        gauge,
        "signer_last_used_timestamp_seconds",
        "Time of the last admission with a token of this signer.",
        "signer",
        lambda s: s.counted.signer_used,
    ),
    (
        gauge,
        "worker_resident_bytes",
        "Resident memory of one worker, including pages shared with other processes.",
        "slot",
        lambda s: {str(slot): size for slot, size in enumerate(s.resident)},
    ),
    (
        counter,
        "worker_replacements",
        "Workers replaced because they died or were stuck.",
        "cause",
        lambda s: _known(Cause, s.replaced),
    ),
    (
        counter,
        "reloads",
        "Reloads of the configuration, by result.",
        "result",
        lambda s: {"accepted": s.accepted, "refused": s.refused},
    ),
    (
        gauge,
        "broker_subscribed_workers",
        "Workers currently subscribed at this broker.",
        "broker",
        lambda s: s.brokers,
    ),
    (
        gauge,
        "waiting_nodes",
        "Client connections in the provisioning account of a broker where nodes connect.",
        "broker",
        lambda s: s.waiting,
    ),
    (
        counter,
        "provisioner_requests",
        "Messages that reached the waiting nodes of an edge over its leaf link: requests of provisioners.",
        "broker",
        lambda s: s.asked,
    ),
    (
        counter,
        "broker_connections_dropped",
        "Connections dropped because the broker did not read answers, or did not answer a PING for 12 s.",
        "broker",
        lambda s: _known(s.brokers, s.counted.dropped),
    ),
    (
        counter,
        "broker_left",
        "Times that a worker unsubscribed at a broker because all requests had expired on arrival: clocks differ.",
        "broker",
        lambda s: _known(s.brokers, s.counted.left),
    ),
    (
        counter,
        "answered_for_others",
        "Requests answered here because the worker that received them, possibly on another host, did not answer.",
        "broker",
        lambda s: _known(s.brokers, s.counted.answered_for_others),
    ),
    (
        gauge,
        "clock_skew_seconds",
        "Largest clock difference to a server of this broker; positive if this host is ahead, negative if behind.",
        "broker",
        lambda s: _by_broker(s.skews),
    ),
)


class ServiceCollector(Collector):
    """A Prometheus collector that converts the states of the zones to metric families on each scrape."""

    def __init__(self, states: Callable[[], Sequence[ZoneState]], clock: Callable[[], float]) -> None:
        """Collect nothing yet; ``clock`` returns Unix seconds."""
        self._states = states
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        states = self._states()
        yield gauge("info", "Version of broker-auth.", ("version",), [((__version__,), 1)])
        yield from _decisions(states)
        for make, name, text, value in _BY_ZONE:
            yield make(name, text, ("zone",), [((s.zone,), value(s)) for s in states])
        for make, name, text, label, values in _BY_LABEL:
            rows = [((s.zone, one), number) for s in states for one, number in values(s).items()]
            yield make(name, text, ("zone", label), rows)
        now = self._clock()
        yield _synchronization_age(states, now)
        yield from _troubles(states, now)
        yield from expiries(states, now)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registration does not query the state."""
        return []


def _decisions(states: Sequence[ZoneState]) -> Iterator[Metric]:
    yield counter(
        "decisions",
        "Decided connections, by the rule that decided and `admitted` or the denial code.",
        ("zone", "rule", "code"),
        [((s.zone, rule, code), count) for s in states for (rule, code), count in _decided(s).items()],
    )
    yield latency(
        "decision_seconds",
        "Duration from the verification of a request to its signed answer; for a batch, the average per request.",
        [(s.zone, s.counted.latency, s.counted.latency_sum) for s in states],
    )


def _decided(state: ZoneState) -> dict[tuple[str, str], int]:
    """Return the count of every possible decision of a zone, from 0, by rule and code."""
    counts = dict.fromkeys(sorted(outcomes(state.serves)) if state.serves else (), 0)
    return counts | {(rule, code): count for rule, code, count in state.counted.decisions}


def _known(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts, with 0 for each of ``names`` that was not counted yet.

    A counter that appears with its first event hides that event: Prometheus sees no increase.
    """
    return dict.fromkeys(map(str, names), 0) | dict(counts)


def _synchronization_age(states: Sequence[ZoneState], now: float) -> Metric:
    return gauge(
        "revocations_synchronization_age_seconds",
        "Time since the file of revocations and the bucket of the fleet held the same; infinite if they never did.",
        ("zone",),
        [((s.zone,), now - s.synchronized if s.synchronized else inf) for s in states if s.synchronized is not None],
    )


def _by_broker(skews: Mapping[str, float]) -> dict[str, float]:
    """Return the largest skew by broker, not by server, because a broker can invent any number of server names."""
    largest: dict[str, float] = {}
    for name, skew in skews.items():
        broker = name.partition("/")[0]
        largest[broker] = max(skew, largest.get(broker, skew), key=abs)
    return largest


def _troubles(states: Sequence[ZoneState], now: float) -> Iterator[Metric]:
    counts = {(state.zone, code.value): 0 for state in states for code in TroubleCode}
    for state in states:
        for trouble in troubles(state, now):
            counts[state.zone, trouble.code.value] += 1
    yield gauge(
        "troubles", "Current troubles of a zone that is still serving, by cause.", ("zone", "code"), counts.items()
    )
