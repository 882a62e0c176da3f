"""The template of nats-server configurations, and the quoting of the values in it.

Jinja applies :func:`quote` to the value of each expression, so no value can terminate its string and inject
configuration.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from broker_auth.errors import InputError

_TEMPLATE = "nats-server.conf.j2"


class _Plain(str):
    """Literal text of the template, not to be quoted."""

    __slots__ = ()


def template() -> Template:
    """Return the template, from the installed package or from the root of a checkout.

    Raises:
        InputError: it is missing.
    """
    environment = Environment(  # noqa: S701 - not HTML: `finalize` quotes for nats-server instead
        undefined=StrictUndefined,
        finalize=quote,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["plain"] = _Plain
    return environment.from_string(_text())


def quote(value: object) -> str:
    """Return a value in nats-server's configuration language: a quoted string or a number.

    Raises:
        InputError: the value contains a control character, which no file name or address needs.
    """
    if isinstance(value, _Plain):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str | Path):
        raise InputError(f"a {type(value).__name__} cannot be written to a nats-server configuration")
    text = str(value)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise InputError(
            f"{text!r} contains a control character, which a nats-server configuration must not; choose another value"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text() -> str:
    here = Path(__file__)
    for path in (here.with_name(_TEMPLATE), here.parents[2] / _TEMPLATE):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InputError(f"{_TEMPLATE} is not part of this installation; install broker-auth again")
