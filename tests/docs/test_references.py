"""References in code are valid: the page, its heading, the fact of docs/nats-server.md exist."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS, ROOT

OWN: Final = Path(__file__).relative_to(ROOT)  # contains broken references on purpose
FOLDERS: Final = ("broker_auth", "tests", "examples", "docs")
KINDS: Final = frozenset({".py", ".j2", ".conf", ".service", ".yml", ".yaml", ".json", ".go", ".md", ""})
_PAGE: Final = re.compile(r"\bdocs/([\w/-]+\.md)(?:#([\w-]+))?")
_FACT: Final = re.compile(r"\b[Ff]acts? (\d+(?:(?:, | and | to )\d+)*)")
_FACT_HEADING: Final = re.compile(r"^### (\d+)\. ", re.MULTILINE)
_HEADING: Final = re.compile(r"^#+ (.+?)(?: \{.*\})?$", re.MULTILINE)
_LINK: Final = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_FENCED: Final = re.compile(r"^\s*```.*?^\s*```\s*$", re.MULTILINE | re.DOTALL)
# Former names of documents, which were never valid references.
_OLD: Final = re.compile(r"\b(?:POLICY (?:rule \d|\")|INTERFACE(?: \"| ``)|NATS_FACTS)")


def slug(heading: str) -> str:
    """Return the anchor that MkDocs gives a heading, as ``markdown.extensions.toc.slugify`` makes it."""
    text = unicodedata.normalize("NFKD", _LINK.sub(r"\1", heading)).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip())


@cache
def anchors(page: str) -> frozenset[str]:
    """Return the anchors of a page below docs/; empty if there is no such page."""
    path = DOCS / page
    if not path.is_file():
        return frozenset()
    return frozenset(slug(heading) for heading in _HEADING.findall(_FENCED.sub("", path.read_text(encoding="utf-8"))))


FACTS: Final = frozenset(map(int, _FACT_HEADING.findall((DOCS / "nats-server.md").read_text(encoding="utf-8"))))


def broken(text: str) -> Iterator[str]:
    """Yield the broken references in ``text``."""
    for page, anchor in _PAGE.findall(text):
        if not anchors(page) or (anchor and anchor not in anchors(page)):
            yield f"docs/{page}#{anchor}" if anchor else f"docs/{page}"
    for numbers in _FACT.findall(text):
        yield from (f"fact {number}" for number in re.findall(r"\d+", numbers) if int(number) not in FACTS)
    yield from _OLD.findall(text)


def files() -> list[Path]:
    """Return every file of this project that may contain comments, relative to the root."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in KINDS]
    paths += [ROOT / "nats-server.conf.j2", ROOT / "Makefile", ROOT / "pyproject.toml", *ROOT.glob("*.md")]
    return [
        path.relative_to(ROOT)
        for path in sorted(paths)
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(ROOT) != OWN
    ]


def test_every_reference_is_valid() -> None:
    wrong = {str(path): references for path in files() if (references := sorted(broken(_text(path))))}
    assert wrong == {}


def _text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def test_references_are_found() -> None:
    texts = [_text(path) for path in files()]
    assert sum(len(_PAGE.findall(text)) for text in texts) > 100
    assert sum(len(_FACT.findall(text)) for text in texts) > 50
    assert len(FACTS) >= 29


@pytest.mark.parametrize(
    "text",
    [
        "docs/nothing.md",
        "docs/policy.md#modes",
        "(docs/interface.md#wire).",
        "fact 99",
        "facts 4, 98",
        "facts 5 and 97",
        'POLICY "Modes"',
        "POLICY rule 3",
        'INTERFACE "Wire"',
        "NATS_FACTS 4",
    ],
)
def test_broken_reference_is_detected(text: str) -> None:
    assert list(broken(text))


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("0. Connections not served", "0-connections-not-served"),
        ("3. Without `ca_file` the system's roots are trusted", "3-without-ca_file-the-systems-roots-are-trusted"),
        ("Pub-sub", "pub-sub"),
    ],
)
def test_anchor_of_a_heading_is_that_of_mkdocs(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_every_decision_page_is_listed_in_order_and_has_the_same_headings() -> None:
    decisions = DOCS / "decisions"
    pages = sorted(decisions.glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    listed = re.findall(
        r"^\d+\. \[[^\]]+\]\(([^)]+)\)$", (decisions / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == [page.name for page in pages]
    for number, page in enumerate(pages, start=1):
        title, *headings = _HEADING.findall(page.read_text(encoding="utf-8"))
        assert title.startswith(f"{number}. "), page.name
        assert headings == ["Context", "Decision", "Consequences"], page.name
