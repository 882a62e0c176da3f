"""The pages of the documentation, and those generated from the code.

``python -m tests.docs.pages`` (``make docs``) generates them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from broker_auth.operate import remedies
from broker_auth.operate.doctor import codes
from broker_auth.settings.keys import table as keytable
from tests.docs import commands

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md")))
_TABLE: Final = "| Code | Meaning |"


def doctor() -> str:
    """Return the page about the doctor with its table of findings, which ends the page, made from the code."""
    return (DOCS / "doctor.md").read_text(encoding="utf-8").partition(_TABLE)[0] + codes.table() + "\n"


MADE: Final[Mapping[str, Callable[[], str]]] = {
    "commands.md": commands.reference,
    "configuration.md": keytable.reference,
    "denials.md": remedies.reference,
    "doctor.md": doctor,
}


def fenced(text: str, language: str) -> Iterator[list[str]]:
    """Yield the lines of every fenced block in this language, without the indentation they share."""
    block: list[str] = []
    opened: str | None = None
    for line in text.splitlines():
        fence = line.strip()
        if not fence.startswith("```"):
            block.append(line)
        elif opened is None:
            opened, block = fence.removeprefix("```"), []
        else:
            if opened == language:
                yield _dedented(block)
            opened = None


def _dedented(block: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip()) for line in block if line.strip()), default=0)
    return [line[margin:] for line in block]


if __name__ == "__main__":
    for name, make in MADE.items():
        (DOCS / name).write_text(make(), encoding="utf-8")
