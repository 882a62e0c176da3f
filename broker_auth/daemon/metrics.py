"""Prometheus metrics of the whole service: what every worker counted, ended ones included.

Made when they are asked for, in the supervisor; no worker's hot path knows of them. The names are
an interface: the Grafana dashboard and people's alerts rest on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker_auth import __version__
from broker_auth.callout.chain_issuers import IN_USE_SECONDS
from broker_auth.callout.stats import LATENCY_BUCKETS
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.troubles import TroubleCode, troubles

_P = "broker_auth_"


class ServiceCollector(Collector):
    """Turns the states of the zones into metric families each time it is scraped."""

    def __init__(self, states: Callable[[], Sequence[ZoneState]], clock: Callable[[], float]) -> None:
        """``clock`` gives Unix seconds, for what is left until certificates expire."""
        self._states = states
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        states = self._states()
        yield _gauge("info", "Version of broker-auth.", ("version",), [((__version__,), 1)])
        yield from _decisions(states)
        yield from _workers(states)
        now = self._clock()
        yield _chain_issuers(states, now)
        yield from _troubles(states, now)
        yield from _certificates(states, now)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask for the state."""
        return []


def _decisions(states: Sequence[ZoneState]) -> Iterator[Metric]:
    yield _counter(
        "decisions",
        "Connections decided, by the rule that claimed them and `admitted` or the denial's code.",
        ("zone", "rule", "code"),
        [((s.zone, rule, code), count) for s in states for rule, code, count in s.counted.decisions],
    )
    yield _counter(
        "unanswered",
        "Messages that got no reply, by fault; `late` came too late to be answered.",
        ("zone", "fault"),
        [((s.zone, fault), count) for s in states for fault, count in s.counted.unanswered.items()],
    )
    yield _counter(
        "late",
        "Requests dropped because they came too late.",
        ("zone",),
        [((s.zone,), s.counted.unanswered.get("late", 0)) for s in states],
    )
    yield _counter(
        "reply_failures",
        "Answers that could not be made or sent.",
        ("zone",),
        [((s.zone,), s.counted.reply_failures) for s in states],
    )
    yield _latency(states)
    yield _gauge(
        "signer_last_used_timestamp_seconds",
        "When a token of this signer last admitted somebody.",
        ("zone", "signer"),
        [((s.zone, signer), when) for s in states for signer, when in s.counted.signer_used.items()],
    )


def _chain_issuers(states: Sequence[ZoneState], now: float) -> Metric:
    return _gauge(
        "chain_issuer_expiry_timestamp_seconds",
        "When a chain issuer, and everybody below it, stops being accepted; by its token id, those of the last week.",
        ("zone", "issuer"),
        [
            ((s.zone, issuer), ends)
            for s in states
            for issuer, (seen, ends) in s.counted.chain_issuers.items()
            if now - seen < IN_USE_SECONDS
        ],
    )


def _latency(states: Sequence[ZoneState]) -> Metric:
    histogram = HistogramMetricFamily(
        f"{_P}decision_seconds",
        "Time of a request from its verification to its signed answer; its share, of those answered together.",
        labels=("zone",),
    )
    for state in states:
        sums = list(accumulate(state.counted.latency))
        buckets = [(repr(bound), float(count)) for bound, count in zip(LATENCY_BUCKETS, sums, strict=False)]
        ends = [*buckets, ("+Inf", float(sums[-1]))]
        histogram.add_metric([state.zone], buckets=ends, sum_value=state.counted.latency_sum)
    return histogram


def _workers(states: Sequence[ZoneState]) -> Iterator[Metric]:
    zone = ("zone",)
    yield _gauge("workers", "Worker processes that run.", zone, [((s.zone,), len(s.resident)) for s in states])
    yield _gauge("workers_wanted", "Worker processes there should be.", zone, [((s.zone,), s.wanted) for s in states])
    yield _gauge(
        "zone_ready",
        "1 while every broker of the zone can ask a worker.",
        zone,
        [((s.zone,), float(s.ready)) for s in states],
    )
    yield _gauge(
        "worker_resident_bytes",
        "Memory of one worker, pages shared with others included.",
        ("zone", "slot"),
        [((s.zone, str(slot)), size) for s in states for slot, size in enumerate(s.resident)],
    )
    yield _counter(
        "worker_replacements",
        "Workers replaced because they died or said nothing for too long.",
        ("zone", "cause"),
        [((s.zone, cause), count) for s in states for cause, count in s.replaced.items()],
    )
    yield _counter(
        "reloads",
        "Reloads of the configuration, by result.",
        ("zone", "result"),
        [
            ((s.zone, result), count)
            for s in states
            for result, count in (("accepted", s.accepted), ("refused", s.refused))
        ],
    )
    yield _gauge(
        "broker_subscribed_workers",
        "Workers that are subscribed at this broker.",
        ("zone", "broker"),
        [((s.zone, broker), up) for s in states for broker, up in s.brokers.items()],
    )
    yield _gauge("in_flight", "Requests received and not answered yet.", zone, [((s.zone,), s.pending) for s in states])
    yield _gauge(
        "oldest_request_seconds",
        "How long the oldest request has waited; requests that waited 1.5 s are dropped.",
        zone,
        [((s.zone,), s.oldest) for s in states],
    )
    yield _counter(
        "broker_connections_dropped",
        "Connections dropped because their broker did not read the answers, or answered no PING for 12 s.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.dropped.items()],
    )
    yield _counter(
        "broker_left",
        "Times that a worker asked a broker for no more requests because all had expired on arrival: clocks differ.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.left.items()],
    )
    yield _counter(
        "answered_for_others",
        "Requests answered here because the worker that was asked, perhaps on another host, did not.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.answered_for_others.items()],
    )
    yield _counter("log_lost", "Log lines that nobody read in time.", zone, [((s.zone,), s.log_lost) for s in states])
    yield _gauge(
        "clock_skew_seconds",
        "How far this host's clock is ahead of that of this broker's server it differs most from; negative if behind.",
        ("zone", "broker"),
        [((s.zone, broker), skew) for s in states for broker, skew in _by_broker(s.skews).items()],
    )
    yield _counter(
        "task_failures",
        "Long-lived tasks that ended unforeseen and were started again.",
        zone,
        [((s.zone,), s.task_failures) for s in states],
    )
    yield _counter(
        "audit_lost", "Audit records that could not be kept.", zone, [((s.zone,), s.audit_lost) for s in states]
    )


def _by_broker(skews: Mapping[str, float]) -> dict[str, float]:
    """Return the largest skew of each broker's servers, whose names a broker makes up as it likes."""
    found: dict[str, float] = {}
    for name, skew in skews.items():
        broker = name.partition("/")[0]
        found[broker] = max(skew, found.get(broker, skew), key=abs)
    return found


def _troubles(states: Sequence[ZoneState], now: float) -> Iterator[Metric]:
    counts = {(state.zone, code.value): 0 for state in states for code in TroubleCode}
    for state in states:
        for trouble in troubles(state, now):
            counts[state.zone, trouble.code.value] += 1
    yield _gauge("troubles", "What is wrong although the zone serves, by cause.", ("zone", "code"), counts.items())


def _certificates(states: Sequence[ZoneState], now: float) -> Iterator[Metric]:
    """Yield each certificate once, whichever zones use it."""
    rows = tuple(dict.fromkeys(expiry for state in states for expiry in state.expiries))
    yield _gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate expires: `signer` of tokens, `ca` of peers or brokers, `own` presented to brokers.",
        ("what", "name"),
        [((row.what, row.name), row.not_after) for row in rows],
    )
    yield _gauge(
        "certificate_days_left",
        "Days until a certificate expires; negative once it has.",
        ("what", "name"),
        [((row.what, row.name), (row.not_after - now) / 86400) for row in rows],
    )


_Rows = Iterable[tuple[tuple[str, ...], float]]


def _counter(name: str, text: str, labels: tuple[str, ...], rows: _Rows) -> CounterMetricFamily:
    family = CounterMetricFamily(_P + name, text, labels=labels)
    for values, count in rows:
        family.add_metric(list(values), count)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: _Rows) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_P + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family
