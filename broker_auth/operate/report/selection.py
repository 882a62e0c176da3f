"""Selection and order of connections, similar to ``nats server report connections``."""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker_auth.errors import InputError
from broker_auth.operate.report.connections import Connection

SORTS: Final[Mapping[str, Callable[[Connection], Any]]] = {
    "name": lambda item: item.name,
    "identity": lambda item: item.identity,
    "server": lambda item: (item.server, item.cid),
    "account": lambda item: (item.account, item.identity),
    "ip": lambda item: _address(item.ip),
    "cid": lambda item: item.cid,
    "uptime": lambda item: item.connected,
    "subs": lambda item: item.subscriptions,
    "pending": lambda item: item.pending_bytes,
    "in-msgs": lambda item: item.in_msgs,
    "out-msgs": lambda item: item.out_msgs,
    "in-bytes": lambda item: item.in_bytes,
    "out-bytes": lambda item: item.out_bytes,
}
_LARGEST_FIRST: Final = frozenset({"subs", "pending", "in-msgs", "out-msgs", "in-bytes", "out-bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A selection of connections, and their order.

    ``name``, ``identity`` and ``server`` are shell patterns; ``host`` is an address or a network; ``subject`` is a
    subject that the connection has subscribed to; ``text`` is searched everywhere. With ``limit`` None all are shown.
    ``own`` keeps the connections of the command itself.
    """

    kinds: frozenset[str] = frozenset({"Client"})
    account: str | None = None
    name: str | None = None
    identity: str | None = None
    server: str | None = None
    host: str | None = None
    rule: str | None = None
    subject: str | None = None
    text: str | None = None
    sort: str = "uptime"
    reverse: bool = False
    limit: int | None = None
    own: bool = False

    def apply(self, connections: Iterable[Connection]) -> tuple[Connection, ...]:
        """Return the selected connections, sorted.

        Raises:
            InputError: ``host`` is neither an address nor a network.
        """
        network = _network(self.host)
        kept = [item for item in connections if self._fits(item) and (network is None or _within(item.ip, network))]
        descending = (self.sort in _LARGEST_FIRST) != self.reverse
        # Sort twice, so that ties have a stable order.
        kept.sort(key=lambda item: (item.server, item.cid))
        kept.sort(key=SORTS[self.sort], reverse=descending)
        return tuple(kept[: self.limit])

    def _fits(self, item: Connection) -> bool:
        return (
            (self.own or not item.own)
            and (not self.kinds or item.kind in self.kinds)
            and self.account in (None, item.account)
            and self.rule in (None, item.rule)
            and _matches(self.name, item.name)
            and _matches(self.identity, item.identity)
            and _matches(self.server, item.server)
            and (self.subject is None or any(overlap(self.subject, subject) for subject in item.subjects))
            and (self.text is None or self.text.lower() in _text(item))
        )


def overlap(one: str, other: str) -> bool:
    """Return whether a subject exists that both subjects match, which may contain wildcards."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def _matches(pattern: str | None, value: str) -> bool:
    return pattern is None or fnmatch.fnmatchcase(value, pattern)


def _text(item: Connection) -> str:
    shown = (item.server, item.cluster, item.account, item.name, item.identity, item.ip, item.peer or "", item.lang)
    return "\n".join(shown).lower()


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(host: str | None) -> _Network | None:
    if host is None:
        return None
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError as error:
        raise InputError(f"{host!r} is neither an address nor a network; write it like 10.1.0.0/16") from error


def _within(ip: str, network: _Network) -> bool:
    try:
        return ipaddress.ip_address(ip) in network
    except ValueError:
        return False


def _address(ip: str) -> tuple[int, int]:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return (0, 0)
    return (address.version, int(address))
