"""Prometheus metrics of the whole service: what every worker counted, ended ones included.

Made when they are asked for, in the supervisor; no worker's hot path knows of them. The names are
an interface: the Grafana dashboard and people's alerts rest on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker_auth import __version__
from broker_auth.observe.expiry import Expiry
from broker_auth.observe.stats import LATENCY_BUCKETS, Snapshot

_P = "broker_auth_"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything there is to export, at one moment.

    Attributes:
        brokers: workers subscribed at each broker.
        resident: bytes of each worker that runs.
        replaced: workers that had to be replaced, by cause.
        reloads: changes of configuration, by result.
    """

    counted: Snapshot
    wanted: int
    brokers: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    resident: tuple[int, ...] = ()
    replaced: Mapping[str, int] = field(default_factory=dict)
    reloads: Mapping[str, int] = field(default_factory=dict)
    audit_lost: int = 0
    expiries: tuple[Expiry, ...] = ()


class ServiceCollector(Collector):
    """Turns a :class:`State` into metric families each time it is scraped."""

    def __init__(self, state: Callable[[], State], clock: Callable[[], float]) -> None:
        """``clock`` gives Unix seconds, for what is left until certificates expire."""
        self._state = state
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Every family."""
        state = self._state()
        yield _gauge("info", "Version of broker-auth.", ("version",), [((__version__,), 1)])
        yield from _decisions(state.counted)
        yield from _workers(state)
        yield from _certificates(state.expiries, self._clock())

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not ask for the state."""
        return []


def _decisions(counted: Snapshot) -> Iterator[Metric]:
    yield _counter(
        "decisions",
        "Connections decided, by the rule that claimed them and `admitted` or the denial's code.",
        ("rule", "code"),
        [((rule, code), count) for rule, code, count in counted.decisions],
    )
    yield _counter(
        "unanswered",
        "Messages that got no reply, by fault; `late` came too late to be answered.",
        ("fault",),
        [((fault,), count) for fault, count in counted.unanswered.items()],
    )
    yield _counter(
        "late", "Requests dropped because they came too late.", (), [((), counted.unanswered.get("late", 0))]
    )
    yield _counter("reply_failures", "Answers that could not be made or sent.", (), [((), counted.reply_failures)])
    sums = list(accumulate(counted.latency))
    buckets = [(repr(bound), float(count)) for bound, count in zip(LATENCY_BUCKETS, sums, strict=False)]
    histogram = HistogramMetricFamily(
        f"{_P}decision_seconds",
        "Time of a request from its verification to its signed answer; its share, of those answered together.",
    )
    histogram.add_metric([], buckets=[*buckets, ("+Inf", float(sums[-1]))], sum_value=counted.latency_sum)
    yield histogram
    yield _gauge(
        "signer_last_used_timestamp_seconds",
        "When a token of this signer last admitted somebody.",
        ("signer",),
        [((signer,), when) for signer, when in counted.signer_used.items()],
    )


def _workers(state: State) -> Iterator[Metric]:
    yield _gauge("workers", "Worker processes that run.", (), [((), len(state.resident))])
    yield _gauge("workers_wanted", "Worker processes there should be.", (), [((), state.wanted)])
    yield _gauge(
        "worker_resident_bytes",
        "Memory of one worker, pages shared with others included.",
        ("slot",),
        [((str(slot),), size) for slot, size in enumerate(state.resident)],
    )
    yield _counter(
        "worker_replacements",
        "Workers replaced because they died or said nothing for too long.",
        ("cause",),
        [((cause,), count) for cause, count in state.replaced.items()],
    )
    yield _counter(
        "reloads",
        "Reloads of the configuration, by result.",
        ("result",),
        [((result,), count) for result, count in state.reloads.items()],
    )
    yield _gauge(
        "broker_subscribed_workers",
        "Workers that this broker can ask.",
        ("broker",),
        [((broker,), up) for broker, up in state.brokers.items()],
    )
    yield _gauge("in_flight", "Requests received and not answered yet.", (), [((), state.pending)])
    yield _counter("audit_lost", "Audit records that could not be kept.", (), [((), state.audit_lost)])


def _certificates(expiries: Iterable[Expiry], now: float) -> Iterator[Metric]:
    rows = tuple(expiries)
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
