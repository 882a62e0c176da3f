"""Metric families of this service, made of rows of label values and numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from broker_auth.callout.stats import LATENCY_BUCKETS

_PREFIX: Final = "broker_auth_"
Rows = Iterable[tuple[tuple[str, ...], float]]


def counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> CounterMetricFamily:
    """Return a counter; ``_total`` is added to its name."""
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for values, count in rows:
        family.add_metric(list(values), count)
    return family


def gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> GaugeMetricFamily:
    """Return a gauge."""
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def latency(name: str, text: str, rows: Iterable[tuple[str, Sequence[int], float]]) -> HistogramMetricFamily:
    """Return a histogram by zone, with the counts of :data:`.LATENCY_BUCKETS` and their sum in seconds."""
    family = HistogramMetricFamily(_PREFIX + name, text, labels=("zone",))
    for zone, counts, total in rows:
        sums = list(accumulate(counts))
        buckets = [(repr(bound), float(count)) for bound, count in zip(LATENCY_BUCKETS, sums, strict=False)]
        family.add_metric([zone], buckets=[*buckets, ("+Inf", float(sums[-1]))], sum_value=total)
    return family
