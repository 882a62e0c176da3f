"""The documentation explains exactly the findings of the doctor."""

from __future__ import annotations

import re
from pathlib import Path

from broker_auth.operate import doctor

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
SOURCES = sorted(Path(doctor.__file__).parent.glob("*.py"))
_FOUND = re.compile(r'(?:findings\.(?:error|warning|skipped)\(\s*|code=)"([a-z_.]+)"')
_EXPIRY = re.compile(r'warn_of_expiry\(\s*findings,\s*f?"([a-z{}_.]+)"')
_LISTED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)?)`")


def test_page_lists_the_findings() -> None:
    text = "".join(path.read_text() for path in SOURCES)
    codes = set(_FOUND.findall(text))
    assert _EXPIRY.findall(text) == ["{name}.certificate", "listener.certificate"]
    for listener in ("listener", "leaf", "websocket"):
        codes |= {f"{listener}.certificate_expired", f"{listener}.certificate_expires"}
    rows = [line for line in PAGE.read_text().partition("## Findings")[2].splitlines() if line.startswith("| `")]
    listed = {code for row in rows for code in _LISTED.findall(row.split("|")[1])}
    assert codes == listed
