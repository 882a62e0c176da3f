"""The bench's figures as tables for people; ``--json`` has the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from broker_auth.bench.run import PARTS

NOISY: Final = "noisy"  # said below the table
SKIPPED: Final = "skipped"  # said below the table
_WIDEST: Final = 1000  # columns of text; no table comes near


def show(results: Mapping[str, Any], console: Console) -> None:
    """Print a table for each part, as wide as its figures: a narrow terminal wraps lines instead of losing digits."""
    unbounded = console.options.update(max_width=_WIDEST)
    for part, figures in results.items():
        rows = {name: _merged(row) for name, row in _rows(figures).items()}
        left_out = {name: rows.pop(name)[SKIPPED] for name in list(rows) if SKIPPED in rows[name]}
        columns = [column for column in dict.fromkeys(chain.from_iterable(rows.values())) if column != NOISY]
        table = Table(title=f"{part}: {PARTS[part].about}", title_justify="left", show_edge=False)
        table.add_column("", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        for name, row in rows.items():
            table.add_row(name, *(_text(row.get(column)) for column in columns))
        table.width = Measurement.get(console, unbounded, table).maximum
        console.print(table, crop=False)
        for name, reason in left_out.items():
            console.print(f"Left out: {name}; {reason}.", soft_wrap=True)
        if names := [name for name, row in rows.items() if row.get(NOISY)]:
            console.print(
                f"Too noisy to mean anything: {', '.join(names)}. Repeat on a quieter machine.", soft_wrap=True
            )
        console.print()


def _rows(figures: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Convert mappings of plain values to rows; the keys above them become part of the row's name."""
    rows: dict[str, dict[str, Any]] = {}
    plain = {name: value for name, value in figures.items() if not isinstance(value, Mapping)}
    if plain:
        rows[prefix or "all"] = plain
    for name, value in figures.items():
        if isinstance(value, Mapping):
            if name == "stages":
                rows[prefix] |= value
            else:
                rows |= _rows(value, f"{prefix} {name}".strip())
    return rows


def _merged(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with minimum and maximum of a ratio beside its median, in one column."""
    merged = dict(row)
    for name, value in row.items():
        if f"{name}_min" in row:
            lowest, highest = merged.pop(f"{name}_min"), merged.pop(f"{name}_max")
            merged[name] = f"{value:g} ({lowest:g} to {highest:g})"
    return merged


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
