"""The formats of log lines: text for people, or one JSON object in each line.

Both escape characters that break lines or control a terminal, since clients and brokers choose some of the text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from broker_auth.printable import printable, printable_json, printable_lines

TEXT: Final = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_MAX_LINE: Final = 128 * 1024  # characters of a message; the longest is an audit record that includes the request
_DATA: Final = "data"
_DOCUMENT: Final = "document"


class LogFormat(StrEnum):
    """The formats of ``serve --log-format``."""

    TEXT = "text"
    JSON = "json"


def data(**values: str) -> Mapping[str, object]:
    """Return the ``extra`` of a log call that adds these keys to the line in JSON."""
    return {_DATA: values}


def document(line: str) -> Mapping[str, object]:
    """Return the ``extra`` of a log call whose line in JSON is this JSON document."""
    return {_DOCUMENT: line}


def formatter(chosen: LogFormat) -> logging.Formatter:
    """Return the formatter of a format."""
    return _JsonFormatter() if chosen is LogFormat.JSON else _TextFormatter(TEXT)


class _TextFormatter(logging.Formatter):
    """Text; a traceback has several lines."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info or record.stack_info:
            return printable_lines(super().format(record))
        return printable(super().format(record), _MAX_LINE)


class _JsonFormatter(logging.Formatter):
    """One JSON object (docs/interface.md#log-lines); an audit record is its own object."""

    def format(self, record: logging.LogRecord) -> str:
        line: str | None = getattr(record, _DOCUMENT, None)
        if line is not None:
            return line
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values: dict[str, object] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "process": record.process,
            "logger": record.name,
            "message": printable(record.getMessage(), _MAX_LINE),
            **getattr(record, _DATA, {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(values, ensure_ascii=False))
