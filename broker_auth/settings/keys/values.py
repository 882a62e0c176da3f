"""Parsers of configuration values, one for each type.

A parser takes the text and the directory that relative paths start at, and raises
:class:`broker_auth.files.reading.BadValue` with the problem and the remedy.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final, TypeVar

from broker_auth.encoding import is_hex_key
from broker_auth.errors import InputError
from broker_auth.files.reading import BadValue, read_secret
from broker_auth.natsio.nkey import NkeyKind, decode_public
from broker_auth.secret import Secret
from broker_auth.settings.keys.durations import FORMS, parse_duration
from broker_auth.settings.model import KeySource
from broker_auth.settings.problems import shown
from broker_auth.settings.seeds import looks_like_seed

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
Parser = Callable[[str, Path], T]

MAX_PATTERN: Final = 512  # characters of one provisioner identity
MAX_NAME: Final = 128

_TRUE: Final = frozenset({"1", "yes", "true", "y", "t"})  # go-choria confkey, strToBool
_FALSE: Final = frozenset({"0", "no", "false", "n", "f"})
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ISSUER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST: Final = r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)"
_MAX_HOST: Final = 254  # RFC 1035, with the final dot
_HOST_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URL: Final = re.compile(rf"(?P<scheme>[a-z-]+)://{_HOST}(?::(?P<port>[0-9]{{1,5}}))?/?")
_ADDRESS: Final = re.compile(rf"{_HOST}:(?P<port>[0-9]{{1,5}})")


def boolean(text: str, _base: Path) -> bool:
    """Parse a boolean in any of Choria's spellings, ignoring case."""
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise BadValue(f"{shown(text)} is not a boolean", "write true or false")
    return word in _TRUE


def integer(low: int, high: int, *, also: int | None = None) -> Parser[int]:
    """Return a parser of whole numbers from ``low`` to ``high``, or exactly ``also``."""
    extra = "" if also is None else f" or {also}"
    remedy = f"write a whole number from {low} to {high}{extra}"

    def parse(text: str, _base: Path) -> int:
        if not _INTEGER.fullmatch(text):
            raise BadValue(f"{shown(text)} is not a whole number", remedy)
        value = int(text)
        if not low <= value <= high and value != also:
            raise BadValue(f"{value} is out of range", remedy)
        return value

    return parse


def duration(low: float, high: float, limits: str) -> Parser[float]:
    """Return a parser of durations between ``low`` and ``high`` seconds; ``limits`` is that range in words."""

    def parse(text: str, _base: Path) -> float:
        try:
            seconds = parse_duration(text)
        except InputError as error:
            raise BadValue(f"{shown(text)} is not a duration", FORMS) from error
        if not low <= seconds <= high:
            raise BadValue(f"{shown(text)} is out of range", f"write a duration {limits}")
        return seconds

    return parse


def listed(item: Parser[T]) -> Parser[tuple[T, ...]]:
    """Return a parser of comma-separated lists; items are trimmed, empty items dropped, an empty list is an error."""

    def parse(text: str, base: Path) -> tuple[T, ...]:
        return tuple(item(part, base) for part in _parts(text))

    return parse


def _parts(text: str) -> list[str]:
    parts = [part for part in (raw.strip() for raw in text.split(",")) if part]
    if not parts:
        raise BadValue("the list is empty", "write at least one item, or remove the line")
    return parts


def path(text: str, base: Path) -> Path:
    """Parse a path: relative ones start at ``base``, and ``~/`` is the home directory, as in Choria."""
    if looks_like_seed(text):
        raise BadValue("holds a seed, not the path of a file", "put the seed into a file of mode 0600, and name that")
    if not text.isprintable():
        raise BadValue("holds a control character", "write a plain path")
    if text == "~" or text.startswith("~/"):
        text = os.path.expanduser(text)  # noqa: PTH111  # leaves the text as it is where there is no home
    return Path(os.path.normpath(base / text))


def secret(text: str, base: Path) -> Secret:
    """Read a secret that is written inline or as ``file:PATH``."""
    if not text.startswith("file:"):
        return Secret(text)
    name = text.removeprefix("file:").strip()
    if not name:
        raise BadValue("names no file", "write file:PATH")
    return read_secret(path(name, base))


def string(text: str, _base: Path) -> str:
    """Accept any text without control characters."""
    if not text.isprintable():
        raise BadValue("holds a control character", "write plain text")
    return text


def word(text: str, _base: Path) -> str:
    """Check a name for nats-server: an account, user, server or cluster."""
    if len(text) > MAX_NAME or not re.fullmatch(r"[A-Za-z0-9_$.@-]+", text):
        raise BadValue(
            f"{shown(text)} is not a usable name", f"write at most {MAX_NAME} letters, digits, and any of _ - . @ $"
        )
    return text


def account(text: str, base: Path) -> str:
    """Check an account name; ``$G`` is the account of users that nats-server assigns to no other."""
    if text == "$G":
        raise BadValue("$G is nats-server's default account", "name another account")
    return word(text, base)


def broker_name(text: str, _base: Path) -> str:
    """Check a broker's name, which becomes part of keys and environment variables."""
    if not _NAME.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a usable name", "write at most 64 letters, digits, _ or -")
    return text


def issuer_name(text: str, _base: Path) -> str:
    """Parse an organization issuer's name: it becomes part of keys, and may hold dots as in Choria."""
    if not _ISSUER_NAME.fullmatch(text):
        raise BadValue(f"{shown(text)} is not a usable name", "write at most 64 letters, digits, dots, _ or -")
    return text


def choice(options: type[E]) -> Parser[E]:
    """Return a parser of the members of an enumeration."""

    def parse(text: str, _base: Path) -> E:
        try:
            return options(text)
        except ValueError as error:
            raise BadValue(f"{shown(text)} is not known", f"write one of {', '.join(options)}") from error

    return parse


def one_of(*names: str) -> Parser[str]:
    """Return a parser of some names, in their exact spelling."""

    def parse(text: str, _base: Path) -> str:
        if text not in names:
            raise BadValue(f"{shown(text)} is not known", f"write one of {', '.join(names)}")
        return text

    return parse


def hex_key(text: str, _base: Path) -> str:
    """Parse an Ed25519 public key of 64 hex characters, and convert it to lower case."""
    if not is_hex_key(text):
        what = f"is not an Ed25519 public key ({len(text)} characters)"
        raise BadValue(what, "write the issuer's public key as 64 hex characters")
    return text.lower()


def user_nkey(text: str, _base: Path) -> str:
    """Check the public nkey of a user; errors do not show the text, which may be the seed."""
    try:
        decode_public(text, NkeyKind.USER)
    except InputError as error:
        raise BadValue(str(error), "write the public key, U…; never the seed") from error
    return text


def key_source(text: str, base: Path) -> KeySource:
    """Parse a signer: 64 hex characters, or the path of a certificate or public key."""
    if is_hex_key(text):
        return KeySource(name=text[:16].lower(), hex=text.lower())
    return KeySource(name=text, path=path(text, base))


def network(text: str, _base: Path) -> IPv4Network | IPv6Network:
    """Parse an address or a CIDR; host bits may be set, as in Go's ``net.ParseCIDR``."""
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise BadValue(
            f"{shown(text)} is neither an address nor a CIDR", "write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
        ) from error


def url(*schemes: str) -> Parser[str]:
    """Return a parser of URLs that have one of ``schemes`` and consist only of host and port."""
    example = f"write it like {schemes[0]}://broker.example.net:4222 ({', '.join(schemes)})"

    def parse(text: str, _base: Path) -> str:
        if "@" in text:  # not shown: a password may precede the @
            raise BadValue("a URL holds a user name", "remove it; this service does not log in with a user name")
        match = _URL.fullmatch(text)
        if match is None:
            raise BadValue(f"{shown(text)} is not a URL of host and port", example)
        if match["scheme"] not in schemes:
            raise BadValue(f"{shown(text)} has an unknown scheme", example)
        host(match["host"])
        _check_port(match["port"])
        return text.removesuffix("/")

    return parse


def address(text: str, _base: Path) -> str:
    """Check a ``host:port`` to listen on."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise BadValue(f"{shown(text)} is not host:port", "write it like 0.0.0.0:4222 or [::]:4222")
    host(match["host"])
    _check_port(match["port"])
    return text


def host(text: str) -> str:
    """Return a host name or address as it is written, an IPv6 address without its brackets.

    Used for URLs, listeners and ``init``. Underscores are allowed, because names in Docker and elsewhere have them;
    so is the final dot of a complete name. A name that ends in a number is an address (as in WHATWG's URLs).

    Raises:
        BadValue: the text is neither a host name nor an address.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    labels = bare.removesuffix(".").split(".")
    if ":" in bare or bare != text or labels[-1].isdecimal():
        if _is_address(bare, in_brackets=bare != text):
            return bare
        raise BadValue(f"{shown(text)} is not an address", "write it like 192.0.2.7 or [2001:db8::7]")
    if len(bare) > _MAX_HOST or not all(map(_HOST_LABEL.fullmatch, labels)):
        raise BadValue(f"{shown(text)} is not a host name", "write it like broker.example.net")
    return bare


def _is_address(text: str, *, in_brackets: bool) -> bool:
    try:
        return ip_address(text).version == 6 or not in_brackets
    except ValueError:
        return False


def _check_port(port: str | None) -> None:
    if port is not None and not 1 <= int(port) <= 65535:
        raise BadValue(f"port {port} does not exist", "write a port from 1 to 65535")


def is_plaintext_elsewhere(text: str) -> bool:
    """Return whether a URL accepted by :func:`url` leaves this machine without requiring TLS."""
    match = _URL.fullmatch(text)
    if match is None or match["scheme"] not in ("nats", "ws"):
        return False
    name = match["host"].strip("[]")
    try:
        return not ip_address(name).is_loopback
    except ValueError:
        return name != "localhost"


def identities(text: str, _base: Path) -> tuple[str, ...]:
    """Parse a list of literals and ``/regular expressions/``; a comma between slashes does not separate."""
    items = []
    rest = text.strip(", \t")
    while rest:
        item, rest = _split_identity(rest)
        _check_identity(item)
        items.append(item)
        rest = rest.lstrip(", \t")
    if not items:
        raise BadValue("the list is empty", "write at least one identity, or remove the line")
    return tuple(items)


_REGEX_ITEM: Final = re.compile(r"/(?:[^\\]|\\.)*?/(?=\s*(?:,|\Z))")


def _split_identity(text: str) -> tuple[str, str]:
    if not text.startswith("/"):
        item, _, rest = text.partition(",")
        return item.strip(), rest
    match = _REGEX_ITEM.match(text)
    if match is None:
        raise BadValue(f"{shown(text)} has no closing slash", "write /regular expression/")
    return match[0], text[match.end() :]


def _check_identity(item: str) -> None:
    if len(item) > MAX_PATTERN:
        raise BadValue(f"{shown(item)} is longer than {MAX_PATTERN} characters", "write a shorter one")
    if not item.startswith("/"):
        return
    if len(item) < 3:
        raise BadValue("a regular expression is empty", "write /regular expression/")
    try:
        with warnings.catch_warnings():
            # A pattern that Python warns about as ambiguous may change its meaning in later versions.
            warnings.simplefilter("error")
            re.compile(item[1:-1])
    except (re.error, RecursionError, OverflowError, Warning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadValue(f"{shown(item)} is not a regular expression ({reason})", "correct it") from error
