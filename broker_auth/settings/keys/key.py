"""A configuration key: its name, its parser, its default and its meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from broker_auth.settings.keys.values import Parser

T = TypeVar("T")

PREFIX: Final = "plugin.broker_auth."
ENVIRONMENT: Final = "BROKER_AUTH_"
PLACEHOLDER: Final = "<name>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T]):
    """A row of the table from which configurations are parsed and their reference is written.

    Attributes:
        name: the full key; ``<name>`` stands for the name of a broker, a zone or an issuer.
        kind: the type of the value in words, for the reference.
        parse: converts the text into the value.
        default: the value if the key is not set.
        shown: the default in the reference; empty if the key has no default.
        meaning: one paragraph of Markdown.
        secret: the value must not be shown.
        dotted: the name in the key may hold dots.
    """

    name: str
    kind: str
    parse: Parser[T]
    default: T
    shown: str = ""
    meaning: str
    secret: bool = False
    dotted: bool = False
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare the match of a key with a name in it."""
        name = r"(\S+)" if self.dotted else r"([^.\s]+)"
        pattern = re.escape(self.name).replace(re.escape(PLACEHOLDER), name)
        object.__setattr__(self, "_pattern", re.compile(pattern))

    @property
    def named(self) -> bool:
        """Whether the key exists once for each broker, zone or issuer."""
        return PLACEHOLDER in self.name

    def of(self, name: str) -> str:
        """Return the full key for one broker, zone or issuer."""
        return self.name.replace(PLACEHOLDER, name)

    def match(self, written: str) -> re.Match[str] | None:
        """Match a key in a file; group 1 is the name, for a key with a name."""
        return self._pattern.fullmatch(written)


AnyKey = Key[Any]


def variable(written: str) -> str:
    """Return the environment variable that overrides a key, e.g. ``BROKER_AUTH_XKEY_SEED_FILE``."""
    short = written.removeprefix(PREFIX)
    return ENVIRONMENT + re.sub(r"[^A-Za-z0-9<>]", "_", short).upper()
