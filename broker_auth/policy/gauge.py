"""Estimate of the connections in the provisioning account: those reported by nats-servers, and later admissions.

The policy reads it, the service updates it. Without reports, the account never counts as full.
"""

from __future__ import annotations

from typing import Final

import msgspec

STALE_SECONDS: Final = 75.0  # age of a report, in which two more should have come (fact 30 of docs/nats-server.md)
MAX_SERVERS: Final = 256  # of each broker; a compromised broker can invent any number
_HALF_FLIGHT: Final = 2.5  # seconds; an admission that is never reported counts for once to twice this time
_LEAST_RESERVE: Final = 256
_MOST_RESERVE: Final = 4096
_NEVER: Final = float("-inf")


def provisioner_reserve(limit: int) -> int:
    """Return the number of connections in the provisioning account that are reserved for provisioners.

    Args:
        limit: connections that nodes may have.
    """
    return min(max(_LEAST_RESERVE, limit // 20), _MOST_RESERVE)


class _ServerLoad(msgspec.Struct):
    """The state of one nats-server. Times are Unix seconds.

    Attributes:
        name: its name, which unlike its id survives a restart.
        last_seen: time of its last report.
        nodes: connections of the provisioning account there, including provisioners.
        counted: time of the last report of ``nodes``.
        services: connections of the callout account there: processes that answer for this broker.
        recent: nodes admitted there by this process since ``rotated``, and not reported yet.
        older: nodes admitted in the period before, and not reported yet.
        rotated: start of the current period.
    """

    name: str = ""
    last_seen: float = _NEVER
    nodes: int = 0
    counted: float = _NEVER
    services: int = 0
    recent: float = 0.0
    older: float = 0.0
    rotated: float = _NEVER

    def rotate(self, now: float) -> None:
        """Start a new period if the current one is over; forget older admissions, whose clients must have left."""
        age = now - self.rotated
        if not 0 <= age < _HALF_FLIGHT:
            self.older = self.recent if 0 <= age < 2 * _HALF_FLIGHT else 0.0
            self.recent, self.rotated = 0.0, now

    def landed(self, count: float) -> None:
        """Count admissions as reported, the oldest first."""
        from_older = min(self.older, count)
        self.older -= from_older
        self.recent = max(self.recent - (count - from_older), 0.0)

    def nodes_at(self, now: float) -> int:
        """Return the reported connections; 0 if the report is too old."""
        return self.nodes if abs(now - self.counted) < STALE_SECONDS else 0


class ConnectionGauge:
    """An estimate of the connections of the provisioning account, for each broker of one zone.

    The servers of a broker form a cluster and share one limit. Reports are late under load, so this process adds its
    admissions since the last report, and assumes the same number for each other process that answers for the broker,
    because requests are distributed evenly among them. A broker's reports and requests affect that broker only: a
    compromised one can name the servers of another.
    """

    __slots__ = ("_brokers", "_limit", "_workers")

    def __init__(self, limit: int = 0, workers: int = 1) -> None:
        """Start without any connection.

        Args:
            limit: number of connections to a broker beyond which nodes are denied.
            workers: minimum number of processes that answer.
        """
        self._limit = limit
        self._workers = workers
        self._brokers: dict[str, dict[str, _ServerLoad]] = {}

    def report_nodes(self, broker: str, server: str, name: str, count: int, now: float) -> None:
        """Store a server's report of the connections of the provisioning account.

        Args:
            broker: the broker whose connection delivered the report.
            server: id of the reporting server.
            name: name of the reporting server.
            count: number of connections.
            now: Unix seconds.
        """
        known = self._seen(broker, server, name, now)
        known.landed(max(count - known.nodes_at(now), 0) / self._processes(broker, now))
        known.nodes, known.counted = count, now

    def report_services(self, broker: str, server: str, name: str, count: int, now: float) -> None:
        """Store a server's report of the connections of the callout account; arguments as above."""
        self._seen(broker, server, name, now).services = count

    def admitted(self, broker: str, server: str, now: float) -> None:
        """Count a node that this process admits at the broker's server with this id."""
        known = self._known(broker, server)
        known.rotate(now)
        known.recent += 1

    def withdrawn(self, broker: str, server: str) -> None:
        """Undo :meth:`admitted`, for a node that got no answer."""
        self._known(broker, server).landed(1)

    @property
    def limit(self) -> int:
        """Connections to a broker beyond which no node is admitted."""
        return self._limit

    def connections(self, broker: str, server: str, now: float) -> int | None:
        """Return the estimated connections to a broker; None if the server has reported nothing lately.

        Args:
            broker: the broker.
            server: id of one of its servers.
            now: Unix seconds.
        """
        own = self._brokers.get(broker, {}).get(server)
        if own is None or _is_stale(own, now):
            return None
        reported, admitted = 0, 0.0
        for known in self._of(broker, now):
            known.rotate(now)
            reported += known.nodes_at(now)
            admitted += known.recent + known.older
        return int(reported + admitted * self._processes(broker, now))

    def _processes(self, broker: str, now: float) -> int:
        return max(self._workers, sum(known.services for known in self._of(broker, now)))

    def _of(self, broker: str, now: float) -> list[_ServerLoad]:
        return [known for known in self._brokers.get(broker, {}).values() if not _is_stale(known, now)]

    def _seen(self, broker: str, server: str, name: str, now: float) -> _ServerLoad:
        """Return the reporting server, after removing its state from before a restart."""
        known = self._known(broker, server)
        if known.name != name:
            servers = self._brokers[broker]
            for other in [key for key, item in servers.items() if item.name == name]:
                del servers[other]
            known.name = name
        known.last_seen = now
        return known

    def _known(self, broker: str, server: str) -> _ServerLoad:
        """Return the server with this id; a new one replaces the least recently seen if the table is full."""
        servers = self._brokers.setdefault(broker, {})
        known = servers.get(server)
        if known is None:
            if len(servers) >= MAX_SERVERS:
                del servers[min(servers, key=lambda key: servers[key].last_seen)]
            known = servers[server] = _ServerLoad()
        return known


def _is_stale(server: _ServerLoad, now: float) -> bool:
    return abs(now - server.last_seen) > STALE_SECONDS
