"""The inventory: the nodes that may receive an identity, with the secret that the factory gave each device."""

from __future__ import annotations

import re
from pathlib import Path

from sealed import read_secret
from session import FatalError, say

LONGEST = 64  # characters of a common name
# Every client with a provisioning token can write announcements: their names must not become other subjects or paths.
IDENTITY = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class Inventory:
    """The nodes that may receive an identity, and the secret of each."""

    def __init__(self, path: Path) -> None:
        """Read the file."""
        self._path, self._changed = path, path.stat().st_mtime_ns
        self.secrets = self._read()

    def refresh(self) -> None:
        """Read the file again if it has changed; if it contains an error, keep the old inventory."""
        changed = self._path.stat().st_mtime_ns
        if changed != self._changed:
            self._changed = changed
            try:
                self.secrets = self._read()
            except FatalError as error:
                say(f"{error}; the inventory stays as it was")

    def _read(self) -> dict[str, bytes]:
        nodes: dict[str, bytes] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise FatalError(f"{self._path} is not UTF-8 text") from error
        for number, line in enumerate(lines, 1):
            identity, _, secret = line.partition(" ")
            try:
                if not is_name(identity) or identity in nodes:
                    raise ValueError("not a lower-case name, or listed twice")
                nodes[identity] = read_secret(secret)
            except ValueError as error:
                raise FatalError(f"{self._path}, line {number}: {identity}: {error}") from error
        return nodes


def is_name(value: object) -> bool:
    """Return whether this can be a node's identity, which is used in a subject, in a certificate and in a path."""
    return isinstance(value, str) and len(value) <= LONGEST and IDENTITY.fullmatch(value) is not None
