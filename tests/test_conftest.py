"""The common fixtures: only marked tests start a server, and the lists of unmeasured tests name existing paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.errors import OperationError
from broker_auth.sandbox.natsserver import NatsServer
from tests.conftest import PROCESSES_UNMEASURED, ROOT, UNMEASURED


def test_no_server_starts_without_the_mark(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("listen: 127.0.0.1:-1\n")
    with pytest.raises(OperationError, match="has to be marked e2e"):
        NatsServer(config).start()


@pytest.mark.e2e
def test_a_server_starts_with_the_mark(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("listen: 127.0.0.1:-1\n")
    with NatsServer(config) as server:
        assert server.running


@pytest.mark.parametrize("place", [*UNMEASURED, *PROCESSES_UNMEASURED])
def test_unmeasured_places_exist(place: str) -> None:
    assert (ROOT / place).exists()
