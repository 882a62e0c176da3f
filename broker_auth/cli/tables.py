"""Tables on a terminal, printed once or refreshed, with untrusted text escaped."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from broker_auth.cli.output import one_line

# Without a terminal the width is unknown and nothing is cut, because the output may be searched.
_UNLIMITED: Final = 10_000


def make_console() -> Console:
    """Return the console for standard output."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=_UNLIMITED)
    return console


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], footer: str) -> Table:
    """Return a table; columns whose names begin with ``#`` hold numbers."""
    table = Table(title=one_line(title), caption=one_line(footer), title_justify="left", caption_justify="left")
    for column in columns:
        numeric = column.startswith("#")
        table.add_column(column.removeprefix("#"), justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        table.add_row(*(Text(one_line("" if cell is None else str(cell))) for cell in row))
    return table


async def watch(draw: Callable[[], Awaitable[Table]], seconds: float) -> None:
    """Draw a table every ``seconds`` until interrupted: in place on a terminal, else one below the other."""
    console = make_console()
    if not console.is_terminal:
        while True:
            console.print(await draw())
            sys.stdout.flush()
            await asyncio.sleep(seconds)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(await draw(), refresh=True)
            await asyncio.sleep(seconds)


def short_bytes(count: int) -> str:
    """Return a size such as ``1.2 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
