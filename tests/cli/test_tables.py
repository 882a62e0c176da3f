"""Tables fit a terminal: details are dropped, cells folded, keys shortened; wide and piped tables are complete."""

from __future__ import annotations

import pytest

from broker_auth.cli.tables import ESSENTIAL, Column, Table, short_bytes
from broker_auth.wording import short_key

COLUMNS = (
    Column(name="Server", worth=ESSENTIAL + 1, fold=8),
    Column(name="Identity", worth=ESSENTIAL + 2, fold=12, short=short_key),
    Column(name="Name", worth=5),
    Column(name="Up", worth=9, right=True),
    Column(name="CID", worth=8, right=True),
)
NKEY = "U" + "A" * 55
ROWS = (
    ("fleet1", "node1.example.net", "node1.example.net", "5m", 7),
    ("fleet2", NKEY, "the service", "10m", 1234),
)


def drawn(width: int | None, rows: tuple[tuple[object, ...], ...] = ROWS, *footer: str, same: bool = True) -> list[str]:
    return list(Table(COLUMNS, rows, footer, {"Name": "Identity"} if same else {}).lines(width))


def header(width: int, *, same: bool = True) -> list[str]:
    return drawn(width, same=same)[0].split()


def test_wide_table_is_complete_whatever_the_width() -> None:
    first, second, third = drawn(None)
    assert first.split() == ["Server", "Identity", "Name", "Up", "CID"]
    assert second.split() == ["fleet1", "node1.example.net", "node1.example.net", "5m", "7"]
    assert NKEY in third
    assert second.endswith("   5m     7")


def test_terminal_shortens_keys_and_does_not_repeat_names() -> None:
    _, second, third = drawn(80)
    assert second.split() == ["fleet1", "node1.example.net", "5m", "7"]
    assert third.split() == ["fleet2", "UAAAAAAA…AAAA", "the", "service", "10m", "1234"]


@pytest.mark.parametrize("width", range(12, 100))
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = drawn(width, ROWS, "2 connections on 2 servers", same=False)
    assert max(map(len, lines)) <= max(width, 20)
    assert not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("width", "names"),
    [
        (60, ["Server", "Identity", "Name", "Up", "CID"]),
        (40, ["Server", "Identity", "Up", "CID"]),
        (32, ["Server", "Identity", "Up"]),
        (28, ["Server", "Identity"]),
        (20, ["Server", "Identity"]),
    ],
)
def test_columns_of_least_worth_are_dropped_first(width: int, names: list[str]) -> None:
    assert header(width, same=False) == names
    hidden = [name for name in ("Name", "Up", "CID") if name not in names]
    text = " ".join(" ".join(drawn(width, same=False)).split())
    assert (f"Not shown: {', '.join(hidden)}." in text) is bool(hidden)


def test_cell_is_folded_behind_a_separator_and_keeps_every_character() -> None:
    lines = drawn(20, ROWS[:1])
    assert [line[8:] for line in lines[1:3]] == ["node1.", "example.net"]


def test_column_without_content_is_not_shown_on_a_terminal() -> None:
    rows = (("fleet1", "node1", "", "5m", None),)
    assert drawn(80, rows)[0].split() == ["Server", "Identity", "Up"]
    assert "Not shown" not in "".join(drawn(80, rows))


def test_table_without_rows_is_its_footer() -> None:
    assert drawn(80, (), "0 nodes") == ["0 nodes"]


def test_pipe_gets_complete_cells_between_tabs_and_no_footer() -> None:
    lines = list(Table(COLUMNS, ROWS, ["2 connections"]).separated())
    assert lines[0] == "Server\tIdentity\tName\tUp\tCID"
    assert lines[2] == f"fleet2\t{NKEY}\tthe service\t10m\t1234"
    assert len(lines) == 3


def test_untrusted_cells_cannot_add_columns_lines_or_control_characters() -> None:
    hostile = "a\tb\nc\x1b[2J"
    rows = ((hostile, hostile, "", "", ""),)
    assert list(Table(COLUMNS, rows).separated())[1] == r"a\x09b c\x1b[2J" + "\t" + r"a\x09b c\x1b[2J" + "\t\t\t"
    assert not any(character in "".join(drawn(30, rows)) for character in "\t\n\x1b")


def test_wide_characters_count_as_two_columns() -> None:
    rows = (("東京" * 4, "東京" * 10, "", "", ""),)
    assert len(drawn(24, rows)) > 2
    assert "".join(line[8:] for line in drawn(24, rows)[1:]).count("東") > 0


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")])
def test_sizes_have_a_unit(count: int, text: str) -> None:
    assert short_bytes(count) == text
