"""Tables from Markdown, so that documentation can be compared with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"
_CODE: Final = re.compile(r"`([^`]+)`")
_RULE: Final = re.compile(r"\|[ \-|]+\|")

Table = list[list[str]]


def tables(page: str) -> dict[str, list[Table]]:
    """Return the tables of a page by their heading; the first row of each is its header."""
    result: dict[str, list[Table]] = {}
    heading, within = "", False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            within = False
            continue
        if not within:
            result.setdefault(heading, []).append([])
            within = True
        if not _RULE.fullmatch(line):
            result[heading][-1].append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return result


def code(cell: str) -> list[str]:
    """Return the code in a cell."""
    return _CODE.findall(cell)
