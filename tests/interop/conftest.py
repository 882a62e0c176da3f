"""Opt-in: these tests are collected only with ``INTEROP=1``, which ``make test-interop`` sets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.choria_program import Choria
from tests.interop.golang import Go, GoMissing, build
from tests.interop.keyfiles import KeyFiles
from tests.interop.provisioning import version
from tests.interop.tried import NONE, PROPERTY, Programs, attempts, missing, name, servers, table

collect_ignore_glob = [] if os.environ.get("INTEROP") == "1" else ["test_*.py"]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Go]:
    """Yield the running Go program with choria-io/tokens."""
    try:
        program = build(tmp_path_factory.mktemp("go"))
    except GoMissing as missing:
        pytest.skip(f"interoperation with Go is not tested: {missing}")
    with Go(program) as running:
        yield running


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    """Return key files in Choria's format."""
    return KeyFiles(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def choria(tmp_path: Path) -> Choria:
    """Return the ``choria`` program: from ``CHORIA``, else from the path."""
    program = os.environ.get("CHORIA") or shutil.which("choria")
    if program is None:
        pytest.skip("interoperation with Choria is not tested: there is no 'choria' on the path, nor in $CHORIA")
    if reason := missing("CHORIA", Path(program), "'make test-interop-choria' builds it"):
        pytest.skip(f"interoperation with Choria is not tested: {reason}")
    return Choria(Path(program), tmp_path)


@pytest.fixture
def choria_server(tmp_path: Path) -> Choria:
    """Return the ``choria`` built from ``choria/main.go``, whose server is provisioned in its working directory."""
    named = os.environ.get("CHORIA_SERVER")
    program = Path(named) if named else None
    if reason := missing("CHORIA_SERVER", program, "'make test-interop-choria' builds it"):
        pytest.skip(f"a real Choria Server is not tested: {reason}")
    assert program is not None
    return Choria(program, tmp_path)


@pytest.fixture(params=servers() or (None,), ids=name)
def programs(request: pytest.FixtureRequest) -> Programs:
    """Return Choria's programs for complete provisioning; without them the table shows that nothing was tried."""
    server, client = request.param, os.environ.get("CHORIA")
    named = os.environ.get("CHORIA_PROVISIONER")
    provisioner = Path(named) if named else None
    lacking = [
        missing("CHORIA_SERVERS", server, "'make test-interop-choria' builds them"),
        missing("CHORIA", Path(client) if client else None, "'make test-interop-choria' builds it"),
        missing("CHORIA_PROVISIONER", provisioner, "build one from a checkout of it"),
    ]
    shape = request.node.callspec.params["shape"]
    what = request.node.get_closest_marker("what").args[0].format(**request.node.callspec.params)
    versions = [version(server) if server and server.is_file() else NONE]
    # The provisioner insists on a configuration for Choria, which may be any file here.
    options = ("--choria-config", __file__)
    versions.append(version(provisioner, *options) if provisioner and provisioner.is_file() else NONE)
    request.node.user_properties.append((PROPERTY, (*versions, shape.mode, shape.topology.value, what)))
    if reasons := [reason for reason in lacking if reason]:
        pytest.skip("; ".join(reasons))
    assert client is not None
    assert provisioner is not None
    return Programs(server, Path(client), provisioner)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which provisioning tests ran, with which programs, and which were skipped."""
    if results := attempts(terminalreporter.stats):
        terminalreporter.section("whole provisionings")
        for line in table(results):
            terminalreporter.write_line(line)
