"""A hook of MkDocs: short labels for keys in the list of contents of the configuration reference."""

from __future__ import annotations

import html
import re
from typing import Any, Final

# The parts of a key that the headings above it already say, the longest first.
_PREFIXES: Final = (
    r"plugin\.broker_auth\.broker\.<name>\.",
    r"plugin\.broker_auth\.zone\.<name>\.",
    r"plugin\.broker_auth\.",
    r"plugin\.choria\.network\.",
    r"plugin\.",
)
_HEADING: Final = re.compile(rf"^(### `(?:{'|'.join(_PREFIXES)})([^`]+)`)$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with a label for each heading that is a key; the heading itself shows the whole key."""
    if page.file.src_uri != "configuration.md":
        return markdown
    return _HEADING.sub(_labelled, markdown)


def _labelled(heading: re.Match[str]) -> str:
    return f'{heading[1]} {{ data-toc-label="{html.escape(heading[2])}" }}'  # escaped: a label is HTML
