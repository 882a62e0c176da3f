"""Every command line in the documentation is valid: the command, its options and arguments exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Final

import click
import pytest

from broker_auth.cli import main
from broker_auth.cli.lazy import LazyGroup
from tests.docs.commands import reference, walk
from tests.docs.pages import PAGES, ROOT, fenced

PROGRAM: Final = "broker-auth"
_ASSIGNMENT: Final = re.compile(r"[A-Z_]+=")
_SUBSTITUTION: Final = re.compile(r"\$\([^)]*\)")
_INLINE: Final = re.compile(r"`(broker-auth [^`]+)`")
_TARGET: Final = re.compile(r"\bmake ([a-z][a-z-]+)")


def find(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command of a command line, its context, and its arguments.

    Raises:
        click.UsageError: there is no such command.
    """
    command: click.Command = main
    # With its settings, because click caches the help option of the first context.
    context = click.Context(main, info_name=PROGRAM, **main.context_settings)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, child, words = command.resolve_command(context, words)
        assert child
        command, context = child, click.Context(child, info_name=name, parent=context)
    return command, context, words


def calls(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the arguments of each call of this program in these shell lines."""
    text = "\n".join(lines).replace("\\\n", " ")
    for line in text.splitlines():
        for part in _SUBSTITUTION.sub("X", line.removeprefix("$ ")).split(" | "):
            words = shlex.split(part, comments=True)
            while words and _ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words and words[0] == PROGRAM:
                yield list(_without_redirections(words[1:]))


def _without_redirections(words: list[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word in (">", ">>", "<"):
            next(rest)
        else:
            yield word


def written() -> list[tuple[str, list[str]]]:
    """Return every call in a console block of a page."""
    return [
        (page.name, call)
        for page in PAGES
        for block in fenced(page.read_text(encoding="utf-8"), "console")
        for call in calls(line for line in block if line.startswith(("$ ", " ")))
    ]


def mentioned() -> list[tuple[str, str]]:
    """Return every call in running text; it may be cut short, and end in an ellipsis."""
    return [
        (page.name, match[1].replace("\n", " "))
        for page in PAGES
        for match in _INLINE.finditer(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "call"), written(), ids=lambda value: shlex.join(value)[:60] if value else "none")
def test_every_command_line_in_the_documentation_is_valid(page: str, call: list[str]) -> None:
    command, context, words = find(list(call))
    try:
        command.make_context(context.info_name, words, parent=context.parent)
    except click.ClickException as error:
        pytest.fail(f"{page}: {PROGRAM} {shlex.join(call)}: {error.format_message()}")


@pytest.mark.parametrize(("page", "text"), mentioned(), ids=str)
def test_every_command_mentioned_in_the_documentation_exists(page: str, text: str) -> None:
    words = list(_without_redirections(shlex.split(text.partition("…")[0])[1:]))
    try:
        command, context, rest = find(words)
        command.make_parser(context).parse_args(rest)
    except click.ClickException as error:
        pytest.fail(f"{page}: {text}: {error.format_message()}")


@pytest.mark.parametrize(
    ("path", "command"), list(walk(main)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_in_help_are_valid(path: str, command: click.Command) -> None:
    epilog = re.sub(r"\\\n\s*", " ", command.epilog or "")
    shown = list(calls(line.strip() for line in epilog.splitlines()))
    assert shown, path
    for call in shown:
        command, context, words = find(call)
        command.make_context(context.info_name, words, parent=context.parent)


def test_wrong_command_line_is_detected() -> None:
    assert list(calls(["$ A=1 broker-auth token keys a \\", "    b > c | broker-auth why x  # so", "made"])) == [
        ["token", "keys", "a", "b"],
        ["why", "x"],
    ]
    for wrong in ("tokens", "token make", "serve --configuration x", "serve --config", "config render f --role hub"):
        with pytest.raises(click.ClickException):  # noqa: PT012 - either step may fail
            command, context, words = find(wrong.split())
            command.make_context(context.info_name, words, parent=context.parent)


def test_command_lines_are_found() -> None:
    assert len(written()) > 20
    assert len(mentioned()) > 20
    assert isinstance(main, LazyGroup)


def test_every_make_target_mentioned_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [*re.findall(r"`([^`\n]+)`", text), *(line for block in fenced(text, "console") for line in block)]
        named = {match for piece in code for match in _TARGET.findall(piece)}
        assert named <= targets, page.name


@pytest.mark.parametrize(
    ("path", "command"), list(walk(main)), ids=lambda value: value if isinstance(value, str) else ""
)
def test_command_reference_names_every_option(path: str, command: click.Command) -> None:
    section = reference().partition(f"\n## {path}\n")[2].partition("\n## ")[0]
    names = {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
    assert names == {name for name in re.findall(r"`(-[\w-]+)[^`]*`", section) if name in names}
    assert command.epilog is None or "Example" in section
