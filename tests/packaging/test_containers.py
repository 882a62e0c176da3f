"""``examples/container`` and docs/containers.md: the build context, and the files of each container."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import ROOT
from tests.packaging.manifests import CONTAINER, DEPLOYMENT, bash, initialize, named_files

COMPOSE: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"]
FILE = (CONTAINER / "Containerfile").read_text()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("container") / "d"
    initialize("containers.md", directory)
    return directory


def mounts(service: str) -> dict[str, str]:
    """Return the outside path of each mounted path inside the container."""
    pairs = [volume.removesuffix(":ro").split(":") for volume in COMPOSE[service]["volumes"]]
    return {inside: outside for outside, inside in pairs}


def test_build_context_contains_only_the_package() -> None:
    lines = (ROOT / ".containerignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines() == lines
    rules = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == needed


def test_base_image_is_pinned_and_health_checks_are_in_compose() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", FILE, re.MULTILINE)
    assert re.search(r":\d+\.\d+\.\d+-", base)
    assert re.findall(r"^FROM (\S+)", FILE, re.MULTILINE) == ["${BASE}", "${BASE}"]
    assert "HEALTHCHECK" not in FILE
    assert all("healthcheck" in service for service in COMPOSE.values())
    assert "--health-cmd" in bash("containers.md")


@pytest.mark.parametrize("name", ["fleet", "edge"])
def test_containers_mount_the_files_of_their_configurations(deployment: Path, name: str) -> None:
    mounted = mounts(name)
    configuration = COMPOSE[name]["command"][-1]
    assert configuration in mounted
    text = (deployment / f"{name}.conf").read_text().replace(str(deployment), DEPLOYMENT)
    assert named_files(text) | {configuration} == set(mounted)
    ports = {int(port) for port in re.findall(r'listen: "0\.0\.0\.0:(\d+)"', text)}
    assert ports == {int(port.split(":")[0]) for port in COMPOSE[name]["ports"]}
    assert mounted.keys() - {"/data"} == {outside for outside in mounted.values() if outside.startswith(DEPLOYMENT)}


def test_service_container_mounts_only_the_service_keys(deployment: Path) -> None:
    mounted = mounts("service")
    text = (deployment / "broker.conf").read_text()
    own = re.findall(
        r"^plugin\.(?!broker_auth\.broker\.\w+\.server)\S+ = (?:file:)?((?:pki|keys)/\S+)$", text, re.MULTILINE
    )
    for path in own:
        assert any(f"{DEPLOYMENT}/{path}".startswith(place) for place in mounted), path
    assert not [place for place in mounted if place.endswith(("server.key", "edge.key", "leaf.key", "ca.key"))]


def test_mounted_files_are_readable_by_the_container_users(deployment: Path) -> None:
    """The page's chgrp and chmod grant access; other files must be readable by all users."""
    script = bash("containers.md")
    groups = {
        group: set(rest.split()) for group, rest in re.findall(r"^chgrp (?:-R )?(\d+) (.+)$", script, re.MULTILINE)
    }
    for name, service in COMPOSE.items():
        group = groups[service["user"].partition(":")[2]]
        for place in mounts(name):
            path = Path(place)
            if path.is_relative_to(DEPLOYMENT) and str(path.relative_to(DEPLOYMENT)) not in group:
                assert (deployment / path.relative_to(DEPLOYMENT)).stat().st_mode & 0o004, place
