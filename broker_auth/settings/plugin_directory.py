"""``plugin.d`` beside the configuration file, read as Choria reads it: over the main file.

In ``plugin.d/NAME.cfg`` a key is written without its ``plugin.NAME.``. Choria's own settings come from
``choria.cfg`` alone; of other files only keys without a field in its configuration count, such as an issuer's public
key in ``security.cfg`` (go-choria config/util.go, parseAllDotCfg). This service reads its keys in ``broker_auth.cfg``.
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
        The files that keys were taken from, by name.
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
    """Add the keys of one file that count; warn of the others that this service knows."""
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
    """Return whether Choria takes a key from this file; warn of a known key that it does not take."""
    if keytable.find(entry.key) is None:
        return False
    if path.suffix == ".cfg" and ISSUER_PUBLIC.match(entry.key):
        return True
    what = "has no effect here: Choria takes this key from the main file or plugin.d/choria.cfg only"
    if path.suffix != ".cfg":
        what = "has no effect here: Choria reads files named .cfg only"
    remedy = f"write it as {shown_key(entry.key)} into {source.path}"
    source.findings.warning(entry.problem(what, remedy))
    return False
