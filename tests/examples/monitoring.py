"""The example dashboard and alerting rules, and the metrics that the service exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.state import ZoneState

_GRAFANA: Final = Path(__file__).parents[2] / "examples" / "grafana"
ALERTS: Final = _GRAFANA / "alerts.yaml"
DASHBOARD: Final = _GRAFANA / "broker-auth.json"


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def expressions() -> dict[str, list[str]]:
    """Return the queries of each panel, by its title."""
    return {panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard()["panels"]}


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerting rules by name."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def samples(state: ZoneState) -> Iterator[Sample]:
    """Yield what the service exports for a zone in this state, at the Unix time 0."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: [state], lambda: 0.0))
    for family in registry.collect():
        yield from family.samples


def exported() -> set[str]:
    """Return the metric names that may be used in an expression."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: [ZoneState(zone="fleet")], lambda: 0.0))
    names = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def used(text: str) -> set[str]:
    """Return the metric names in an expression."""
    return set(re.findall(r"\bbroker_auth_\w+", text))
