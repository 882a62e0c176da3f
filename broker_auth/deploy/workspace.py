"""Writes a deployment's files: overwrites nothing by accident, and undoes everything on failure."""

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
    """Files under one directory, written one by one and removed together if a later step fails."""

    def __init__(self, directory: Path, *, force: bool) -> None:
        self.directory = directory
        self._force = force
        self._created: list[Path] = []
        self._replaced: list[tuple[Path, bytes]] = []

    def path(self, name: str) -> Path:
        """Return the path of a file of the deployment."""
        return self.directory / name

    def require_absent(self, names: Iterable[str]) -> None:
        """Refuse to overwrite existing files.

        Raises:
            InputError: some of the files exist and ``force`` is not set; names all of them.
        """
        there = [name for name in names if os.path.lexists(self.path(name))]
        if there and not self._force:
            raise InputError(
                f"{self.directory} already contains {', '.join(there)}; choose another directory, or use --force to "
                "replace the configurations (keys and certificates are kept)"
            )

    def make_directory(self, name: str = ".", mode: int = 0o755) -> None:
        """Create a directory unless it exists; refuse a private directory that others can access.

        A group may read an existing directory, as the service's does where root owns the files (docs/systemd.md).

        Raises:
            InputError: a private directory is accessible to other users or owned by one.
        """
        path = self.path(name)
        missing = [item for item in (path, *path.parents) if not item.exists()]
        for item in reversed(missing):
            item.mkdir(mode=mode if item == path else 0o755)
            self._created.append(item)
        if mode & 0o077:
            return
        if (objection := directory_objection(path)) is not None:
            raise InputError(f"{path} {objection.what}; {objection.remedy}, or give another directory")
        if path.stat().st_mode & _BEYOND_GROUP_READ:
            raise InputError(f"{path} is open to other users; run: chmod 700 {path}")

    def keep_or_write(self, name: str, make: Callable[[], bytes], *, private: bool) -> bytes:
        """Return the content of a file; create it only if it is missing, because keys are never replaced."""
        path = self.path(name)
        if path.exists():
            return path.read_bytes()
        content = make()
        self._write(path, content, private=private)
        return content

    def write(self, name: str, content: str, *, private: bool = False) -> Path:
        """Write a configuration, replacing an existing one. Unless ``private`` it must not contain secrets."""
        path = self.path(name)
        self._write(path, content.encode(), private=private)
        return path

    def undo(self) -> None:
        """Restore the state before the first write."""
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
