"""docs/nats-server.md matches the tests of facts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests import servers

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docs" / "nats-server.md").read_text(encoding="utf-8")
FACTS: Final = 34
_TEST: Final = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def sections() -> dict[int, str]:
    """Return the text of each fact by its number."""
    parts = re.split(r"^#{2,3} (?:(\d+)\.)?", TEXT, flags=re.MULTILINE)
    return {int(number): text for number, text in zip(parts[1::2], parts[2::2], strict=True) if number}


def named_tests(text: str) -> list[str]:
    return re.findall(r"^\* Watched by `([^`]+)`(?:, with such a server only)?$", text, flags=re.MULTILINE)


def test_every_fact_is_present_and_tested_or_says_why_not() -> None:
    facts = sections()
    assert list(facts) == list(range(1, FACTS + 1))
    for number, text in facts.items():
        assert named_tests(text) or re.search(r"^\* Not watched: \w", text, flags=re.MULTILINE), f"fact {number}"


def test_named_tests_exist() -> None:
    for name in named_tests(TEXT):
        file, _, test = name.partition("::")
        assert test in _TEST.findall((ROOT / file).read_text(encoding="utf-8")), name
    assert len(named_tests(TEXT)) == TEXT.count("Watched by")


def test_every_fact_test_is_named_in_its_section() -> None:
    facts = sections()
    for path in Path(__file__).parent.glob("test_*.py"):
        for test in _TEST.findall(path.read_text(encoding="utf-8")):
            if match := re.match(r"test_fact_(\d\d)_", test):
                assert f"tests/nats_server/{path.name}::{test}" in named_tests(facts[int(match.group(1))])


def test_documented_versions_are_the_tested_ones() -> None:
    assert f"**{servers.OLDEST}**" in TEXT
    assert f"| tested | {', '.join(servers.VERSIONS)}:" in TEXT
