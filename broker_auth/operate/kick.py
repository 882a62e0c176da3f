"""Seeds of kick users: who may only list and end connections (docs/zones.md#kick-users).

Commands read them; no process of the service does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, public_nkey
from broker_auth.secret import Secret
from broker_auth.settings.keys import own
from broker_auth.settings.keys import zone as zone_keys
from broker_auth.settings.model import Settings, Zone
from broker_auth.settings.problems import Problem
from broker_auth.settings.seeds import read_seed

_REMEDY: Final = "name the file with the seed of kick_nkey, or give it as --kick-seed"


def read_kick_seed(zone: Zone) -> Secret | None:
    """Return the seed of a zone's kick user from its configured file; None if there is no such file here.

    Raises:
        BadValue: the file cannot be read, or holds another key.
    """
    path = zone.kick_seed_file
    if path is None or not os.path.lexists(path):
        return None
    seed = read_seed(path, NkeyKind.USER)
    if public_nkey(seed.reveal()) != zone.kick_nkey:
        raise BadValue(f"{path} is not the seed of kick_nkey", _REMEDY)
    return seed


def kick_problems(settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each zone whose seed file is there and cannot be used."""
    for zone in settings.zones:
        try:
            read_kick_seed(zone)
        except BadValue as error:
            key = own.KICK_SEED_FILE.name if zone.is_fleet else zone_keys.KICK_SEED_FILE.of(zone.name)
            yield Problem(file=str(settings.path), key=key, what=error.what, remedy=error.remedy)
