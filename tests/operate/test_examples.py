"""The files under ``examples/`` match the service: metrics, commands, keys, and the systemd unit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from broker_auth.audit.record import AuditRecord, ServerErrorRecord
from broker_auth.cli import main
from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.state import ZoneState
from broker_auth.settings.keys import table as keytable

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [
    path
    for directory in ("container", "grafana", "logrotate", "systemd")
    for path in sorted((EXAMPLES / directory).iterdir())
]
UNIT = EXAMPLES / "systemd" / "broker-auth.service"


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
    return set(re.findall(r"\bbroker_auth_\w+", text))


def test_dashboard_shows_exactly_the_existing_metrics() -> None:
    path = EXAMPLES / "grafana" / "broker-auth.json"
    dashboard = json.loads(path.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert used(" ".join(expressions)) <= exported()
    # The dashboard shows the days left; the timestamp is for alerts.
    assert exported() - used(" ".join(expressions)) == {"broker_auth_certificate_expiry_timestamp_seconds"}


def test_dashboard_panels_do_not_overlap() -> None:
    dashboard = json.loads((EXAMPLES / "grafana" / "broker-auth.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_metrics_in_alerts_exist() -> None:
    text = (EXAMPLES / "grafana" / "alerts.yaml").read_text()
    assert len(used(text)) > 4
    assert used(text) <= exported()


def test_labels_in_expressions_exist() -> None:
    """Checks constant labels; `instance` is added by Prometheus."""
    text = (EXAMPLES / "grafana" / "alerts.yaml").read_text() + (EXAMPLES / "grafana" / "broker-auth.json").read_text()
    selected = set(re.findall(r"(\w+)(?:=|!=|=~)\\?\"", text)) - {"instance"}
    assert selected == {"code", "fault", "result"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_keys_and_commands_in_examples_exist(path: Path) -> None:
    text = path.read_text()
    for key in re.findall(r"\bplugin\.[a-z_.]+[a-z_]", text):
        assert keytable.find(key), key
    for command in re.findall(r"(?<![\w/.-])broker-auth (serve|reload|why|doctor|config|token|explain|report)\b", text):
        assert main.get_command(None, command), command  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    program = tmp_path / "broker-auth"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "broker-auth.service"
    unit.write_text(UNIT.read_text().replace("/usr/bin/broker-auth", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    # Ignore messages about other units of this machine.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "broker-auth" in line]
    assert not complaints


def test_unit_matches_the_service_notifications() -> None:
    text = UNIT.read_text()
    for needed in (
        "Type=notify",
        "WatchdogSec=",
        "KillMode=mixed",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
    ):
        assert re.search(rf"^{re.escape(needed)}", text, re.MULTILINE), needed


def test_documentation_lists_every_metric_and_field() -> None:
    text = (EXAMPLES.parent / "docs" / "monitoring.md").read_text()
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: [ZoneState(zone="fleet")], lambda: 0.0))
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in getattr(family, "_labelnames", ()))
        assert f"| `{name}` | {labels} | {family.documentation} |" in text
    listed = set(re.findall(r"`(\w+)`", text.partition("## Health")[0]))
    for record in (AuditRecord, ServerErrorRecord):
        assert {field.name for field in msgspec.structs.fields(record)} <= listed
