"""``plugin.d`` next to the configuration file, which overrides the main file as in Choria.

In ``plugin.d/NAME.cfg`` keys omit the prefix ``plugin.NAME.``. Choria reads its own settings only from ``choria.cfg``,
and from other files only keys without a field in its configuration, such as an issuer's public key in
``security.cfg`` (go-choria config/util.go, parseAllDotCfg). This service reads its keys from ``broker_auth.cfg``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.files.reading import BadValue, FileContent, read
from broker_auth.settings.choria_file import MAX_FILE_BYTES, Entry, parse
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.keys.choria import ISSUER_PUBLIC
from broker_auth.settings.keys.key import PREFIX
from broker_auth.settings.problems import Findings, Problem, shown_key
from broker_auth.settings.source import Source

DIRECTORY: Final = "plugin.d"
_CHORIA: Final = "plugin.choria."


def add_plugin_directory(source: Source) -> dict[str, FileContent]:
    """Add the keys in ``plugin.d`` to those of the main file.

    Returns:
        The files from which keys were read, by name.
    """
    directory = source.path.parent / DIRECTORY
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in (".cfg", ".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        what = f"cannot be listed ({error.strerror or type(error).__name__}), and Choria reads it"
        source.findings.problem(Problem(file=str(directory), what=what, remedy="correct its permissions"))
        return {}
    added = {}
    for path in files:
        if (content := _add(source, path)) is not None:
            added[str(path)] = content
    return added


def _add(source: Source, path: Path) -> FileContent | None:
    """Add the keys of one file that are read; warn about others that this service knows."""
    try:
        content = read(path, MAX_FILE_BYTES)
    except BadValue as error:
        if path.stem in ("choria", "security", "broker_auth"):
            what = error.what.removeprefix(f"{path} ")
            source.findings.problem(Problem(file=str(path), what=what, remedy=error.remedy))
        return None
    prefix = f"plugin.{path.stem}."
    counts = path.suffix == ".cfg" and prefix in (_CHORIA, PREFIX)
    findings = source.findings if counts else Findings(file=str(path))
    entries = parse(content.data, findings, file=str(path), prefix=prefix)
    if not counts:
        entries = [entry for entry in entries if _is_read(source, path, entry)]
    source.add_file(entries)
    return content if entries else None


def _is_read(source: Source, path: Path, entry: Entry) -> bool:
    """Return whether Choria reads a key from this file; warn about a known key that it does not read."""
    if keytable.find(entry.key) is None:
        return False
    if path.suffix == ".cfg" and ISSUER_PUBLIC.match(entry.key):
        return True
    what = "has no effect here: Choria reads this key only from the main file or plugin.d/choria.cfg"
    if path.suffix != ".cfg":
        what = "has no effect here: Choria reads only files named .cfg"
    remedy = f"write it as {shown_key(entry.key)} into {source.path}"
    source.findings.warning(entry.problem(what, remedy))
    return False
