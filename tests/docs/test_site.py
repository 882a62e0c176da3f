"""The documentation site builds without warnings, and generated pages are up to date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from tests.deadlines import LONG_SECONDS
from tests.docs import site_hook
from tests.docs.pages import DOCS, MADE, ROOT

FETCHED = re.compile(r'<(?:script|img|link)[^>]*\b(?:src|href)="(https?:)?//[^"]*"')


@pytest.mark.parametrize("name", MADE)
def test_generated_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == MADE[name](), "make docs"


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.svg")), ids=lambda path: path.name)
def test_diagrams_are_readable_on_phones_in_light_and_dark_mode(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    picture = ElementTree.fromstring(text)  # noqa: S314 - ours
    assert float(picture.attrib["viewBox"].split()[2]) <= 390
    assert min(map(int, re.findall(r"font: (\d+)px", text))) >= 13
    assert "prefers-color-scheme: dark" in text
    assert {"title", "desc"} <= {child.tag.rpartition("}")[2] for child in picture}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_pages_contain_no_html_that_could_be_wider_than_a_phone(page: Path) -> None:
    text = re.sub(r"(?ms)^ *```.*?^ *```|`[^`]+`", "", page.read_text(encoding="utf-8"))
    assert re.findall(r"<(?:img|table|iframe|video|svg|pre|div)\b|\bstyle=|\bwidth=", text) == []


def test_documentation_site_builds_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # suppresses the theme's advertisement of its successor
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list(DOCS.glob("*.md")))
    for page in pages:
        fetched = [match[0] for match in FETCHED.finditer(page.read_text(encoding="utf-8"))]
        assert [tag for tag in fetched if 'rel="canonical"' not in tag] == []


def test_navigation_lists_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    entries = re.findall(r"^ +- (?:([^:\n]+):)? ?([\w/.-]+\.md)?$", navigation, re.MULTILINE)
    pages = [page for _, page in entries if page]
    titles = [title or (DOCS / page).read_text(encoding="utf-8").partition("\n")[0] for title, page in entries]
    assert sorted(pages) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
    assert sorted(titles) == sorted(set(titles))


def test_contents_of_the_configuration_page_do_not_repeat_prefixes() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="configuration.md"))
    text = site_hook.on_page_markdown("### `plugin.security.issuer.<name>.public`\n\nplugin.text\n", page)
    assert text.splitlines() == [
        '### `plugin.security.issuer.<name>.public` { data-toc-label="security.issuer.&lt;name&gt;.public" }',
        "",
        "plugin.text",
    ]
