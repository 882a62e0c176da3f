"""The same rule for hosts in URLs, listeners and the options of ``init``."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.deploy.init import initialize
from broker_auth.deploy.plan import Plan, Topology
from broker_auth.errors import InputError
from broker_auth.files.reading import BadValue
from broker_auth.settings.keys.values import address, host, url
from tests.settings.builder import Directory, P

GOOD = [
    "localhost",
    "nats_1",
    "_nats",
    "a.b-c.example.net",
    "broker.example.net.",
    "1a",
    "a1",
    "192.0.2.7",
    "[::1]",
    "x" * 63,
    "xn--mnchen-3ya.example",
]
BAD = ["999.1.1.1", "1.2.3", "192.0.2", "1", "a..b", ".a", "a..", ".", "-a", "a-", "a.-b", "a b", "a/b", "a@b", ""]
BAD += ["[::1", "[1::2::3]", "[192.0.2.7]", "[a]", "x" * 64, ".".join(["x" * 60] * 5), "ä", "a\n", "192.0.2.7."]


@pytest.mark.parametrize("text", GOOD)
def test_valid_hosts_are_accepted(text: str) -> None:
    assert host(text) == text.strip("[]")
    assert url("tls")(f"tls://{text}:4222", Path())
    assert address(f"{text}:4222", Path())


@pytest.mark.parametrize("text", BAD)
def test_invalid_hosts_are_refused(text: str) -> None:
    with pytest.raises(BadValue):
        host(text)
    with pytest.raises(BadValue):
        url("tls")(f"tls://{text}:4222", Path())
    with pytest.raises(BadValue):
        address(f"{text}:4222", Path())


@pytest.mark.parametrize("text", ["nats_1", "broker.example.net.", "[::1]", "::1"])
def test_init_accepts_hosts_that_the_configuration_accepts(tmp_path: Path, text: str) -> None:
    plan = Plan(directory=tmp_path / "d", topology=Topology.WEBSOCKET, dev_pki=True, hosts=[text])
    deployment = initialize(plan)
    assert deployment.warnings == ()  # the created certificate names the host
    shown = f"[{text}]" if text == "::1" else text
    assert f"urls = tls://{shown}:4222" in deployment.configuration.read_text()


@pytest.mark.parametrize("text", ["999.1.1.1", "a..b", "[1.2.3.4]", "-a"])
@pytest.mark.parametrize("option", ["hosts", "edge_host", "listen"])
def test_init_refuses_hosts_that_the_configuration_refuses(tmp_path: Path, option: str, text: str) -> None:
    plan = Plan(directory=tmp_path / "d", dev_pki=True, **{option: [text] if option == "hosts" else text})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is not a"):
        initialize(plan)
    assert not (tmp_path / "d").exists()


def test_a_wrong_address_in_a_url_is_a_problem(directory: Directory) -> None:
    directory.set({f"{P}broker.default.urls": "tls://999.1.1.1:4222"})
    (problem,) = directory.check().problems
    assert "'999.1.1.1' is not an address" in str(problem)
