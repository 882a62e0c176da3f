"""The example configurations are valid, and nats-servers start with them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from broker_auth.deploy.init import initialize, write_zone_keys
from broker_auth.deploy.natsbinary import check_configuration
from broker_auth.deploy.plan import Plan, Topology
from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.settings.load import check
from tests.mixed import TOPOLOGIES

pytestmark = pytest.mark.e2e

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
HOSTS: Final = tuple(f"{name}.example.net" for name in ("nats", "nats1", "nats2", "nats3", "edge1", "edge2"))
PLACEHOLDER: Final = re.compile(r"<([a-z0-9/-]+\.public)>")


def install(topology: Topology, directory: Path) -> Path:
    """Install an example configuration with its files and filled in placeholders; return its path."""
    initialize(Plan(directory=directory, topology=topology, dev_pki=True, hosts=HOSTS))
    pki = directory / "pki"
    if topology is Topology.EDGE:  # init writes one edge, the example has two
        for edge in ("edge1", "edge2"):
            for end in (".pem", ".key"):
                shutil.copy(pki / f"edge{end}", pki / f"{edge}{end}")
                shutil.copy(pki / f"leaf{end}", pki / f"{edge}-leaf{end}")
            write_zone_keys(Workspace(directory, force=False), edge)
    configuration = directory / "broker.conf"
    text = (EXAMPLES / topology / "broker.conf").read_text()
    configuration.write_text(PLACEHOLDER.sub(lambda match: _public(directory, match[1]), text))
    return configuration


def _public(directory: Path, name: str) -> str:
    path = directory / "keys" / name if "/" in name else next(directory.glob(f"*/{name}"))
    return path.read_text().strip()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_example_configuration_is_valid_and_its_servers_start(tmp_path: Path, topology: Topology) -> None:
    report = check(install(topology, tmp_path / "example"), {}, serving=True)
    assert (report.problems, report.warnings) == ((), ())
    assert report.settings
    for broker in report.settings.brokers:
        rendered = tmp_path / "example" / f"{broker.name}.conf"
        rendered.write_text(render(report.settings, broker).replace("/var/lib/nats", str(tmp_path / "store")))
        check_configuration(rendered)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_configuration_with_a_placeholder_is_refused(tmp_path: Path, topology: Topology) -> None:
    configuration = install(topology, tmp_path / "example")
    shutil.copy(EXAMPLES / topology / "broker.conf", configuration)
    refused = {problem.key for problem in check(configuration, {}, serving=True).problems}
    left = [line for line in configuration.read_text().splitlines() if PLACEHOLDER.search(line)]
    assert left
    assert refused == {line.partition(" = ")[0] for line in left}
