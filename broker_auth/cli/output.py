"""Output of commands: one JSON document, or lines in which untrusted text is escaped."""

from __future__ import annotations

import json
from typing import Any

import click

from broker_auth import times
from broker_auth.printable import printable


def one_line(text: str) -> str:
    """Return ``text`` as one line, with characters escaped that could break it or control the terminal."""
    return printable(text.replace("\n", " "))


def error(message: str) -> None:
    """Print ``Error: …`` as one line on standard error."""
    click.echo(f"Error: {one_line(message)}", err=True)


def warning(message: str) -> None:
    """Print ``Warning: …`` as one line on standard error."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def note(message: str) -> None:
    """Print one line on standard output."""
    click.echo(one_line(message))


def document(value: Any) -> None:
    """Print ``value`` as one JSON document, in ASCII for any terminal and encoding."""
    click.echo(json.dumps(value, indent=2))


def rfc3339(time: float | None) -> str | None:
    """Return Unix seconds as RFC 3339 in UTC; None for no time."""
    return None if time is None else times.rfc3339(time)
