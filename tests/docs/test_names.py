"""Keys, environment variables, metrics, files and tests in the documentation exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from broker_auth.cli import report_expiring
from broker_auth.cli.token_formats import METRICS
from broker_auth.daemon.metrics import ServiceCollector
from broker_auth.daemon.state import ZoneState
from broker_auth.natsio.bucket import NODES, OUTPOSTS
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.keys.key import PREFIX
from tests.docs.pages import PAGES, ROOT, fenced

# This page lists keys of Choria that have no effect here.
OF_CHORIA: Final = "moving-from-choria.md"
_KEY: Final = re.compile(r"`(plugin\.[A-Za-z_.<>0-9]+[A-Za-z_>0-9])(?: = [^`]*)?`")
_VARIABLE: Final = re.compile(r"\bBROKER_AUTH_[A-Z_]+\b")
_METRIC: Final = re.compile(r"\bbroker_auth_[a-z_]+\b(?!\.|/)")
_LINK: Final = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
_TEST: Final = re.compile(r"`(tests/[a-z_/]+\.py)(?:::(\w+))?`")
_FILE: Final = re.compile(r"`((?:examples|broker_auth)/[a-z0-9_/.-]+)`")
# Variables of the program, not configuration keys.
_PROGRAM: Final = {"BROKER_AUTH_DEBUG", "BROKER_AUTH_CONFIG", "BROKER_AUTH_COMPLETE", "BROKER_AUTH_NATS_SERVER"}
_BUCKETS: Final = {NODES.name, OUTPOSTS.name}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def known(key: str) -> bool:
    """Return whether this is a key, with a name or placeholder where it needs a name."""
    return keytable.find(key) is not None or keytable.find(key.replace("<name>", "x")) is not None


@pages
def test_every_key_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    keys = set(_KEY.findall(text))
    if page.name == OF_CHORIA:
        keys = {key for key in keys if key.startswith(PREFIX)}
    keys |= {line.partition("=")[0].strip() for block in fenced(text, "ini") for line in block if "=" in line}
    assert {key for key in keys if not known(key)} == set()


@pages
def test_every_environment_variable_exists(page: Path) -> None:
    made = {re.sub(r"<[^>]*>", "X", name) for name in keytable.variables(("x", "fleet", "edge"), ("x",), ("x", "edge"))}
    named = set(_VARIABLE.findall(re.sub(r"<NAME>", "X", page.read_text(encoding="utf-8"))))
    assert named - made - _PROGRAM - _BUCKETS == set()


@pages
def test_every_metric_exists(page: Path) -> None:
    named = set(_METRIC.findall(page.read_text(encoding="utf-8")))
    assert {name for name in named if name not in exported()} == set()


def exported() -> set[str]:
    """Return every metric; those with labels have only a header while nothing is counted."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(lambda: [ZoneState(zone="fleet")], lambda: 0.0))
    heads = re.findall(r"^# TYPE (\w+) (\w+)", generate_latest(registry).decode(), re.MULTILINE)
    heads += [(name, "gauge") for name in (*dict(METRICS), *report_expiring.METRICS)]
    parts = {"histogram": ("_bucket", "_count", "_sum")}
    return {name for name, _ in heads} | {name + part for name, kind in heads for part in parts.get(kind, ())}


@pages
def test_every_file_and_test_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in _LINK.findall(text):
        assert (page.parent / target).exists(), target
    for file in _FILE.findall(text):
        assert (ROOT / file).exists(), file
    for file, test in _TEST.findall(text):
        assert (ROOT / file).exists(), file
        assert not test or re.search(rf"def {test}\b", (ROOT / file).read_text(encoding="utf-8")), test


def test_wrong_name_is_detected() -> None:
    assert known("plugin.broker_auth.broker.<name>.urls")
    assert known("plugin.broker_auth.broker.fleet.server.leaf.tls.ca")
    assert not known("plugin.broker_auth.broker.urls")
    assert not known("plugin.broker_auth.xkey_seed")
    assert "broker_auth_decisions_total" in exported()
    assert "broker_auth_decision_seconds_bucket" in exported()
    assert "broker_auth_decision_total" not in exported()
