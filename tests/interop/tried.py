"""Choria's programs on this machine, and the table of the tests that ran with them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PROPERTY: Final = "provisioning"  # property of a test's report: row and column in the table
NONE: Final = "none"
_WORDS: Final = {"passed": "yes", "failed": "**no**", "error": "**no**", "skipped": "not tried"}


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one complete provisioning.

    Attributes:
        server: Choria's server, which waits to be provisioned.
        client: Choria's commands.
        provisioner: Choria Provisioner.
    """

    server: Path
    client: Path
    provisioner: Path


def servers() -> list[Path]:
    """Return the programs in ``CHORIA_SERVERS``, separated as in ``PATH``; they may be missing."""
    return [Path(name) for name in os.environ.get("CHORIA_SERVERS", "").split(os.pathsep) if name]


def name(program: Path | None) -> str:
    """Return the name of the programs in test ids."""
    return program.name if program else "no server"


def missing(variable: str, program: Path | None, remedy: str) -> str | None:
    """Return why a program cannot be run; None if it exists."""
    if program is None:
        return f"${variable} is not set; {remedy}"
    return None if program.is_file() else f"{program.name} in ${variable} does not exist; {remedy}"


def attempts(stats: Mapping[str, Sequence[Any]]) -> dict[tuple[str, ...], str]:
    """Return programs, mode, topology, test and result of each provisioning, from a session's reports."""
    results = {}
    for result in ("skipped", "passed", "failed", "error"):  # a later report replaces an earlier one
        for report in stats.get(result, ()):
            for name, cells in getattr(report, "user_properties", ()):
                if name == PROPERTY:
                    results[tuple(cells)] = _WORDS[result]
    return results


def table(results: Mapping[tuple[str, ...], str]) -> list[str]:
    """Return the lines of the table, as in the documentation: a row for each shape, a column for each test."""
    columns = list(dict.fromkeys(what for *_, what in results))
    shapes = sorted({tuple(shape) for *shape, _ in results})
    head = ["Choria Server", "Provisioner", "mode", "topology", *columns]
    body = [[*shape, *(results.get((*shape, what), "") for what in columns)] for shape in shapes]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]
