"""The fixture that every test of configurations starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed
from tests.settings.builder import SYSTEM_PASSWORD, Directory, certificate, private_pem


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    """A directory whose configuration has neither problems nor warnings."""
    made = Directory(tmp_path)
    for kind in (NkeyKind.USER, NkeyKind.ACCOUNT, NkeyKind.CURVE):
        made.write(f"{kind.name.lower()}.seed", generate_seed(kind) + "\n")
    made.write("system.password", SYSTEM_PASSWORD + "\n")
    for name in ("ca", "signer", "service"):
        pem, key = certificate(name)
        made.write(f"{name}.pem", pem, 0o644)
        made.write(f"{name}.key", private_pem(key))
    return made
