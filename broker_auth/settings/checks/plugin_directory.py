"""``plugin.d`` beside the configuration file: Choria reads it, this service does not, and says so.

In ``plugin.d/NAME.cfg`` a key is written without its ``plugin.NAME.``; what stands there counts for Choria even
over the main file (go-choria, config/util.go, parseAllDotCfg). A restriction written there alone would be lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.files.reading import BadValue, read
from broker_auth.settings.choria_file import MAX_FILE_BYTES, Entry, parse
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.problems import Findings, Problem, shown_key
from broker_auth.settings.source import Source

DIRECTORY: Final = "plugin.d"
MAX_FILES: Final = 100  # a package has one
_SUFFIXES: Final = (".cfg", ".conf")


def warn_of_plugin_directory(source: Source) -> None:
    """Warn of each key of this service's that is set in ``plugin.d`` and not likewise in the main file."""
    directory = source.path.parent / DIRECTORY
    try:
        files = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
    except OSError:
        return  # there is none, or it is closed to us, and then to Choria
    for path in files[:MAX_FILES]:
        _look(source, path)


def _look(source: Source, path: Path) -> None:
    try:
        data = read(path, MAX_FILE_BYTES).data
    except BadValue as error:
        what = f"is not looked at: {error.what.removeprefix(f'{path} ')}; Choria reads it, this service does not"
        source.findings.warning(Problem(file=str(path), what=what, remedy=f"write what it sets into {source.path}"))
        return
    for entry in parse(data, Findings(file=str(path))):
        key = f"plugin.{path.stem}.{entry.key}"
        if keytable.find(key) is not None and not _same(source.entries.get(key), entry):
            what = "is set in plugin.d, which Choria reads and this service does not"
            remedy = f"write it as {shown_key(key)} into {source.path}"
            warning = Problem(file=str(path), line=entry.line, key=shown_key(entry.key), what=what, remedy=remedy)
            source.findings.warning(warning)


def _same(own: Entry | None, there: Entry) -> bool:
    return own is not None and own.value == there.value
