"""A command waits until every zone of the service confirms what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.daemon import confirmation
from broker_auth.daemon.confirmation import confirm
from broker_auth.daemon.pidfile import PidFile, ZoneLine
from broker_auth.errors import OperationError


def test_command_waits_until_every_zone_confirms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pid"
    with pytest.raises(OperationError, match="no service runs"):
        confirm(file, "new")
    held = PidFile(file)
    held.write({"fleet": ZoneLine(1, 0, "new"), "edge": ZoneLine(0, 0, "new")})
    assert confirm(file, "new") == ["fleet", "edge"]
    monkeypatch.setattr(confirmation, "CONFIRM_SECONDS", 0.0)
    for edge in ("old", ""):
        held.write({"fleet": ZoneLine(1, 0, "new"), "edge": ZoneLine(0, 0, edge)})
        with pytest.raises(OperationError, match="workers of edge have not confirmed"):
            confirm(file, "new")
    held.remove()
