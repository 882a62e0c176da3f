"""KSUIDs, compared with known ones (segmentio/ksuid)."""

from __future__ import annotations

import pytest

from broker_auth.tokens import ksuid
from tests.builders.clock import NOW
from tests.builders.tokens import ksuid as build


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("0ujtsYcgvSTl8PAuAdqWYSMnLOv", 1507608047),
        ("0ujzPyRiIAffKhBux4PvQdDqMHY", 1507610780),
        ("0" * 27, 1_400_000_000),
        ("aWgEPTl1tmebfsQzFP4bxwgy80V", 1_400_000_000 + 2**32 - 1),
    ],
)
def test_known_ids(text: str, time: int) -> None:
    assert ksuid.timestamp(text) == time


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0ujtsYcgvSTl8PAuAdqWYSMnLO",
        "0ujtsYcgvSTl8PAuAdqWYSMnLOvv",
        "aWgEPTl1tmebfsQzFP4bxwgy80W",
        "z" * 27,
        "0ujtsYcgvSTl8PAuAdqWYSMnLO-",
        "0ujtsYcgvSTl8PAuAdqWYSMnLO ",
        "\u0660" * 27,
    ],
)
def test_invalid_ids(text: str) -> None:
    assert ksuid.timestamp(text) is None


def test_new_id_contains_its_time_and_is_unique() -> None:
    made = {ksuid.new(NOW) for _ in range(50)}
    assert len(made) == 50
    assert {ksuid.timestamp(text) for text in made} == {NOW}
    assert {len(text) for text in made} == {27}
    assert ksuid.timestamp(build(NOW)) == NOW
