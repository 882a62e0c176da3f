"""What commands print: one JSON document, or lines that no stranger's text can break or repaint."""

from __future__ import annotations

import json
from typing import Any

import click

from broker_auth import times
from broker_auth.printable import printable


def one_line(text: str) -> str:
    """Return ``text`` in one line, with everything escaped that could break or repaint a terminal's line."""
    return printable(text.replace("\n", " "))


def error(message: str) -> None:
    """Prints ``Error: …``, one line on standard error."""
    click.echo(f"Error: {one_line(message)}", err=True)


def warning(message: str) -> None:
    """Prints ``Warning: …``, one line on standard error."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def note(message: str) -> None:
    """Prints one line on standard output."""
    click.echo(one_line(message))


def document(value: Any) -> None:
    """Prints ``value`` as one JSON document, ASCII only so that any terminal and encoding can carry it."""
    click.echo(json.dumps(value, indent=2))


def rfc3339(time: float | None) -> str | None:
    """Return Unix seconds as RFC 3339 in UTC; None for no time."""
    return None if time is None else times.rfc3339(time)
