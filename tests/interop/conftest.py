"""Opt-in: without ``INTEROP=1`` nothing here is collected; ``make test-interop`` sets it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.choria_program import Choria
from tests.interop.golang import Go, GoMissing, build
from tests.interop.keyfiles import KeyFiles

collect_ignore_glob = [] if os.environ.get("INTEROP") == "1" else ["test_*.py"]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Go]:
    """choria-io/tokens, running."""
    try:
        program = build(tmp_path_factory.mktemp("go"))
    except GoMissing as missing:
        pytest.skip(f"interoperation with Go is not tested: {missing}")
    with Go(program) as running:
        yield running


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    """Key files as Choria keeps them."""
    return KeyFiles(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def choria(tmp_path: Path) -> Choria:
    """The ``choria`` program: named by ``CHORIA``, else on the path."""
    program = os.environ.get("CHORIA") or shutil.which("choria")
    if program is None:
        pytest.skip("interoperation with Choria is not tested: there is no 'choria' on the path, nor in $CHORIA")
    return Choria(Path(program), tmp_path)


@pytest.fixture
def choria_server(tmp_path: Path) -> Choria:
    """A ``choria`` whose server can be provisioned in its working directory: ``choria/main.go`` beside this file."""
    program = os.environ.get("CHORIA_SERVER")
    if program is None:
        pytest.skip(
            "a real Choria Server is not tested: $CHORIA_SERVER names none; 'make test-interop-choria' builds it"
        )
    return Choria(Path(program), tmp_path)
