"""Revocations that a look-up cannot find: patterns of identities, and networks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from broker_auth.certificates.peer import PREFIXES
from broker_auth.policy.revocations import Key, RevocationKind, Revoked, Term, expression


class Patterns:
    """The patterns among revoked identities; each costs a match per admission."""

    __slots__ = ("_patterns",)

    def __init__(self, identities: Mapping[Key, Term]) -> None:
        self._patterns: list[tuple[re.Pattern[str], str, Term]] = []
        for identity, term in identities.items():
            if (pattern := expression(str(identity))) is not None:
                self._patterns.append((pattern, str(identity), term))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._patterns)

    def find(self, names: Iterable[str], now: float) -> Revoked | None:
        """Return the revocation whose pattern matches one of these names as a whole."""
        for pattern, text, term in self._patterns:
            if now < term.until and any(
                _prefix(name) == _prefix(pattern.pattern) and pattern.fullmatch(name) for name in names
            ):
                return Revoked(RevocationKind.IDENTITY, text)
        return None


class Networks:
    """Revoked networks: one look-up for each length of prefix that occurs."""

    __slots__ = ("_by_size",)

    def __init__(self, networks: Mapping[Key, Term]) -> None:
        self._by_size: dict[tuple[int, int], dict[int, tuple[str, Term]]] = {}
        for text, term in networks.items():
            network = ipaddress.ip_network(str(text))
            shift = network.max_prefixlen - network.prefixlen
            held = self._by_size.setdefault((network.version, shift), {})
            held[int(network.network_address) >> shift] = (str(text), term)

    def __bool__(self) -> bool:
        """Return whether there is any network."""
        return bool(self._by_size)

    def find(self, host: str, now: float) -> Revoked | None:
        """Return the revocation of a network that contains this address; None also for text that is not an address."""
        address = _address(host)
        if address is None:
            return None
        version, number = address
        for (of_version, shift), held in self._by_size.items():
            if of_version == version and (entry := held.get(number >> shift)) and now < entry[1].until:
                return Revoked(RevocationKind.NETWORK, entry[0])
        return None


def _prefix(name: str) -> str:
    """Return the prefix for which a name or an expression is written, as for provisioners' identities."""
    return next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")


def _address(host: str) -> tuple[int, int] | None:
    """Return the version and number of an IP address, of IPv4 in IPv6 as of IPv4; None for other text."""
    parts = host.split(".")
    if len(parts) == 4 and host.isascii() and host.replace(".", "").isdigit():  # the usual form, read fast
        try:
            return 4, int.from_bytes(map(int, parts), "big")
        except ValueError:
            return None
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.version, int(address)
