"""Each alerting rule fires on the first event that it is for, in rule tests of Prometheus, and links to the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from broker_auth.callout.stats import Snapshot
from broker_auth.cli.report_expiring import EXPIRED, EXPIRING, METRICS, prometheus
from broker_auth.daemon.crl_files import CrlState
from broker_auth.daemon.state import ZoneState
from broker_auth.operate.report.expiring import ExpiryReport
from broker_auth.policy.model import Serves
from tests.builders.clock import DAY
from tests.examples.monitoring import ALERTS, alerts, exported, samples, used

PAGE: Final = ALERTS.parents[2] / "docs" / "runbook.md"
RUNBOOK: Final = "https://docs.example.net/broker-auth/runbook/#"
NEEDS_PROMTOOL: Final = pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
EVENT: Final = 10  # minutes after the start
LENGTH: Final = 90  # minutes, until after the longest `for`
TARGET: Final = {"instance": "host1", "job": "broker-auth"}
FLEET: Final = {**TARGET, "zone": "fleet"}
Timeline = dict[int, ZoneState | str | None]
"""The state of the zone from a minute on, or the file that ``report expiring`` wrote, or nothing."""


def state(**changes: object) -> ZoneState:
    """Return a zone without an event, with these changes."""
    fields = {"zone": "fleet", "serves": Serves.FLEET, "ready": True, "brokers": {"east": 2}, "expected_workers": 2}
    return ZoneState(**(fields | changes))  # type: ignore[arg-type]


def counted(**counts: object) -> ZoneState:
    return state(counted=Snapshot(**counts))  # type: ignore[arg-type]


def page(series: str) -> str:
    """Return the file that ``report expiring`` writes, with one session in this series."""
    lines = "\n".join([*prometheus(ExpiryReport(()), datetime.now(UTC)), ""])
    assert f"{series} 0\n" in lines
    return lines.replace(f"{series} 0\n", f"{series} 1\n")


def once(changed: ZoneState | str | None) -> Timeline:
    return {0: state(), EVENT: changed}


FIRST_EVENTS: Final[dict[str, tuple[Timeline, dict[str, str]]]] = {
    "NobodyAnswers": (once(state(brokers={"east": 0})), {"zone": "fleet", "broker": "east"}),
    "Absent": (once(None), {}),
    "HostDown": (once(None), TARGET),
    "TooSlow": (
        {0: state(), EVENT: counted(unanswered={"late": 1}), EVENT + 3: counted(unanswered={"late": 2})},
        {"instance": "host1"},
    ),
    "Stuck": (once(state(oldest=2.5)), {"instance": "host1"}),
    "Trouble": (once(state(skews={"east/nats1": 3.0})), {"instance": "host1", "zone": "fleet", "code": "clock"}),
    "WrongPasswords": (
        once(counted(decisions=[("provisioner", "provisioner_password", 6)])),
        {"zone": "fleet", "code": "provisioner_password"},
    ),
    "ForeignMessages": (once(counted(unanswered={"seal": 1})), {"zone": "fleet", "fault": "seal"}),
    "AnswersFail": (once(counted(reply_failures=1)), FLEET),
    "BrokerDoesNotRead": (once(counted(dropped={"east": 1})), {**FLEET, "broker": "east"}),
    "WorkersReplaced": (once(state(replaced={"died": 4})), {**FLEET, "cause": "died"}),
    "TaskFailed": (once(state(task_failures=1)), FLEET),
    "ReloadRefused": (once(state(refused=1)), {**FLEET, "result": "refused"}),
    "CertificateExpires": (once(state(certificates={"east": 13.0 * DAY})), {"what": "broker", "name": "east"}),
    "ChainIssuerEnds": (once(counted(chain_issuers={"id": (0.0, 29.0 * DAY)})), {"issuer": "id"}),
    "CrlExpires": (once(state(crls=(CrlState("ca.crl", "CN=CA", 3, 0.0, 1.0 * DAY),))), {"issuer": "CN=CA"}),
    "CredentialsEnd": (once(page(f'{EXPIRING}{{rule="server",days="7"}}')), {"rule": "server"}),
    "CredentialsEnded": (once(page(f'{EXPIRED}{{rule="client"}}')), {"rule": "client"}),
    "LogLost": (once(state(log_lost=1)), FLEET),
    "AuditLost": (once(state(audit_lost=1)), FLEET),
}
TOGETHER: Final = {"Absent": {"HostDown"}, "HostDown": {"Absent"}}


def selector(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def shown(current: ZoneState | str | None) -> Iterator[Sample]:
    """Yield what the target exports now."""
    if isinstance(current, str):
        yield from samples(state())
        for family in text_string_to_metric_families(current):
            yield from family.samples
    elif current is not None:
        yield from samples(current)


def series(timeline: Timeline) -> dict[str, str]:
    """Return the values of each series at each minute, in the notation of rule tests."""
    target = "up" + selector(TARGET)
    values: dict[str, list[str]] = {target: []}
    current: ZoneState | str | None = None
    for minute in range(LENGTH):
        current = timeline.get(minute, current)
        values[target].append("1" if current else "0")
        for sample in shown(current):
            row = values.setdefault(sample.name + selector(sample.labels | TARGET), [])
            row += ["_"] * (minute - len(row)) + [repr(sample.value)]
    return {name: " ".join(row + ["stale"] * (len(row) < LENGTH)) for name, row in values.items()}


@NEEDS_PROMTOOL
@pytest.mark.parametrize("name", FIRST_EVENTS)
def test_alert_fires_on_the_first_event(tmp_path: Path, name: str) -> None:
    timeline, labels = FIRST_EVENTS[name]
    rule = alerts()[f"BrokerAuth{name}"]
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= set(labels)
    waits = int(rule.get("for", "0m").replace("1h", "60m").removesuffix("m"))
    firing = {"__name__": "ALERTS", "alertname": f"BrokerAuth{name}", "alertstate": "firing"} | rule["labels"] | labels
    also = "|".join(f"BrokerAuth{other}" for other in TOGETHER.get(name, {"None"}))
    others = f'ALERTS{{alertstate="firing",alertname!~"{also}"}}'
    expected = {"labels": selector(firing), "value": 1}
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": row} for key, row in series(timeline).items()],
                "promql_expr_test": [
                    {"expr": "ALERTS", "eval_time": f"{EVENT - 1}m", "exp_samples": []},
                    {"expr": others, "eval_time": f"{EVENT + waits + 1}m", "exp_samples": [expected]},
                ],
            }
        ],
    }
    written = tmp_path / "test.yaml"
    written.write_text(json.dumps(test))
    done = subprocess.run(["promtool", "test", "rules", written], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_first_event_and_existing_metrics() -> None:
    assert {f"BrokerAuth{name}" for name in FIRST_EVENTS} == alerts().keys()
    assert used(" ".join(rule["expr"] for rule in alerts().values())) <= exported() | set(METRICS)


def test_every_alert_has_its_section_in_the_runbook() -> None:
    headings = set(re.findall(r"^### (BrokerAuth\w+)$", PAGE.read_text(), re.MULTILINE))
    assert headings == alerts().keys()
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == RUNBOOK + name.lower()
        assert rule["labels"]["severity"] in {"page", "ticket"}


@NEEDS_PROMTOOL
def test_suggested_alerts_are_valid(tmp_path: Path) -> None:
    (suggested,) = re.findall(r"^```yaml\n(- alert: .+?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert used(suggested) <= exported()
    written = tmp_path / "rules.yaml"
    written.write_text("groups:\n- name: more\n  rules:\n" + textwrap.indent(suggested, "  "))
    done = subprocess.run(["promtool", "check", "rules", written], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_beginning_of_the_links_can_be_replaced_as_the_file_says(tmp_path: Path) -> None:
    copy = shutil.copy(ALERTS, tmp_path)
    (command,) = re.findall(r"^# +(sed .+)$", ALERTS.read_text(), re.MULTILINE)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602
    assert RUNBOOK not in Path(copy).read_text()
    assert Path(copy).read_text().count("https://wiki.example.net/broker-auth/runbook/#") == len(alerts())
