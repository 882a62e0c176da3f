"""The example dashboard shows every metric, and Grafana's own types accept all of it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from broker_auth.cli.report_expiring import METRICS
from tests.examples.monitoring import ALERTS, DASHBOARD, dashboard, exported, expressions, used


def test_dashboard_shows_exactly_the_existing_metrics() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert used(str(expressions())) == exported() | set(METRICS)


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_labels_in_expressions_exist() -> None:
    """Checks constant labels; `instance` and `job` are added by Prometheus."""
    selected = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\\?\"", ALERTS.read_text() + DASHBOARD.read_text()))
    assert selected - {"instance", "job"} == {"code", "days", "fault", "result", "rule"}


def test_grafana_keeps_all_of_it() -> None:
    """Grafana's types, generated from its schema, drop what they do not know, and complete what is missing."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    pytest.importorskip("grafana_foundation_sdk.cog.plugins").register_default_plugins()
    kept = json.loads(encoder.JSONEncoder().encode(models.Dashboard.from_json(dashboard())))
    assert _differences(dashboard(), kept) == []


def _differences(written: Any, kept: Any, path: str = "") -> list[str]:
    """Return the paths of everything written that is not kept."""
    if isinstance(written, dict) and isinstance(kept, dict):
        pairs = [(key, value, kept.get(key)) for key, value in written.items()]
    elif isinstance(written, list) and isinstance(kept, list) and len(written) == len(kept):
        pairs = [(str(number), one, other) for number, (one, other) in enumerate(zip(written, kept, strict=True))]
    else:
        return [] if written == kept else [path]
    return [problem for key, one, other in pairs for problem in _differences(one, other, f"{path}/{key}")]
