"""Prometheus metrics of the whole service, including the counts of workers that have ended.

Computed in the supervisor on each scrape; the workers' hot path is not involved. The names are a stable
interface: the Grafana dashboard and operators' alerts depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from broker_auth import __version__
from broker_auth.callout.request import WireFault
from broker_auth.daemon.expiry_metrics import expiries
from broker_auth.daemon.families import counter, gauge, latency
from broker_auth.daemon.slot import Cause
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.troubles import TroubleCode, troubles
from broker_auth.policy.outcomes import outcomes


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
        yield from _workers(states)
        now = self._clock()
        yield gauge("revocations", "Revocations in force.", ("zone",), [((s.zone,), s.revoked) for s in states])
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
    yield counter(
        "unanswered",
        "Messages that were not answered, by fault; `late`: received too late to be answered.",
        ("zone", "fault"),
        [((s.zone, fault), count) for s in states for fault, count in known(WireFault, s.counted.unanswered).items()],
    )
    yield counter(
        "late",
        "Requests dropped because they were received too late.",
        ("zone",),
        [((s.zone,), s.counted.unanswered.get("late", 0)) for s in states],
    )
    yield counter(
        "reply_failures",
        "Answers that could not be created or sent.",
        ("zone",),
        [((s.zone,), s.counted.reply_failures) for s in states],
    )
    yield latency(
        "decision_seconds",
        "Duration from the verification of a request to its signed answer; for a batch, the average per request.",
        [(s.zone, s.counted.latency, s.counted.latency_sum) for s in states],
    )
    yield gauge(
        "signer_last_used_timestamp_seconds",
        "Time of the last admission with a token of this signer.",
        ("zone", "signer"),
        [((s.zone, signer), when) for s in states for signer, when in s.counted.signer_used.items()],
    )


def _workers(states: Sequence[ZoneState]) -> Iterator[Metric]:
    zone = ("zone",)
    yield gauge("workers", "Running worker processes.", zone, [((s.zone,), len(s.resident)) for s in states])
    yield gauge(
        "workers_wanted",
        "Configured number of worker processes.",
        zone,
        [((s.zone,), s.expected_workers) for s in states],
    )
    yield gauge(
        "zone_ready",
        "1 while a worker is subscribed at every broker of the zone.",
        zone,
        [((s.zone,), float(s.ready)) for s in states],
    )
    yield gauge(
        "worker_resident_bytes",
        "Resident memory of one worker, including pages shared with other processes.",
        ("zone", "slot"),
        [((s.zone, str(slot)), size) for s in states for slot, size in enumerate(s.resident)],
    )
    yield counter(
        "worker_replacements",
        "Workers replaced because they died or were stuck.",
        ("zone", "cause"),
        [((s.zone, cause), count) for s in states for cause, count in known(Cause, s.replaced).items()],
    )
    yield counter(
        "reloads",
        "Reloads of the configuration, by result.",
        ("zone", "result"),
        [
            ((s.zone, result), count)
            for s in states
            for result, count in (("accepted", s.accepted), ("refused", s.refused))
        ],
    )
    yield gauge(
        "broker_subscribed_workers",
        "Workers currently subscribed at this broker.",
        ("zone", "broker"),
        [((s.zone, broker), up) for s in states for broker, up in s.brokers.items()],
    )
    yield gauge(
        "waiting_nodes",
        "Client connections in the provisioning account of a broker where nodes connect.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.waiting.items()],
    )
    yield counter(
        "provisioner_requests",
        "Messages that reached the waiting nodes of an edge over its leaf link: requests of provisioners.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.asked.items()],
    )
    yield gauge("in_flight", "Requests received but not answered yet.", zone, [((s.zone,), s.pending) for s in states])
    yield gauge(
        "oldest_request_seconds",
        "Age of the oldest pending request; requests are dropped after 1.5 s.",
        zone,
        [((s.zone,), s.oldest) for s in states],
    )
    yield counter(
        "broker_connections_dropped",
        "Connections dropped because the broker did not read answers, or did not answer a PING for 12 s.",
        ("zone", "broker"),
        _by_known_broker(states, "dropped"),
    )
    yield counter(
        "broker_left",
        "Times that a worker unsubscribed at a broker because all requests had expired on arrival: clocks differ.",
        ("zone", "broker"),
        _by_known_broker(states, "left"),
    )
    yield counter(
        "answered_for_others",
        "Requests answered here because the worker that received them, possibly on another host, did not answer.",
        ("zone", "broker"),
        _by_known_broker(states, "answered_for_others"),
    )
    yield counter(
        "log_lost",
        "Log lines dropped because stderr was not read in time.",
        zone,
        [((s.zone,), s.log_lost) for s in states],
    )
    yield gauge(
        "clock_skew_seconds",
        "Largest clock difference to a server of this broker; positive if this host is ahead, negative if behind.",
        ("zone", "broker"),
        [((s.zone, broker), skew) for s in states for broker, skew in _by_broker(s.skews).items()],
    )
    yield counter(
        "task_failures",
        "Long-lived tasks that ended unexpectedly and were restarted.",
        zone,
        [((s.zone,), s.task_failures) for s in states],
    )
    yield counter("audit_lost", "Audit records that were lost.", zone, [((s.zone,), s.audit_lost) for s in states])


def _decided(state: ZoneState) -> dict[tuple[str, str], int]:
    """Return the count of every possible decision of a zone, from 0, by rule and code."""
    counts = dict.fromkeys(sorted(outcomes(state.serves)) if state.serves else (), 0)
    return counts | {(rule, code): count for rule, code, count in state.counted.decisions}


def known(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return the counts, with 0 for each of ``names`` that was not counted yet.

    A counter that appears with its first event hides that event: Prometheus sees no increase.
    """
    return dict.fromkeys(map(str, names), 0) | dict(counts)


def _by_known_broker(states: Sequence[ZoneState], field: str) -> Iterator[tuple[tuple[str, str], float]]:
    """Yield the rows of a counter of :class:`.Snapshot` that counts by broker."""
    for state in states:
        for broker, count in known(state.brokers, getattr(state.counted, field)).items():
            yield (state.zone, broker), count


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
