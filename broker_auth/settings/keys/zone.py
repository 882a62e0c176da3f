"""The configuration keys of one zone other than the fleet's: ``plugin.broker_auth.zone.<name>.…``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from broker_auth.settings.keys import values
from broker_auth.settings.keys.key import PREFIX, AnyKey, Key
from broker_auth.settings.keys.own import MAX_WORKERS

ZONE: Final = f"{PREFIX}zone.<name>."


def _file(name: str, meaning: str) -> Key[Path | None]:
    return Key(name=ZONE + name, kind="file", parse=values.path, default=None, meaning=meaning)


NKEY_SEED_FILE: Final = _file(
    "nkey_seed_file",
    "File (mode 0600) with the user nkey seed (`SU…`) of this service's login to the brokers of this zone, and to "
    "no others.",
)
ISSUER_SEED_FILE: Final = _file(
    "issuer_seed_file", "File (mode 0600) with the account nkey seed (`SA…`) that signs responses to this zone."
)
XKEY_SEED_FILE: Final = _file(
    "xkey_seed_file",
    "File (mode 0600) with the curve nkey seed (`SX…`) for the requests of this zone. Not set: its requests carry "
    "tokens in clear.",
)
BREAK_GLASS: Final[Key[str | None]] = Key(
    name=f"{ZONE}break_glass_nkey",
    kind="public nkey",
    parse=values.user_nkey,
    default=None,
    meaning="Public user nkey (`U…`) of the break-glass user of this zone's servers.",
)
KICK: Final[Key[str | None]] = Key(
    name=f"{ZONE}kick_nkey",
    kind="public nkey",
    parse=values.user_nkey,
    default=None,
    meaning="Public user nkey (`U…`) that this zone's servers admit to their system account only to list and end "
    "connections.",
)
KICK_SEED_FILE: Final = _file("kick_seed_file", "File (mode 0600) with the seed of that user, for commands only.")
READER: Final[Key[str | None]] = Key(
    name=f"{ZONE}reader_nkey",
    kind="public nkey",
    parse=values.user_nkey,
    default=None,
    meaning="Public user nkey (`U…`) of this zone's [reader](zones.md#readers), by which a host that serves this zone "
    "and not the fleet's learns what was revoked. The fleet's servers admit it if `revocations_bucket` is set.",
)
READER_SEED_FILE: Final = _file(
    "reader_seed_file",
    "File (mode 0600) with the seed of `reader_nkey`, which `serve --zone` of this zone reads and nothing else.",
)
READER_CERTIFICATE: Final = _file(
    "reader_certificate",
    "Certificate (PEM, with its chain) that the reader presents to the fleet's servers, if they require one. It must "
    "not be [one of a member](zones.md#readers).",
)
READER_KEY: Final = _file("reader_key", "Private key (PEM, not encrypted, mode 0600) of that certificate.")
WORKERS: Final[Key[int | None]] = Key(
    name=f"{ZONE}workers",
    kind="number",
    parse=values.integer(1, MAX_WORKERS),
    default=None,
    shown=f"{PREFIX}workers",
    meaning="Number of worker processes of this zone.",
)

SEED_KEYS: Final = (NKEY_SEED_FILE, ISSUER_SEED_FILE, XKEY_SEED_FILE)
READER_KEYS: Final[tuple[AnyKey, ...]] = (READER, READER_SEED_FILE, READER_CERTIFICATE, READER_KEY)
ZONE_KEYS: Final[tuple[AnyKey, ...]] = (*SEED_KEYS, BREAK_GLASS, KICK, KICK_SEED_FILE, *READER_KEYS, WORKERS)
