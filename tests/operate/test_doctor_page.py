"""Every finding of the doctor has a code, and a meaning on the page."""

from __future__ import annotations

import re
from pathlib import Path

from broker_auth.operate import doctor
from broker_auth.operate.doctor.codes import MEANINGS, FindingCode

TESTS = Path(__file__).parents[1]
SOURCES = sorted(path for path in Path(doctor.__file__).parent.glob("*.py") if path.name != "codes.py")
_USED = re.compile(r"findings\.(\w+)\(\s*FindingCode\.([A-Z_]+)|code=FindingCode\.([A-Z_]+)")


def used() -> dict[FindingCode, set[str]]:
    """Return the codes that the sources use, each with the severities."""
    codes: dict[FindingCode, set[str]] = {}
    for path in SOURCES:
        for severity, name, other in _USED.findall(path.read_text()):
            codes.setdefault(FindingCode[name or other], set()).add(severity or "finding")
    for listener in ("listener", "leaf", "websocket"):
        for end, severity in (("expired", "error"), ("expires", "warning"), ("expiry", "ok")):
            codes[FindingCode(f"{listener}.certificate_{end}")] = {severity}
    return codes


def test_every_code_is_used() -> None:
    assert set(used()) == set(FindingCode)


def test_meanings_are_those_of_codes_that_are_not_always_ok() -> None:
    explained = [code for codes, _ in MEANINGS for code in codes]
    assert len(explained) == len(set(explained))
    assert set(explained) == {code for code, severities in used().items() if severities != {"ok"}}


def test_every_code_is_named_by_a_test() -> None:
    texts = [path.read_text() for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    named = {name for text in texts for name in re.findall(r'"([a-z_]+(?:\.[a-z_]+)?)"', text)}
    assert [code.value for code in FindingCode if code.value not in named] == []
