"""Every code has a cause and a remedy, also in the documentation."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import pytest

from broker_auth.callout.request import WireFault
from broker_auth.operate.remedies import DENIALS, REMEDIES, TOKENS, UNANSWERED, Remedy, reference
from broker_auth.policy.decision import DenyCode
from broker_auth.settings.keys import table as keytable
from broker_auth.tokens.faults import TokenFault

ROWS: list[tuple[StrEnum, Remedy]] = [*DENIALS.items(), *TOKENS.items(), *UNANSWERED.items()]


def test_tables_cover_every_code() -> None:
    assert set(DENIALS) == set(DenyCode)
    assert set(TOKENS) == set(TokenFault)
    assert set(UNANSWERED) == set(WireFault)
    assert len(REMEDIES) == len(DenyCode) + len(TokenFault)  # codes are unique


@pytest.mark.parametrize(("code", "row"), ROWS)
def test_cause_and_remedy_are_sentences(code: StrEnum, row: Remedy) -> None:
    for text in (row.cause, row.remedy):
        assert text.endswith(".")
        assert text[0].isupper() or text.startswith(("`", "nats-server "))


def test_keys_in_remedies_exist() -> None:
    words = reference().replace("`", " ").replace(",", " ").split()
    named = {word.strip(".;:") for word in words if word.startswith("plugin.")}
    assert len(named) > 10
    unknown = {name for name in named if keytable.find(name) is None}
    assert not unknown


def test_denials_page_is_generated_from_the_tables() -> None:
    path = Path(__file__).parents[2] / "docs" / "denials.md"
    assert path.read_text() == reference(), "run: python -m broker_auth.operate.remedies > docs/denials.md"
