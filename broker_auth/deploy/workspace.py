"""Writing a deployment's files: nothing is overwritten by accident, and a failure leaves no half."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from broker_auth.errors import InputError
from broker_auth.files.ownership import directory_objection
from broker_auth.files.writing import write_private

_BEYOND_GROUP_READ: Final = 0o027  # group may write, others may do anything


class Workspace:
    """Files under one directory, written one by one and taken back together if a later step fails."""

    def __init__(self, directory: Path, *, force: bool) -> None:
        self.directory = directory
        self._force = force
        self._created: list[Path] = []
        self._replaced: list[tuple[Path, bytes]] = []

    def path(self, name: str) -> Path:
        """The path of a file of the deployment."""
        return self.directory / name

    def require_absent(self, names: Iterable[str]) -> None:
        """Refuse to start where something would be overwritten.

        Raises:
            InputError: some of the files are there and ``force`` is not given; all are named.
        """
        there = [name for name in names if os.path.lexists(self.path(name))]
        if there and not self._force:
            raise InputError(
                f"{self.directory} holds {', '.join(there)} already; choose another directory, or --force to "
                "replace its configurations (keys and certificates are kept)"
            )

    def make_directory(self, name: str = ".", mode: int = 0o755) -> None:
        """Make a directory unless it is there; a private one that others can enter or own is refused.

        A group may look into one that is there, as the service's does where root owns the files (docs/systemd.md).

        Raises:
            InputError: a private directory is open to others, or another user's.
        """
        path = self.path(name)
        missing = [item for item in (path, *path.parents) if not item.exists()]
        for item in reversed(missing):
            item.mkdir(mode=mode if item == path else 0o755)
            self._created.append(item)
        if mode & 0o077:
            return
        if (found := directory_objection(path)) is not None:
            raise InputError(f"{path} {found.what}; {found.remedy}, or give another directory")
        if path.stat().st_mode & _BEYOND_GROUP_READ:
            raise InputError(f"{path} is open to other users; run: chmod 700 {path}")

    def keep_or_write(self, name: str, make: Callable[[], bytes], *, private: bool) -> bytes:
        """The content of a file, which is made only if it is missing: keys are never replaced."""
        path = self.path(name)
        if path.exists():
            return path.read_bytes()
        content = make()
        self._write(path, content, private=private)
        return content

    def write(self, name: str, content: str, *, private: bool = False) -> Path:
        """Write a configuration, over an old one if there is one. Unless ``private`` it must hold no secret."""
        path = self.path(name)
        self._write(path, content.encode(), private=private)
        return path

    def undo(self) -> None:
        """Take back everything that was written."""
        for path, content in reversed(self._replaced):
            path.write_bytes(content)
        for path in reversed(self._created):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes, *, private: bool) -> None:
        if path.exists():
            self._replaced.append((path, path.read_bytes()))
        else:
            self._created.append(path)
        write_private(path, content)
        if not private:
            path.chmod(0o644)
