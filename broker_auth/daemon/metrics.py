"""Prometheus metrics of the whole service, including the counts of workers that have ended.

Computed in the supervisor on each scrape; the workers' hot path is not involved. The names are a stable
interface: the Grafana dashboard and operators' alerts depend on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker_auth import __version__
from broker_auth.callout.chain_issuers import IN_USE_SECONDS
from broker_auth.callout.stats import LATENCY_BUCKETS
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.troubles import TroubleCode, troubles

_P = "broker_auth_"


class ServiceCollector(Collector):
    """A Prometheus collector that converts the states of the zones to metric families on each scrape."""

    def __init__(self, states: Callable[[], Sequence[ZoneState]], clock: Callable[[], float]) -> None:
        """Collect nothing yet; ``clock`` returns Unix seconds."""
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
        yield _gauge("revocations", "Revocations in force.", ("zone",), [((s.zone,), s.revoked) for s in states])
        yield from _crls(states)
        yield from _troubles(states, now)
        yield from _certificates(states, now)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registration does not query the state."""
        return []


def _decisions(states: Sequence[ZoneState]) -> Iterator[Metric]:
    yield _counter(
        "decisions",
        "Decided connections, by the rule that decided and `admitted` or the denial code.",
        ("zone", "rule", "code"),
        [((s.zone, rule, code), count) for s in states for rule, code, count in s.counted.decisions],
    )
    yield _counter(
        "unanswered",
        "Messages that were not answered, by fault; `late`: received too late to be answered.",
        ("zone", "fault"),
        [((s.zone, fault), count) for s in states for fault, count in s.counted.unanswered.items()],
    )
    yield _counter(
        "late",
        "Requests dropped because they were received too late.",
        ("zone",),
        [((s.zone,), s.counted.unanswered.get("late", 0)) for s in states],
    )
    yield _counter(
        "reply_failures",
        "Answers that could not be created or sent.",
        ("zone",),
        [((s.zone,), s.counted.reply_failures) for s in states],
    )
    yield _latency(states)
    yield _gauge(
        "signer_last_used_timestamp_seconds",
        "Time of the last admission with a token of this signer.",
        ("zone", "signer"),
        [((s.zone, signer), when) for s in states for signer, when in s.counted.signer_used.items()],
    )


def _chain_issuers(states: Sequence[ZoneState], now: float) -> Metric:
    return _gauge(
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


def _latency(states: Sequence[ZoneState]) -> Metric:
    histogram = HistogramMetricFamily(
        f"{_P}decision_seconds",
        "Duration from the verification of a request to its signed answer; for a batch, the average per request.",
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
    yield _gauge("workers", "Running worker processes.", zone, [((s.zone,), len(s.resident)) for s in states])
    yield _gauge(
        "workers_wanted",
        "Configured number of worker processes.",
        zone,
        [((s.zone,), s.expected_workers) for s in states],
    )
    yield _gauge(
        "zone_ready",
        "1 while a worker is subscribed at every broker of the zone.",
        zone,
        [((s.zone,), float(s.ready)) for s in states],
    )
    yield _gauge(
        "worker_resident_bytes",
        "Resident memory of one worker, including pages shared with other processes.",
        ("zone", "slot"),
        [((s.zone, str(slot)), size) for s in states for slot, size in enumerate(s.resident)],
    )
    yield _counter(
        "worker_replacements",
        "Workers replaced because they died or were stuck.",
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
        "Workers currently subscribed at this broker.",
        ("zone", "broker"),
        [((s.zone, broker), up) for s in states for broker, up in s.brokers.items()],
    )
    yield _gauge("in_flight", "Requests received but not answered yet.", zone, [((s.zone,), s.pending) for s in states])
    yield _gauge(
        "oldest_request_seconds",
        "Age of the oldest pending request; requests are dropped after 1.5 s.",
        zone,
        [((s.zone,), s.oldest) for s in states],
    )
    yield _counter(
        "broker_connections_dropped",
        "Connections dropped because the broker did not read answers, or did not answer a PING for 12 s.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.dropped.items()],
    )
    yield _counter(
        "broker_left",
        "Times that a worker unsubscribed at a broker because all requests had expired on arrival: clocks differ.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.left.items()],
    )
    yield _counter(
        "answered_for_others",
        "Requests answered here because the worker that received them, possibly on another host, did not answer.",
        ("zone", "broker"),
        [((s.zone, broker), count) for s in states for broker, count in s.counted.answered_for_others.items()],
    )
    yield _counter(
        "log_lost",
        "Log lines dropped because stderr was not read in time.",
        zone,
        [((s.zone,), s.log_lost) for s in states],
    )
    yield _gauge(
        "clock_skew_seconds",
        "Largest clock difference to a server of this broker; positive if this host is ahead, negative if behind.",
        ("zone", "broker"),
        [((s.zone, broker), skew) for s in states for broker, skew in _by_broker(s.skews).items()],
    )
    yield _counter(
        "task_failures",
        "Long-lived tasks that ended unexpectedly and were restarted.",
        zone,
        [((s.zone,), s.task_failures) for s in states],
    )
    yield _counter("audit_lost", "Audit records that were lost.", zone, [((s.zone,), s.audit_lost) for s in states])


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
    yield _gauge(
        "troubles", "Current troubles of a zone that is still serving, by cause.", ("zone", "code"), counts.items()
    )


def _certificates(states: Sequence[ZoneState], now: float) -> Iterator[Metric]:
    """Yield each certificate once, even if several zones use it."""
    rows = tuple(dict.fromkeys(expiry for state in states for expiry in state.expiries))
    yield _gauge(
        "certificate_expiry_timestamp_seconds",
        "Expiry of a certificate: `signer` of tokens, `ca` of peers or brokers, `own` presented to brokers.",
        ("what", "name"),
        [((row.what, row.name), row.not_after) for row in rows],
    )
    yield _gauge(
        "certificate_days_left",
        "Days until a certificate expires; negative once it has.",
        ("what", "name"),
        [((row.what, row.name), (row.not_after - now) / 86400) for row in rows],
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
    yield _gauge("crl_entries", "Certificates in the CRLs of a CA that are in force.", labels, entries.items())
    yield _gauge(
        "crl_next_update_timestamp_seconds", "When the CRL of a CA expires; +Inf if never.", labels, ends.items()
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
