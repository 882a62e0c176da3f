"""Log lines as text and as JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from broker_auth.audit.record import encode
from broker_auth.audit.sinks import DenialLog, LogAudit
from broker_auth.logs.formats import LogFormat, formatter
from tests.audit.records import admitted, denied, refused
from tests.deadlines import HANG_SECONDS

KEYS = {"time", "level", "process", "logger", "message"}
HOSTILE = "a\nfake \x9b2J\u202e"


def shown(record: logging.LogRecord) -> dict[str, object]:
    """Return a log record as its line in JSON, parsed."""
    line = formatter(LogFormat.JSON).format(record)
    assert line.isprintable()
    values: dict[str, object] = json.loads(line)
    return values


def test_text_stays_one_line() -> None:
    record = logging.makeLogRecord({"msg": "broker said %s", "args": (HOSTILE,), "name": "n", "levelname": "INFO"})
    line = formatter(LogFormat.TEXT).format(record)
    assert line.endswith(" n: broker said a\\x0afake \\x9b2J\\u202e")


def test_json_is_one_object_with_the_time_in_utc() -> None:
    record = logging.makeLogRecord({"msg": "broker said %s", "args": (HOSTILE,), "levelname": "WARNING", "name": "n"})
    record.created, record.process = 1_700_000_000.25, 7
    assert shown(record) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "process": 7,
        "logger": "n",
        "message": "broker said a\\x0afake \\x9b2J\\u202e",
    }


def test_traceback_is_one_value_in_json() -> None:
    try:
        raise ValueError("because")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    values = shown(record)
    assert values.keys() == KEYS | {"traceback"}
    assert str(values["traceback"]).endswith("ValueError: because")
    assert "\nValueError: because" in formatter(LogFormat.TEXT).format(record)


def test_denial_in_json_has_keys_to_search_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    DenialLog().write(admitted(), denied(name=HOSTILE, broker="edge", code="no_credential"), refused(reason=""))
    ours, servers = map(shown, caplog.records)
    assert ours.keys() == servers.keys() == KEYS | {"name", "host", "broker", "code"}
    assert (ours["name"], ours["broker"], ours["code"]) == (HOSTILE, "edge", "no_credential")
    assert servers["code"] == "server_error"
    assert "fleet-1 refused" in str(servers["message"])
    assert "no answer in time" in str(servers["message"])


def test_record_in_json_is_its_own_object(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    LogAudit().write(denied())
    assert shown(caplog.records[0]) == json.loads(encode(denied()))
    assert encode(denied()).decode().rstrip() in formatter(LogFormat.TEXT).format(caplog.records[0])


def test_failed_start_is_logged_in_json() -> None:
    command = [sys.executable, "-m", "broker_auth", "serve", "--config", "/missing/broker.conf", "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert line["level"] == "error"
    assert "/missing/broker.conf" in line["message"]
