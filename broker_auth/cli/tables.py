"""Tables of untrusted text: fitted to the terminal, complete with ``--wide``, and separated by tabs in a pipe."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import click
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.live import Live
from rich.text import Text

from broker_auth.cli.output import one_line, styled, terminal_width

ESSENTIAL: Final = 10  # columns of less worth are dropped before any cell is folded
_GAP: Final = "  "
_SEPARATORS: Final = " .-_/,:@"  # a cell is folded behind one of these, if there is one
_MIN_WIDTH: Final = 20

wide_option = click.option("--wide", is_flag=True, help="Show every column in full, whatever the terminal's width.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        worth: on a narrow terminal the columns of least worth are dropped.
        fold: least width to which its cells may be folded; 0 for never.
        right: whether its cells are aligned to the right, as numbers are.
        short: shortens a cell for a terminal.
    """

    name: str
    worth: int = ESSENTIAL
    fold: int = 0
    right: bool = False
    short: Callable[[str], str] = field(default=str)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one for each column.

    Attributes:
        footer: lines that follow, in text for people.
        repeats: names of columns whose cells a terminal shows only if they differ from those of another column.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    footer: Sequence[str] = ()
    repeats: Mapping[str, str] = field(default_factory=dict)

    def separated(self) -> Iterator[str]:
        """Yield the header and the rows with tabs between complete cells, without the footer."""
        yield "\t".join(column.name for column in self.columns)
        yield from ("\t".join(map(_text, row)) for row in self.rows)

    def lines(self, width: int | None = None) -> Iterator[str]:
        """Yield the table in aligned columns.

        Args:
            width: columns of the terminal; None for complete cells in all columns.
        """
        cells = [[_text(cell) for cell in row] if width is None else self._short(row) for row in self.rows]
        natural = {
            number: max(map(cell_len, [column.name, *(row[number] for row in cells)]))
            for number, column in enumerate(self.columns)
            if width is None or any(row[number] for row in cells)
        }
        if not self.rows:
            yield from map(one_line, self.footer)
            return
        widths = natural if width is None else self._fitted(natural, max(width, _MIN_WIDTH))
        yield self._line([column.name for column in self.columns], widths)
        for row in cells:
            folded = {number: _fold(row[number], size) for number, size in widths.items()}
            for part in range(max(map(len, folded.values()))):
                parts = {number: lines[part] if part < len(lines) else "" for number, lines in folded.items()}
                yield self._line(parts, widths)
        dropped = [self.columns[number].name for number in natural if number not in widths]
        hint = [f"Not shown: {', '.join(dropped)}. --wide shows every column."] if dropped else []
        for line in map(one_line, (*self.footer, *hint)):
            yield from [line] if width is None else textwrap.wrap(line, max(width, _MIN_WIDTH), subsequent_indent="  ")

    def _fitted(self, natural: Mapping[int, int], width: int) -> dict[int, int]:
        """Return the widths of the columns that fit: essential ones, if need be folded, and details beside them."""
        by_worth = sorted(natural, key=lambda number: -self.columns[number].worth)
        kept = [number for number in by_worth if self.columns[number].worth >= ESSENTIAL] or by_worth[:1]
        least = {number: min(natural[number], self._least(number) or natural[number]) for number in natural}
        while len(kept) > 1 and _total(least[number] for number in kept) > width:
            kept.pop()
        for number in by_worth:
            if number not in kept and _total(natural[one] for one in (*kept, number)) <= width:
                kept.append(number)
        widths = {number: natural[number] for number in sorted(kept)}
        while _total(widths.values()) > width:
            number = max(widths, key=lambda one: (widths[one] - least[one], widths[one]))
            widths[number] -= 1
        return widths

    def _short(self, row: Sequence[object]) -> list[str]:
        """Return the cells for a terminal."""
        texts = {column.name: _text(cell) for column, cell in zip(self.columns, row, strict=True)}
        same = {name for name, other in self.repeats.items() if texts[name] == texts[other]}
        return ["" if column.name in same else column.short(texts[column.name]) for column in self.columns]

    def _least(self, number: int) -> int:
        column = self.columns[number]
        return max(column.fold, len(column.name)) if column.fold else 0

    def _line(self, cells: Mapping[int, str] | Sequence[str], widths: Mapping[int, int]) -> str:
        padded = []
        for number, width in widths.items():
            text, right = cells[number], self.columns[number].right
            gap = " " * (width - cell_len(text))
            padded.append(gap + text if right else text + gap)
        return _GAP.join(padded).rstrip()


def print_table(table: Table, *, wide: bool = False) -> None:
    """Print a table for the terminal on standard output; elsewhere with tabs, unless it shall be ``wide``."""
    width = terminal_width()
    lines = table.separated() if width is None and not wide else _styled(table, None if wide else width)
    for line in lines:
        click.echo(line)


async def watch(draw: Callable[[], Awaitable[Table]], seconds: float, *, wide: bool = False) -> None:
    """Draw a table every ``seconds`` until interrupted: in place on a terminal, else one below the other."""
    if terminal_width() is None:
        while True:
            print_table(await draw(), wide=wide)
            sys.stdout.flush()
            await asyncio.sleep(seconds)
    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            table = await draw()
            text = Text.from_ansi("\n".join(_styled(table, None if wide else terminal_width())))
            text.no_wrap, text.overflow = True, "crop"
            live.update(text, refresh=True)
            await asyncio.sleep(seconds)


def _styled(table: Table, width: int | None) -> Iterator[str]:
    lines = table.lines(width)
    if table.rows:
        yield styled(next(lines), bold=True)
    yield from lines


def short_bytes(count: int) -> str:
    """Return a size such as ``1.2 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _text(cell: object) -> str:
    return one_line("" if cell is None else str(cell))


def _total(widths: Iterable[int]) -> int:
    sizes = list(widths)
    return sum(sizes) + len(_GAP) * (len(sizes) - 1)


def _fold(text: str, width: int) -> list[str]:
    """Return a cell in lines of at most ``width`` columns, if possible broken behind a separator."""
    lines = []
    while cell_len(text) > width:
        piece = chop_cells(text, width)[0] or text[0]
        end = max(piece.rfind(separator) for separator in _SEPARATORS) + 1
        piece = piece[:end] if 2 * end >= len(piece) else piece
        lines.append(piece.rstrip())
        text = text[len(piece) :].lstrip()
    return [*lines, text]
