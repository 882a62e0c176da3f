"""Zones: groups of brokers that share keys and worker processes (docs/policy.md#zones).

A zone limits the damage of a compromised broker. The fleet is one zone, with the general keys of this service; each
edge is another zone, with keys that servers of the fleet do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from broker_auth.natsio.nkey import NkeyKind, public_nkey
from broker_auth.secret import Secret
from broker_auth.settings.checks.fleet_auth import fleet_is_static
from broker_auth.settings.keys import broker as broker_keys
from broker_auth.settings.keys import own
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.keys import zone as keys
from broker_auth.settings.keys.key import AnyKey, Key
from broker_auth.settings.model import FLEET_ZONE, Role, Zone
from broker_auth.settings.seeds import read_seed
from broker_auth.settings.source import Source

_PAGE: Final = "docs/zones.md"


def zone_of(source: Source, broker: str) -> str:
    """Return the name of a broker's zone."""
    written = source.get(broker_keys.ZONE, broker)
    if not source.get(broker_keys.ROLE, broker).is_outpost:
        return FLEET_ZONE
    return written or broker


def zones(source: Source, names: Iterable[str], *, serving: bool, only: str | None, remote: bool) -> tuple[Zone, ...]:
    """Return the zones of these brokers, the fleet's first.

    Args:
        source: the configuration.
        names: the served brokers.
        serving: whether to read seeds.
        only: the only zone whose keys are needed; None for all zones.
        remote: whether seed files of edges may be missing, because their workers run on other hosts.
    """
    brokers = tuple(names)
    _check_brokers(source, brokers)
    served: dict[str, str] = {}
    for name in brokers:
        served.setdefault(zone_of(source, name), name)
    _check_described(source, served)
    result = []
    for name in sorted(served or (FLEET_ZONE,), key=lambda zone: zone != FLEET_ZONE):
        if only in (None, name):
            result.append(_zone(source, name, serving=serving, remote=remote and name != FLEET_ZONE))
        if name != FLEET_ZONE and not _has_own_keys(source, name):
            _report_shared_keys(source, served[name], name)
    _check_distinct(source, result)
    return tuple(result)


def _check_brokers(source: Source, brokers: tuple[str, ...]) -> None:
    roles: dict[str, Role] = {}
    for name in brokers:
        role = source.get(broker_keys.ROLE, name)
        if role.is_outpost and (source.get(broker_keys.ZONE, name) or name) == FLEET_ZONE:
            remedy = f"set {broker_keys.ZONE.of(name)} to another name"
            called = "an edge" if role is Role.EDGE else "a gate"
            source.problem(broker_keys.ROLE, f"{called} cannot be in the zone {FLEET_ZONE!r}", remedy, name)
        elif not role.is_outpost and source.get(broker_keys.ZONE, name) not in (None, FLEET_ZONE):
            remedy = "remove it, or set the role to edge or gate"
            what = f"only edges and gates have a zone other than {FLEET_ZONE!r}"
            source.problem(broker_keys.ZONE, what, remedy, name)
        elif role.is_outpost and roles.setdefault(zone_of(source, name), role) is not role:
            what = f"edges and gates are decided by different rules, and both are in the zone {zone_of(source, name)!r}"
            source.problem(broker_keys.ROLE, what, f"set {broker_keys.ZONE.of(name)} to another name", name)


def _check_described(source: Source, served: Iterable[str]) -> None:
    """Report once each zone without brokers, and the fleet's zone, whose keys are the general ones."""
    reported: set[str] = set()
    for written, entry in source.entries.items():
        match = keytable.find(written)
        if match is None or match[0] not in keys.ZONE_KEYS or match[1] in reported:
            continue
        name = match[1]
        if name == FLEET_ZONE:
            general = written.replace(f"zone.{FLEET_ZONE}.", "")
            source.findings.problem(entry.problem("the fleet's keys are the general ones", f"write {general}"))
        elif name not in served:
            remedy = f"remove it, or set {broker_keys.ZONE.name} of an edge or a gate to {name}"
            source.findings.problem(entry.problem(f"describes zone {name!r}, which no broker is in", remedy))
        else:
            continue
        reported.add(name)


def _has_own_keys(source: Source, name: str) -> bool:
    return any(source.is_set(key, name) for key in (*keys.SEED_KEYS, keys.BREAK_GLASS, keys.KICK))


def _report_shared_keys(source: Source, broker: str, zone: str) -> None:
    """Warn of an edge with the fleet's keys, as 0.1.0 wrote it; a gate never had them."""
    role = source.get(broker_keys.ROLE, broker)
    what = (
        f"the {role} uses the fleet's keys, so an attacker who compromises it can log in to the fleet as this service"
    )
    remedy = f"set {', '.join(key.of(zone) for key in keys.SEED_KEYS)} ({_PAGE})"
    report = source.warning if role is Role.EDGE else source.problem
    report(broker_keys.ROLE, what, remedy, broker)


def _zone(source: Source, name: str, *, serving: bool, remote: bool) -> Zone:
    own_keys = name != FLEET_ZONE and _has_own_keys(source, name)
    workers = source.get(own.WORKERS) if name == FLEET_ZONE else source.get(keys.WORKERS, name)
    served = name != FLEET_ZONE or not fleet_is_static(source)
    seeds = _Seeds(source, name if own_keys else "", remote=remote) if serving and served else None
    return Zone(
        name=name,
        nkey_seed=seeds.nkey() if seeds else None,
        issuer_seed=seeds.issuer() if seeds else None,
        xkey_seed=seeds.xkey() if seeds else None,
        break_glass_nkey=source.get(keys.BREAK_GLASS, name) if own_keys else source.get(own.BREAK_GLASS),
        kick_nkey=source.get(keys.KICK, name) if own_keys else source.get(own.KICK),
        kick_seed_file=source.get(keys.KICK_SEED_FILE, name) if own_keys else source.get(own.KICK_SEED_FILE),
        reader_nkey=None if name == FLEET_ZONE else source.get(keys.READER, name),
        reader_seed_file=None if name == FLEET_ZONE else source.get(keys.READER_SEED_FILE, name),
        workers=workers or source.get(own.WORKERS),
        has_own_keys=own_keys or name == FLEET_ZONE,
        served=served,
    )


class _Seeds:
    """A reader of one zone's seeds; ``name`` is empty for the general keys."""

    def __init__(self, source: Source, name: str, *, remote: bool) -> None:
        self._source = source
        self._name = name
        self._remote = remote

    def nkey(self) -> Secret | None:
        return self._required(keys.NKEY_SEED_FILE if self._name else own.NKEY_SEED_FILE, NkeyKind.USER)

    def issuer(self) -> Secret | None:
        return self._required(keys.ISSUER_SEED_FILE if self._name else own.ISSUER_SEED_FILE, NkeyKind.ACCOUNT)

    def xkey(self) -> Secret | None:
        key = keys.XKEY_SEED_FILE if self._name else own.XKEY_SEED_FILE
        if not self._source.is_set(key, self._name):
            what = "is not set, so requests carry passwords and tokens in clear"
            self._source.warning(key, what, "set it, and the xkey in nats-server", self._name)
        return self._read(key, NkeyKind.CURVE)

    def _required(self, key: Key[Path | None], kind: NkeyKind) -> Secret | None:
        if not self._source.is_set(key, self._name):
            remedy = "name the file that `broker-auth init` wrote, or make a file"
            self._source.problem(key, "is not set", remedy, self._name)
        return self._read(key, kind)

    def _read(self, key: Key[Path | None], kind: NkeyKind) -> Secret | None:
        path = self._source.get(key, self._name)
        if path is None or (self._remote and not path.exists()):
            return None
        return self._source.attempt(lambda: read_seed(path, kind), key, self._name)


def _check_distinct(source: Source, read: Iterable[Zone]) -> None:
    """Report a key that two zones share: an attacker who has it in one zone could use it in the other."""
    known: dict[str, str] = {}
    for zone in read:
        held = _public_keys(zone)
        for key, text in held.items():
            other = known.setdefault(text, zone.name)
            if other != zone.name:
                remedy = f"make another key for zone {zone.name}"
                source.problem(key, f"is also the key of zone {other}", remedy, zone.name)
        _check_user(source, zone, own.KICK if zone.is_fleet else keys.KICK, held)
        _check_user(source, zone, keys.READER, held)
        if zone.has_own_keys:
            seed_file = own.KICK_SEED_FILE if zone.is_fleet else keys.KICK_SEED_FILE
            _check_seed_file(source, zone, seed_file, zone.kick_seed_file)
        _check_seed_file(source, zone, keys.READER_SEED_FILE, zone.reader_seed_file)


def _public_keys(zone: Zone) -> dict[AnyKey, str]:
    """Return the public keys of a zone that are known here; those of an edge with the fleet's keys are the fleet's."""
    seeds = zip(keys.SEED_KEYS, (zone.nkey_seed, zone.issuer_seed, zone.xkey_seed), strict=True)
    held: dict[AnyKey, str | None] = {key: public_nkey(seed.reveal()) if seed else None for key, seed in seeds}
    held[keys.BREAK_GLASS] = zone.break_glass_nkey
    held[own.KICK if zone.is_fleet else keys.KICK] = zone.kick_nkey
    own_keys = held if zone.has_own_keys else {}
    return {key: text for key, text in (own_keys | {keys.READER: zone.reader_nkey}).items() if text}


def _check_user(source: Source, zone: Zone, key: AnyKey, held: Mapping[AnyKey, str]) -> None:
    """Report a user that is another user too: nats-server takes each key once, with one list of permissions."""
    if key in held and any(held[key] == text for other, text in held.items() if other is not key):
        name = "" if zone.is_fleet else zone.name
        source.problem(key, "is also another key of this zone", "make another key for it", name)


def _check_seed_file(source: Source, zone: Zone, key: AnyKey, path: Path | None) -> None:
    """Report a seed whose user is not named."""
    name = "" if zone.is_fleet else zone.name
    user = key.of(name).replace("_seed_file", "_nkey")
    if path is not None and user not in source.entries:
        short = user.rpartition(".")[2]
        source.problem(key, f"is set, and {short} is not", f"set {short} to the public key of that seed", name)
