"""Contexts of the ``nats`` command, written by ``init``, log in as the right users."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from broker_auth.deploy.plan import Topology
from broker_auth.files.writing import write_private
from broker_auth.sandbox.client import Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from tests.mixed import TOPOLOGIES

pytestmark = pytest.mark.e2e

NATS: Final = shutil.which("nats")  # 0.5 or newer, which reads passwords from referenced files
ACCOUNTS: Final = {"member": "choria", "provisioner": "provisioning", "operator": "system", "node": "provisioning"}


def read(sandbox: Sandbox) -> dict[str, dict[str, str]]:
    directory = sandbox.directory / "contexts/nats/context"
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def resolved(value: str) -> str:
    """Return the content of a referenced file."""
    assert value.startswith("file:///")
    return Path(value.removeprefix("file://")).read_text().strip()


def credentials(context: Mapping[str, str]) -> Credentials:
    """Return the credentials of a context as the ``nats`` command reads them."""
    return Credentials(
        ca=Path(context["ca"]),
        certificate=Path(context["cert"]) if "cert" in context else None,
        key=Path(context["key"]) if "key" in context else None,
        user=context.get("user", ""),
        password=resolved(context["password"]) if "password" in context else "",
        token=resolved(context["token"]) if "token" in context else "",
    )


@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_context_logs_in_as_its_user(tmp_path: Path, topology: Topology) -> None:
    async with Sandbox(tmp_path / "sandbox", topology) as sandbox:
        contexts = read(sandbox)
        assert set(contexts) == ({"node"} if topology is Topology.SINGLE else set(ACCOUNTS))
        write_private(sandbox.directory / "provisioning.jwt", sandbox.node_issuer.node_token().encode() + b"\n")
        for name, context in contexts.items():
            session = await connect(context["url"], f"{name}.example.net", credentials(context))
            await session.close()
            record = sandbox.audit_record(f"{name}.example.net")
            assert record
            assert (record.decision, record.account) == ("admit", ACCOUNTS[name])
        if NATS is not None:
            for name in contexts:
                _publish_with_nats(sandbox, name)


def _publish_with_nats(sandbox: Sandbox, name: str) -> None:
    subjects: dict[str, Any] = {"operator": "$SYS.REQ.SERVER.PING", "node": "provisioning.registration.x"}
    subject = subjects.get(name, "provisioning.node.x")
    done = subprocess.run(
        [NATS or "nats", "--context", name, "--connection-name", "x.example.net", "pub", subject, "x"],
        env=os.environ | {"XDG_CONFIG_HOME": str(sandbox.directory / "contexts")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("Published 1 byte", done.stdout + done.stderr)
