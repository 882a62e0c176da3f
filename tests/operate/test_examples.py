"""The files under ``examples/`` match the service: metrics, commands, keys, and the systemd unit."""

from __future__ import annotations

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
from broker_auth.deploy import brokerconf
from broker_auth.deploy.plan import Layout, OwnFiles, Plan
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.model import Role

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [
    path
    for directory in ("container", "grafana", "kubernetes", "logrotate", "systemd")
    for path in sorted((EXAMPLES / directory).iterdir())
]
UNIT = EXAMPLES / "systemd" / "broker-auth.service"
UNITS = {"broker-auth.service": "/opt/broker-auth/bin/broker-auth", "nats-server@.service": "/usr/bin/nats-server"}


def text_of_init(layout: Layout) -> str:
    files = OwnFiles(**{name: Path("/d/file.pem") for name in OwnFiles.__dataclass_fields__})
    plan = Plan(directory=Path("/d"), layout=layout, files=files)
    users = brokerconf.ZoneUsers("U", "U")
    return brokerconf.text(plan, users={"fleet": users, "edge": users}, leaf_users={"edge": Role.EDGE})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_keys_and_commands_in_examples_exist(path: Path) -> None:
    text = path.read_text()
    for key in re.findall(r"\bplugin\.[a-z_.]+[a-z_]", text):
        assert keytable.find(key), key
    for command in re.findall(r"(?<![\w/.-])broker-auth (serve|reload|why|doctor|config|token|explain|report)\b", text):
        assert main.get_command(None, command), command  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_units(tmp_path: Path, name: str) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / name
    text = (EXAMPLES / "systemd" / name).read_text()
    assert UNITS[name] in text
    unit.write_text(text.replace(UNITS[name], str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False, timeout=60
    )
    # Of other units on the machine it may complain as it likes.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if name.split(".")[0] in line]
    assert not complaints


def test_unit_users_are_created_and_directories_match_init() -> None:
    made = set(re.findall(r"^u (\S+) ", (EXAMPLES / "systemd" / "broker-auth.sysusers").read_text(), re.MULTILINE))
    users = set()
    for name in UNITS:
        text = (EXAMPLES / "systemd" / name).read_text()
        users |= set(re.findall(r"^(?:User|Group)=(.+)$", text, re.MULTILINE))
    assert users == made
    written = text_of_init(Layout.SYSTEM)
    for unit, kind, path in (
        ("broker-auth.service", "LogsDirectory", "/var/log/broker-auth"),
        ("broker-auth.service", "RuntimeDirectory", "/run/broker-auth"),
        ("nats-server@.service", "StateDirectory", "/var/lib/nats"),
    ):
        text = (EXAMPLES / "systemd" / unit).read_text()
        assert f"{kind}={path.rpartition('/')[2]}\n" in text
        assert path in written


def test_unit_matches_the_notifications_of_the_service() -> None:
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


@pytest.mark.parametrize("name", ["edge", "mixed", "single", "websocket"])
def test_configurations_name_a_kick_user_where_they_name_a_break_glass_user(name: str) -> None:
    keys = set(re.findall(r"^(plugin\.\S+) =", (EXAMPLES / name / "broker.conf").read_text(), re.MULTILINE))
    assert all(keytable.find(key) for key in keys)
    zones = {key.removesuffix("break_glass_nkey") for key in keys if key.endswith("break_glass_nkey")}
    assert zones
    assert keys >= {f"{zone}{key}" for zone in zones for key in ("kick_nkey", "kick_seed_file")}
