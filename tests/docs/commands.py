"""The command reference ``docs/commands.md``, generated from the help of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

import click

from broker_auth.cli import main

PROGRAM: Final = "broker-auth"
_INTRODUCTION: Final = """\
# Commands

This page lists every command with its help, which `--help` prints too. [Interface](interface.md) lists the exit codes,
the JSON documents and the environment variables on which scripts may rely.
"""


def reference() -> str:
    """Return the content of ``docs/commands.md``."""
    return "\n".join([_INTRODUCTION, *(_section(path, command) for path, command in walk(main))])


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group that is not itself a group, with its full name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def _section(path: str, command: click.Command) -> str:
    arguments = [_argument(item) for item in command.params if isinstance(item, click.Argument)]
    options = [item for item in command.params if isinstance(item, click.Option) and not item.hidden]
    lines = [f"## {path}", "", "```text", " ".join([PROGRAM, path, "[OPTIONS]", *arguments]), "```", ""]
    lines += [*_paragraphs(command.help or ""), "| Option | Meaning |", "| --- | --- |"]
    lines += [f"| {_names(option)} | {_meaning(option)} |" for option in options]
    return "\n".join([*lines, "", *_paragraphs(command.epilog or "")])


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text in Markdown, those after ``\\b`` with their lines unchanged."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first.strip() == "\b":
            title, _, shown = rest.partition("\n")
            if shown:
                yield from (f"{title}\n", "```text", inspect.cleandoc(shown), "```\n")
            else:
                yield f"{title}\n"
        elif paragraph:
            yield " ".join(paragraph.split()) + "\n"


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper().replace("_", "-")
    return f"{name}..." if argument.nargs == -1 and not name.endswith(("...", "…")) else name


def _names(option: click.Option) -> str:
    value = "" if option.is_flag or isinstance(option.type, click.Choice) else f" {_metavar(option)}"
    names = sorted(option.opts, key=lambda name: (name.startswith("--"), option.opts.index(name)))
    return ", ".join(f"`{name}{value}`" for name in [*names, *option.secondary_opts])


def _metavar(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    return "NUMBER" if isinstance(option.type, click.IntRange) else option.type.name.upper()


def _meaning(option: click.Option) -> str:
    parts = [" ".join((option.help or "").split())]
    if isinstance(option.type, click.Choice):
        parts.append("One of " + ", ".join(f"`{choice}`" for choice in option.type.choices) + ".")
    if option.required:
        parts.append("Required.")
    if isinstance(option.show_default, str):
        parts.append(f"Default: `{option.show_default}`.")
    elif option.show_default and option.default is not None and not option.is_flag:
        parts.append(f"Default: `{option.default}`.")
    return " ".join(part for part in parts if part).replace("|", "\\|")
