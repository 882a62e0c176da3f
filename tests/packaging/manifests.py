"""The parsed manifests and pages: files that pods mount, and objects that a page's commands create."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from click.testing import CliRunner

from broker_auth.cli import main
from tests.docs.pages import DOCS, ROOT, fenced
from tests.docs.test_commands import calls

KUBERNETES: Final = ROOT / "examples" / "kubernetes"
CONTAINER: Final = ROOT / "examples" / "container"
DEPLOYMENT: Final = "/etc/broker-auth"
_FILE: Final = re.compile(r'(?:cert_file|key_file|ca_file|store_dir): "([^"]+)"')


def documents() -> list[dict[str, Any]]:
    """Return every object of the manifests."""
    return [item for path in sorted(KUBERNETES.glob("*.yaml")) for item in yaml.safe_load_all(path.read_text())]


def workloads() -> list[dict[str, Any]]:
    """Return the objects that have pods."""
    return [item for item in documents() if item["kind"] in ("Deployment", "StatefulSet")]


def bash(page: str) -> str:
    """Return the shell commands of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return "\n".join(line for block in fenced(text, "bash") for line in block)


def initialize(page: str, directory: Path) -> None:
    """Run the ``init`` of a page with another directory."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (call,) = [call for block in fenced(text, "console") for call in calls(block) if call[0] == "init"]
    assert call[1] == DEPLOYMENT
    done = CliRunner().invoke(main, ["init", str(directory), *call[2:]])
    assert done.exit_code == 0, done.output


def created_objects() -> dict[tuple[str, str, str], list[str]]:
    """Return the files of each object that the page creates, by its namespace, kind and name."""
    files = {}
    for line in bash("kubernetes.md").replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[:2] == ["kubectl", "-n"] and words[3] == "create":
            namespace, kind = words[2], words[4]
            rest = words[6:] if kind == "secret" else words[5:]
            files[namespace, kind, rest[0]] = [word.removeprefix("--from-file=") for word in rest[1:]]
    return files


def mounted(workload: dict[str, Any]) -> Iterator[tuple[str, str, str, str, int | None]]:
    """Yield each file of a pod: its path, then kind, name and key of the object that holds it, and its mode."""
    namespace, spec = workload["metadata"]["namespace"], workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in spec["volumes"]:
        place = places[volume["name"]]
        if "projected" in volume:
            for source in volume["projected"]["sources"]:
                ((kind, content),) = source.items()
                for item in content["items"]:
                    mode = volume["projected"]["defaultMode"]
                    yield f"{place}/{item['path']}", kind, content["name"], item["key"], mode
        else:
            kind = "configMap" if "configMap" in volume else "secret"
            name = volume[kind]["name" if kind == "configMap" else "secretName"]
            for path in created_objects()[namespace, kind.lower(), name]:
                key = Path(path).name
                yield f"{place}/{key}", kind, name, key, volume[kind].get("defaultMode")


def named_files(configuration: str) -> set[str]:
    """Return the files and directories in a nats-server's configuration."""
    return set(_FILE.findall(configuration))
