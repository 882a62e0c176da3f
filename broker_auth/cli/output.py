"""Output of commands: one JSON document, or lines in which untrusted text is escaped."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from contextvars import ContextVar
from typing import Any, Final

import click

from broker_auth import times
from broker_auth.printable import printable

printed_document: Final[ContextVar[bool]] = ContextVar("printed_document", default=False)


def one_line(text: str) -> str:
    """Return ``text`` as one line, with characters escaped that could break it or control the terminal."""
    return printable(text.replace("\n", " "))


def error(message: str) -> None:
    """Print ``Error: …`` as one line on standard error."""
    click.echo(f"Error: {one_line(message)}", err=True)


def warning(message: str) -> None:
    """Print ``Warning: …`` as one line on standard error."""
    click.echo(f"Warning: {one_line(message)}", err=True)


def remark(message: str) -> None:
    """Print ``Note: …`` as one line on standard error: a problem for nobody, but good to know."""
    click.echo(f"Note: {one_line(message)}", err=True)


def note(message: str) -> None:
    """Print one line on standard output."""
    click.echo(one_line(message))


def paragraph(text: str, *, first: str | None = None, indent: int = 0) -> None:
    """Print text as one line, wrapped to the width of a terminal.

    Args:
        text: the text, untrusted.
        first: what the first line begins with, at most ``indent`` wide and possibly styled; by default spaces.
        indent: spaces before each further line.
    """
    line = one_line(text)
    width = terminal_width()
    lines = [line] if width is None else textwrap.wrap(line, max(20, width - indent), break_on_hyphens=False)
    gap = "\n" + " " * indent
    click.echo((" " * indent if first is None else first) + gap.join(lines))


def styled(text: str, **style: Any) -> str:
    """Return text with a style for terminals (``click.echo`` removes it elsewhere), unless NO_COLOR is set."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def terminal_width() -> int | None:
    """Return the columns of the terminal on standard output; None elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def document(value: Any) -> None:
    """Print ``value`` as one JSON document, in ASCII for any terminal and encoding."""
    printed_document.set(True)
    click.echo(json.dumps(value, indent=2))


def rfc3339(time: float | None) -> str | None:
    """Return Unix seconds as RFC 3339 in UTC; None for no time."""
    return None if time is None else times.rfc3339(time)
