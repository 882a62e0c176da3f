"""``examples/kubernetes`` and docs/kubernetes.md match each other, the files of ``init``, and the service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker_auth.settings.load import check
from tests.docs.pages import DOCS, fenced
from tests.packaging.manifests import (
    DEPLOYMENT,
    KUBERNETES,
    created_objects,
    documents,
    initialize,
    mounted,
    named_files,
    workloads,
)

STATE = "/var/lib/broker-auth"
SERVICES = [item for item in workloads() if item["metadata"]["name"] == "broker-auth"]
SERVERS = [item for item in workloads() if item["metadata"]["name"] != "broker-auth"]


def named(workload: dict[str, Any]) -> str:
    return f"{workload['metadata']['namespace']}/{workload['metadata']['name']}"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kubernetes") / "d"
    initialize("kubernetes.md", directory)
    return directory


def test_page_creates_exactly_the_objects_that_pods_mount(deployment: Path) -> None:
    used = set()
    for workload in workloads():
        namespace = workload["metadata"]["namespace"]
        for _, kind, name, key, _ in mounted(workload):
            assert key in [Path(path).name for path in created_objects()[namespace, kind.lower(), name]]
            used.add((namespace, kind.lower(), name, key))
    for (namespace, kind, name), paths in created_objects().items():
        for path in paths:
            assert (deployment / path).is_file()
            assert (namespace, kind, name, Path(path).name) in used  # a pod needs each file


@pytest.mark.parametrize("workload", SERVERS, ids=named)
def test_servers_mount_every_file_of_their_configuration(deployment: Path, workload: dict[str, Any]) -> None:
    files = {path for path, *_ in mounted(workload)}
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    configuration = container["command"][2]
    replicas = workload["spec"]["replicas"]
    for number in range(replicas):
        path = configuration.replace("$(POD_NAME)", f"{workload['metadata']['name']}-{number}")
        assert path in files
        text = (deployment / Path(path).name).read_text().replace(str(deployment), DEPLOYMENT)
        assert named_files(text) <= files | writable
        ports = {int(port) for port in re.findall(r'listen: "0\.0\.0\.0:(\d+)"', text)}
        assert ports == {port["containerPort"] for port in container["ports"]}


@pytest.mark.parametrize("workload", SERVICES, ids=named)
def test_service_starts_with_only_the_secrets_of_its_zone(
    deployment: Path, tmp_path: Path, workload: dict[str, Any]
) -> None:
    """Use the layout of kubelet: symbolic links into ``..data``, mode 0440, and a group of the process."""
    zone = workload["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    namespace = workload["metadata"]["namespace"]
    data = tmp_path / "..data"
    for place, kind, name, key, mode in mounted(workload):
        (source,) = [path for path in created_objects()[namespace, kind.lower(), name] if Path(path).name == key]
        target = data / Path(place).relative_to(DEPLOYMENT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(deployment / source, target)
        assert mode == 0o440
        target.chmod(mode)
        os.chown(target, -1, os.getegid())
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(f"..data/{path.name}")
    report = check(tmp_path / "broker.conf", {}, zone=zone)
    assert [str(problem) for problem in report.problems] == []
    assert report.settings
    assert [broker.zone for broker in report.settings.brokers] == [zone]


def test_file_of_revocations_is_made_as_the_page_says(
    deployment: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = (DOCS / "kubernetes.md").read_text()
    (lines,) = [block for block in fenced(text, "ini") if "plugin.broker_auth.revocations " in block[0]]
    (added,) = [yaml.safe_load("\n".join(block)) for block in fenced(text, "yaml")]
    pod = added["template"]["spec"]
    (container,) = pod["initContainers"]
    for one in (container, *pod["containers"]):
        places = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
        assert places == {"configuration": DEPLOYMENT, "state": STATE}
    assert [one["metadata"]["name"] for one in added["volumeClaimTemplates"]] == ["state"]
    directory = tmp_path_factory.mktemp("k")  # a short path, because sockets are beside the file
    shutil.copytree(deployment, directory, dirs_exist_ok=True)
    config = directory / "broker.conf"
    config.write_text(config.read_text() + "\n".join(lines).replace(STATE, str(directory)) + "\n")
    command = container["command"][2].replace(STATE, str(directory))
    command = command.replace("/opt/broker-auth/bin/broker-auth", f"{sys.executable} -m broker_auth")
    for _ in range(2):  # when a pod starts again too
        subprocess.run(["sh", "-c", command], check=True, env=os.environ | {"BROKER_AUTH_CONFIG": str(config)})
    assert [str(problem) for problem in check(config, {}).problems] == []


def test_edge_namespace_contains_no_fleet_secret() -> None:
    edge = {path for (namespace, *_), paths in created_objects().items() if namespace == "nats-edge" for path in paths}
    keys = {path for path in edge if not path.endswith((".pem", ".conf"))}
    assert keys == {
        "pki/edge.key",
        "pki/edge-leaf.key",
        *(f"keys/edge/{n}.seed" for n in ("issuer", "service", "xkey")),
    }
    for workload in workloads():
        if workload["metadata"]["namespace"] == "nats-edge":
            assert not [path for path, *_ in mounted(workload) if path.endswith(("service.key", "_password"))]


def test_ca_signer_and_break_glass_keys_are_in_no_object() -> None:
    names = {Path(path).name for paths in created_objects().values() for path in paths}
    assert not names & {"ca.key", "leaf-ca.key", "signer.key", "break-glass.seed"}


@pytest.mark.parametrize("workload", workloads(), ids=named)
def test_pods_are_restricted(workload: dict[str, Any]) -> None:
    template = workload["spec"]["template"]
    spec = template["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
    assert workload["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", container["image"])


def test_selectors_and_ports_match_the_pods() -> None:
    pods = [(item["metadata"]["namespace"], item["spec"]["template"]) for item in workloads()]
    for item in documents():
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(item["kind"])
        if selector is None:
            continue
        selected = selector(item["spec"]).items()
        (template,) = [
            pod
            for namespace, pod in pods
            if namespace == item["metadata"]["namespace"] and selected <= pod["metadata"]["labels"].items()
        ]
        if item["kind"] == "Service":
            ports = {port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
            assert {port["port"] for port in item["spec"]["ports"]} <= ports


def test_cluster_hosts_on_the_page_match_the_stateful_set() -> None:
    (fleet,) = [item for item in workloads() if item["kind"] == "StatefulSet"]
    name, service, namespace = fleet["metadata"]["name"], fleet["spec"]["serviceName"], fleet["metadata"]["namespace"]
    hosts = re.findall(r"--fleet-host (\S+)", (DOCS / "kubernetes.md").read_text())
    expected = [f"{name}-{n}.{service}.{namespace}.svc.cluster.local" for n in range(fleet["spec"]["replicas"])]
    assert hosts == expected


def test_manifests_match_the_schemas_of_kubernetes() -> None:
    """Runs only if kubernetes-validate, which contains the schemas, is installed."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for item in documents():
        validate.validate(item, validate.latest_version(), strict=True)
    assert len(list(KUBERNETES.glob("*.yaml"))) == 3
