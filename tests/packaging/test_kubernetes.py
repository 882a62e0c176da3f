"""``examples/kubernetes`` and docs/kubernetes.md fit each other, what ``init`` writes, and the service."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from broker_auth.settings.load import check
from tests.docs.pages import DOCS
from tests.packaging.manifests import (
    DEPLOYMENT,
    KUBERNETES,
    documents,
    initialize,
    made,
    mounted,
    named_files,
    workloads,
)

SERVICES = [item for item in workloads() if item["metadata"]["name"] == "broker-auth"]
SERVERS = [item for item in workloads() if item["metadata"]["name"] != "broker-auth"]


def named(workload: dict[str, Any]) -> str:
    return f"{workload['metadata']['namespace']}/{workload['metadata']['name']}"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("kubernetes") / "d"
    initialize("kubernetes.md", directory)
    return directory


def test_every_object_that_pods_mount_is_made_by_the_page(deployment: Path) -> None:
    used = set()
    for workload in workloads():
        namespace = workload["metadata"]["namespace"]
        for _, kind, name, key, _ in mounted(workload):
            assert key in [Path(path).name for path in made()[namespace, kind.lower(), name]]
            used.add((namespace, kind.lower(), name, key))
    for (namespace, kind, name), paths in made().items():
        for path in paths:
            assert (deployment / path).is_file()
            assert (namespace, kind, name, Path(path).name) in used  # nothing is handed out that no pod needs


@pytest.mark.parametrize("workload", SERVERS, ids=named)
def test_servers_find_every_file_that_their_configuration_names(deployment: Path, workload: dict[str, Any]) -> None:
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
def test_the_service_starts_with_the_secrets_of_its_zone_alone(
    deployment: Path, tmp_path: Path, workload: dict[str, Any]
) -> None:
    """Laid out as kubelet does: links into a directory of the moment, mode 0440, a group of the process."""
    zone = workload["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    namespace = workload["metadata"]["namespace"]
    data = tmp_path / "..data"
    for place, kind, name, key, mode in mounted(workload):
        (source,) = [path for path in made()[namespace, kind.lower(), name] if Path(path).name == key]
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


def test_no_secret_of_the_fleet_is_in_the_namespace_of_the_edge() -> None:
    edge = {path for (namespace, *_), paths in made().items() if namespace == "nats-edge" for path in paths}
    keys = {path for path in edge if not path.endswith((".pem", ".conf"))}
    assert keys == {
        "pki/edge.key",
        "pki/edge-leaf.key",
        *(f"keys/edge/{n}.seed" for n in ("issuer", "service", "xkey")),
    }
    for workload in workloads():
        if workload["metadata"]["namespace"] == "nats-edge":
            assert not [path for path, *_ in mounted(workload) if path.endswith(("service.key", "_password"))]


def test_no_key_of_a_ca_nor_of_the_signer_nor_break_glass_seed_is_handed_out() -> None:
    names = {Path(path).name for paths in made().values() for path in paths}
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


def test_objects_refer_to_one_another() -> None:
    pods = [(item["metadata"]["namespace"], item["spec"]["template"]) for item in workloads()]
    for item in documents():
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        }.get(item["kind"])
        if selector is None:
            continue
        wanted = selector(item["spec"]).items()
        (template,) = [
            pod
            for namespace, pod in pods
            if namespace == item["metadata"]["namespace"] and wanted <= pod["metadata"]["labels"].items()
        ]
        if item["kind"] == "Service":
            ports = {port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
            assert {port["port"] for port in item["spec"]["ports"]} <= ports


def test_members_have_the_hosts_that_the_page_gives_them() -> None:
    (fleet,) = [item for item in workloads() if item["kind"] == "StatefulSet"]
    name, service, namespace = fleet["metadata"]["name"], fleet["spec"]["serviceName"], fleet["metadata"]["namespace"]
    hosts = re.findall(r"--fleet-host (\S+)", (DOCS / "kubernetes.md").read_text())
    expected = [f"{name}-{n}.{service}.{namespace}.svc.cluster.local" for n in range(fleet["spec"]["replicas"])]
    assert hosts == expected


def test_manifests_match_the_schemas_of_kubernetes() -> None:
    """Where `pip install kubernetes-validate` was run; it brings the schemas."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for item in documents():
        validate.validate(item, validate.latest_version(), strict=True)
    assert len(list(KUBERNETES.glob("*.yaml"))) == 3
