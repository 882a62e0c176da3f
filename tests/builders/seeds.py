"""Seed files of a deployment."""

from __future__ import annotations

from pathlib import Path

from broker_auth.natsio.nkey import NkeyKind, generate_seed


def write_secret(path: Path, text: str) -> Path:
    """Write a file that only its owner can read, and return it."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def write_zone_seeds(directory: Path, prefix: str = "") -> None:
    """Write the seeds of a zone: ``user.seed``, ``account.seed`` and ``curve.seed``, after ``prefix``."""
    for name, kind in (("user", NkeyKind.USER), ("account", NkeyKind.ACCOUNT), ("curve", NkeyKind.CURVE)):
        write_secret(directory / f"{prefix}{name}.seed", generate_seed(kind))
