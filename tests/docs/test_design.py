"""The boundaries in docs/design.md are those of the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT
from tests.policy.markdown import code, tables

PACKAGE: Final = ROOT / "broker_auth"
PACKAGES: Final = frozenset(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
_ROWS: Final = tables("design.md")["Boundaries"][0][1:]


def imports(path: Path) -> Iterator[str]:
    """Yield the packages of ours, and the foreign modules, that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            yield rest.partition(".")[0] if first == "broker_auth" else first


@pytest.mark.parametrize(("packages", "forbidden"), [row[:2] for row in _ROWS])
def test_no_package_imports_what_it_must_not(packages: str, forbidden: str) -> None:
    names = set(code(forbidden))
    for package in code(packages):
        others = names
        if "any package" in forbidden:
            allowed = names & PACKAGES
            others = (names | PACKAGES) - allowed - {package}
        for path in (PACKAGE / package).rglob("*.py"):
            assert set(imports(path)) & others == set(), path


def test_every_package_has_its_boundaries() -> None:
    assert {package for row in _ROWS for package in code(row[0])} == PACKAGES - {"cli"}
