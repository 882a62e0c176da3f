"""Imports run downwards, and the floors in docs/design.md match the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT
from tests.policy.markdown import code, tables

PACKAGE: Final = ROOT / "broker_auth"
FLOORS: Final = (
    ("cli",),
    ("demo", "bench"),
    ("sandbox",),
    ("daemon", "operate"),
    ("callout", "deploy", "hosts"),
    ("audit", "settings"),
    ("policy",),
    ("tokens", "natsio"),
    ("certificates",),
    ("files", "logs"),
    ("cache", "encoding", "errors", "printable", "secret", "times", "wording"),
)
"""From the roof to the ground; a room imports from lower floors only, and from no other room on its own floor."""

FORBIDDEN: Final = {
    "policy": {"nats", "asyncio", "time", "os", "pathlib", "socket"},
    "tokens": {"nats", "asyncio", "time", "socket"},
    "certificates": {"nats", "asyncio", "time", "socket"},
    "settings": {"nats", "asyncio"},
}
"""Modules, ours or third-party, that a room must not import: deciding does no I/O and reads no clock."""

_LEVEL: Final = {room: level for level, rooms in enumerate(reversed(FLOORS)) for room in rooms}
_ENTRANCES: Final = {"__init__", "__main__"}


def rooms() -> list[str]:
    """Return every package and module directly below ``broker_auth``."""
    packages = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    return packages + [path.stem for path in PACKAGE.glob("*.py") if path.stem not in _ENTRANCES]


def files(room: str) -> list[Path]:
    """Return the source files of a room."""
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imports(path: Path) -> Iterator[str]:
    """Yield the rooms and the external top-level modules that a file imports at any place."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            yield rest.partition(".")[0] if first == "broker_auth" else first


def test_every_room_has_a_floor() -> None:
    assert sorted(rooms()) == sorted(_LEVEL)


@pytest.mark.parametrize("room", sorted(_LEVEL))
def test_imports_run_downwards(room: str) -> None:
    for path in files(room):
        upwards = {name for name in imports(path) if name != room and _LEVEL.get(name, -1) >= _LEVEL[room]}
        assert not upwards, f"{path.relative_to(ROOT)} imports {upwards} from its own floor or above"


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_rooms_stay_free_of_input_and_output(room: str) -> None:
    for path in files(room):
        assert not set(imports(path)) & FORBIDDEN[room], path


def test_design_page_shows_the_floors() -> None:
    rows = tables("design.md")["Rooms"][0][1:]
    assert [tuple(code(row[0])) for row in rows] == list(FLOORS)


def test_design_page_names_what_rooms_must_not_import() -> None:
    rows = tables("design.md")["Rooms"][1][1:]
    assert {name: set(code(row[1])) for row in rows for name in code(row[0])} == FORBIDDEN


def test_contributing_page_maps_every_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    mapped = set(re.findall(r"`([a-z_]+)`", text.partition("## Map of the code")[2].partition("\n## ")[0]))
    assert {room for room in rooms() if (PACKAGE / room).is_dir()} <= mapped


def test_tests_mirror_the_rooms() -> None:
    """Each package has a directory of tests; a list names the other places for a few packages."""
    elsewhere = {"demo": "e2e", "files": "settings"}
    for room in rooms():
        if (PACKAGE / room).is_dir():
            assert (ROOT / "tests" / elsewhere.get(room, room)).is_dir(), room
