"""The files of a configuration: who can read the secrets in them, and who can change them."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from broker_auth.files.ownership import objection, user_name
from broker_auth.files.reading import OTHERS, FileContent
from broker_auth.settings.keys.table import find
from broker_auth.settings.plugin_directory import DIRECTORY
from broker_auth.settings.problems import Problem
from broker_auth.settings.source import Source


def check_files(source: Source, files: Mapping[str, FileContent]) -> None:
    """Report files that others can read although they hold secrets, and files that others can change.

    Args:
        source: the configuration.
        files: its files by name, with what they hold.
    """
    _check_modes(source, files)
    _warn_of_writers(source, files)


def _check_modes(source: Source, files: Mapping[str, FileContent]) -> None:
    """Check the mode of configuration files with inline secrets; report the first such line of each."""
    checked = set()
    for entry in source.entries.values():
        match = find(entry.key)
        inline = entry.line is not None and entry.value and not entry.value.startswith("file:")
        if match is None or not match[0].secret or not inline or entry.file in checked:
            continue
        checked.add(entry.file)
        content = files[entry.file]
        remedy = f"run: chmod 600 {entry.file}, or write the secret as file:PATH"
        if content.mode & OTHERS:
            source.findings.problem(entry.problem("is written in a file that every user can access", remedy))
        elif (strange := objection(Path(entry.file), content.status)) is not None:
            source.findings.warning(entry.problem(f"is written in a file that {strange.what}", remedy))


def _warn_of_writers(source: Source, files: Mapping[str, FileContent]) -> None:
    """Warn about configuration files that others can change: they could admit themselves."""
    statuses = {file: content.status for file, content in files.items()}
    directory = source.path.parent / DIRECTORY
    with contextlib.suppress(OSError):
        statuses[str(directory)] = directory.stat()
    trusted = {0, os.geteuid(), files[source.findings.file].status.st_uid}
    for file, status in statuses.items():
        if status.st_mode & stat.S_IWOTH:
            what, remedy = "every user can write to it, and so decide who is admitted", f"run: chmod o-w {file}"
        elif status.st_uid not in trusted:
            what = f"belongs to user {user_name(status.st_uid)}, who can so decide who is admitted"
            remedy = f"run: chown {user_name(os.geteuid())} {file}"
        else:
            continue
        source.findings.warning(Problem(file=file, what=what, remedy=remedy))
