"""Options and argument types that several commands share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
from click.core import ParameterSource

from broker_auth.errors import InputError
from broker_auth.settings.keys.durations import parse_duration
from broker_auth.times import MAX_TIME

if TYPE_CHECKING:
    _Seconds = click.ParamType[float]
else:
    _Seconds = click.ParamType  # generic only in newer versions of click

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_F = TypeVar("_F", bound=Callable[..., Any])


class Duration(_Seconds):
    """A parameter type for durations such as ``30s``, ``1h30m``, ``7d``, ``1y``, converted to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float | int):
            return float(value)
        try:
            return parse_duration(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class Moment(_Seconds):
    """A parameter type for times in RFC 3339 or Unix seconds, converted to Unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the Unix seconds."""
        if isinstance(value, float):
            return value
        moment = parse_time(value)
        if moment is None:
            self.fail("write a time like 2030-01-31T12:00:00Z, or as Unix seconds", param, ctx)
        return moment


def parse_time(text: str) -> float | None:
    """Parse an RFC 3339 time with its zone, a date (its start in UTC), or Unix seconds; None if ``text`` is neither."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        return seconds if 0 <= seconds <= MAX_TIME else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if _DATE.fullmatch(text):
        moment = moment.replace(tzinfo=UTC)
    return None if moment.tzinfo is None else moment.timestamp()


DURATION: Final = Duration()
MOMENT: Final = Moment()
FILE: Final = click.Path(path_type=Path, dir_okay=False)
FILE_OR_DASH: Final = click.Path(allow_dash=True)  # a name, for completion; the command reads it and reports errors
DIRECTORY: Final = click.Path(path_type=Path, file_okay=False)


def json_option(function: _F) -> _F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def force_option(function: _F) -> _F:
    """Add ``--force``."""
    return click.option("--force", "-f", is_flag=True, help="Overwrite existing files.")(function)


def config_option(function: _F) -> _F:
    """Add ``--config``, which is required."""
    return click.option(
        "--config", "-c", type=FILE, required=True, envvar="BROKER_AUTH_CONFIG", help="The configuration file."
    )(function)


def config_argument(function: _F) -> _F:
    """Add the configuration as the argument ``FILE``; other commands name it ``--config``, so that works too."""

    @functools.wraps(function)
    def with_file(*args: Any, file: Path | None, config: Path | None, **kwargs: Any) -> Any:
        source = click.get_current_context().get_parameter_source("config")
        if file is not None and source is ParameterSource.COMMANDLINE:
            raise click.UsageError("name the configuration once, as FILE or with --config")
        if file is None and config is None:
            raise click.UsageError("name the configuration: FILE, or --config FILE")
        return function(*args, file=file or config, **kwargs)

    argument = click.argument("file", metavar="FILE", type=FILE, required=False)
    option = click.option("--config", "-c", type=FILE, envvar="BROKER_AUTH_CONFIG", help="The same as FILE.")
    return cast(_F, argument(option(with_file)))


def optional_config_option(text: str) -> Callable[[_F], _F]:
    """Add ``--config``, which may be missing, with this help."""
    return click.option("--config", "-c", type=FILE, envvar="BROKER_AUTH_CONFIG", help=text)


def example(*lines: str) -> str:
    """Return a help epilog with examples."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
