"""Configurations whose hosts share revocations, and so the nodes of tokens for a number of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.settings.revocation_store import create

P: Final = "plugin.broker_auth."


def shared_revocations(directory: Path) -> dict[str, str]:
    """Return the keys for a deployment in ``directory`` that ``init`` writes, and write the file that they name."""
    directory.mkdir(mode=0o700, exist_ok=True)
    create(directory / "revoked.json")
    return {f"{P}revocations": "revoked.json", f"{P}revocations_bucket": "true"}


def bucket_keys(directory: Path) -> dict[str, str]:
    """Return the keys for a configuration in ``directory`` without brokers, and write the file that they name."""
    return shared_revocations(directory) | {
        f"{P}pid_file": "pid",
        f"{P}broker.default.urls": "tls://127.0.0.1:4222",
        f"{P}broker.default.server.store_dir": "/srv/streams",
    }
