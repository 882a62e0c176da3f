"""The table of all configuration keys: lookup, suggestions for misspellings, the reference."""

from __future__ import annotations

import difflib
import re
from typing import Final

from broker_auth.settings.keys.broker import BROKER, BROKER_KEYS
from broker_auth.settings.keys.choria import CHORIA_KEYS
from broker_auth.settings.keys.key import PLACEHOLDER, PREFIX, AnyKey, variable
from broker_auth.settings.keys.own import OWN_KEYS
from broker_auth.settings.keys.zone import ZONE, ZONE_KEYS

KEYS: Final[tuple[AnyKey, ...]] = (*CHORIA_KEYS, *OWN_KEYS, *BROKER_KEYS, *ZONE_KEYS)

_PLAIN: Final = {key.name: key for key in KEYS if not key.named}
_NAMED: Final = tuple(key for key in KEYS if key.named)

# An unknown key with such a prefix may be a misspelling that locks a fleet out or admits an attacker.
_GUARDED: Final = (
    "plugin.choria.network.provisioning.",
    "plugin.choria.network.system.",
    "plugin.security.issuer.",
)
_OWN_MISSPELT: Final = re.compile(r"(?:plugins?\.)?broker[-_.]?auth\.", re.IGNORECASE)
_MAX_COMPARED: Final = 160  # longer keys are not misspellings, and comparing is quadratic
_NEAR: Final = 0.6
_VERY_NEAR: Final = 0.88  # for the last word; client_port, a key of Choria, is not near client_hosts


def find(written: str) -> tuple[AnyKey, str] | None:
    """Return the key that ``written`` matches, and the broker's or issuer's name in it (else empty)."""
    if plain := _PLAIN.get(written):
        return plain, ""
    for key in _NAMED:
        if match := key.match(written):
            return key, match[1]
    return None


def is_own(written: str) -> bool:
    """Return whether an unknown key is meant for this service, and so is certainly a mistake."""
    return written.startswith(PREFIX) or _OWN_MISSPELT.match(written) is not None


def nearest(written: str) -> str | None:
    """Return the most similar known key, with its name filled in; None if no key is similar."""
    return _closest(written, [key.of(_name_in(written, key)) if key.named else key.name for key in KEYS], _NEAR)


def is_guarded(written: str) -> bool:
    """Return whether an unknown key belongs to a family in which a misspelling is dangerous."""
    return written.lower().startswith(_GUARDED)


def misspelt(written: str) -> str | None:
    """Return the key of Choria that an unknown key resembles closely, differing only in its last word.

    Choria has many keys that this service does not use, so less similar keys are not reported.
    """
    parent, _, word = written.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in _PLAIN if name.rpartition(".")[0] == parent]
    meant = _closest(word, siblings, _VERY_NEAR)
    return None if meant is None else f"{parent}.{meant}"


def variables(brokers: tuple[str, ...], issuers: tuple[str, ...], zones: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return every environment variable that overrides a key, and the keys it stands for.

    More than one key means that names differ only in characters that a variable's name cannot express.
    """
    table: dict[str, list[str]] = {}
    for key in KEYS:
        names = _names_in(key, brokers, issuers, zones)
        for written in dict.fromkeys(key.of(name) for name in names):
            table.setdefault(variable(written), []).append(written)
    return table


def _names_in(
    key: AnyKey, brokers: tuple[str, ...], issuers: tuple[str, ...], zones: tuple[str, ...]
) -> tuple[str, ...]:
    if not key.named:
        return ("",)
    if key.name.startswith(BROKER):
        return brokers
    return zones if key.name.startswith(ZONE) else issuers


def nearest_variable(name: str, known: list[str]) -> str | None:
    """Return the environment variable most similar to ``name``."""
    return _closest(name, known, _NEAR)


def _closest(written: str, known: list[str], cutoff: float) -> str | None:
    if len(written) > _MAX_COMPARED:
        return None
    return next(iter(difflib.get_close_matches(written, known, n=1, cutoff=cutoff)), None)


def _name_in(written: str, key: AnyKey) -> str:
    """Return the part of ``written`` at the place of the name in ``key``."""
    position = key.name.split(".").index(PLACEHOLDER)
    parts = written.split(".")
    return parts[position] if position < len(parts) and parts[position] else PLACEHOLDER


def reference() -> str:
    """Return the configuration reference in Markdown: every key with its type, default and meaning."""
    sections = (
        ("Keys of Choria", CHORIA_KEYS),
        ("Keys of this service", OWN_KEYS),
        ("Keys of one broker", BROKER_KEYS),
        ("Keys of one zone", ZONE_KEYS),
    )
    return "\n".join([_INTRODUCTION, *(_section(title, keys) for title, keys in sections)])


def _section(title: str, keys: tuple[AnyKey, ...]) -> str:
    return "\n".join([f"## {title}\n", *(_entry(key) for key in keys)])


def _entry(key: AnyKey) -> str:
    default = f"default `{key.shown}`" if key.shown else "not set by default"
    facts = f"{key.kind.capitalize()}; {default}. Environment: `{variable(key.name)}`."
    return f"### `{key.name}`\n\n{facts}\n\n{key.meaning}\n"


_INTRODUCTION: Final = """\
# Configuration

One file in Choria's format: `key = value` lines, `#` at the start of a line for comments. A value extends to the end
of its line. Keys of Choria that are not listed here are ignored, so that Choria's own file can be used; an unknown
key under `plugin.broker_auth.` is an error. `broker-auth config check FILE` reports everything at once.

* **Boolean**: `true`, `yes`, `y`, `t`, `1` or `false`, `no`, `n`, `f`, `0`, in any case.
* **Duration**: `500ms`, `30s`, `1h30m`, `7d`, `2w`, `1y` (365 days), `1M` (30 days); a bare number is seconds.
* **List**: comma separated; white space around the items does not count.
* **File**: relative paths start at the directory of the configuration file, also when the environment names them;
  `~/` is the home directory of the user that runs the program. Files with seeds, secrets and private keys must be
  [private](files.md#secrets-and-private-keys): mode 0600, or 0440 and 0640 for a group of the service. Accepted
  formats of certificates and keys: [Files](files.md).
* **Secret**: written inline, or `file:PATH` for a private file whose last line end is removed. A configuration
  file with an inline secret must not be readable by others.
* **Environment**: the variable listed with a key overrides the file. In the name of a broker or issuer, letters are
  upper case and `-` is `_`.
"""
