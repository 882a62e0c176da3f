"""Choria's configuration format: ``key = value`` lines, ``#`` comments, blank lines.

Nothing is interpreted here. A line that Choria skips is skipped with a warning (go-choria config/util.go,
parseConfigContents); text that is not UTF-8 is a problem.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from broker_auth.settings.problems import Findings, Problem, shown_key

MAX_FILE_BYTES: Final = 256 * 1024  # a hundred times the largest known configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key that is set, its value and its place.

    Attributes:
        key: the full key, ``plugin.…``.
        value: trimmed; None if the value cannot be read, which has been reported.
        file: the configuration file or ``environment``, for problems.
        line: counted from 1; None in the environment.
        label: its name in problems: the key, or the environment variable.
    """

    key: str
    value: str | None
    file: str
    line: int | None
    label: str

    def problem(self, what: str, remedy: str) -> Problem:
        """Return a problem at the place of this entry."""
        return Problem(file=self.file, line=self.line, key=self.label, what=what, remedy=remedy)


def parse(data: bytes, findings: Findings, *, file: str = "", prefix: str = "") -> list[Entry]:
    """Return every ``key = value`` of ``data`` in order, duplicates included.

    Args:
        data: the content of a file.
        findings: takes problems and warnings.
        file: the file's name in them; by default that of the configuration file.
        prefix: stands before each key that is written, as in ``plugin.d``.

    A byte-order mark and CRLF are accepted. Only line feeds separate lines, so that line numbers match an editor's.
    A value extends to the end of the line: as in Choria, ``#`` in it does not start a comment.
    """
    file = file or findings.file
    entries = []
    for number, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        entry = _entry(line, number, findings, file, prefix)
        if entry is not None:
            entries.append(entry)
    return entries


def _entry(line: bytes, number: int, findings: Findings, file: str, prefix: str) -> Entry | None:
    def problem(what: str, remedy: str, key: str | None = None) -> None:
        findings.problem(Problem(file=file, line=number, key=key, what=what, remedy=remedy))

    def ignored(what: str) -> None:
        remedy = "write `key = value`, or start a comment with #"
        findings.warning(Problem(file=file, line=number, what=f"{what}, and is ignored, as Choria does", remedy=remedy))

    raw_key, separator, raw_value = line.partition(b"=")
    key = _decoded(raw_key)
    if key is None:
        problem("is not valid UTF-8", "save the file as UTF-8")
        return None
    if not separator:
        # The message does not quote the line, which may hold a password.
        ignored("is not `key = value`")
        return None
    if not key:
        ignored("has no key before the `=`")
        return None
    value = _decoded(raw_value)
    if value is None:
        problem("the value is not valid UTF-8", "save the file as UTF-8", shown_key(key))
    return Entry(key=prefix + key, value=value, file=file, line=number, label=shown_key(prefix + key))


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None
