"""Every test named in docs/security.md exists, and every list of prevented attacks names a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", TEXT)))


@pytest.mark.parametrize("named", NAMED)
def test_named_test_exists(named: str) -> None:
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in defined if name else any(item.startswith("test_") for item in defined)


def test_each_prevented_attack_names_its_test() -> None:
    section = TEXT.partition("It cannot do the following to the fleet:")[2].partition("\n!!! danger")[0]
    points = re.split(r"\n\* ", section)[1:]
    assert len(points) > 10
    assert not [point for point in points if "`tests/" not in point]
