"""How full the provisioning account is: what nats-servers report, and what was admitted and is not reported yet.

The policy reads it, the service writes it. Where nothing is reported, nothing is full.
"""

from __future__ import annotations

from typing import Final

import msgspec

STALE_SECONDS: Final = 75.0  # of a report that should have been repeated twice (fact 30 of docs/nats-server.md)
MAX_SERVERS: Final = 256
_HALF_FLIGHT: Final = 2.5  # seconds; an admission counts for one to two of them if it is never reported
_LEAST_RESERVE: Final = 256
_MOST_RESERVE: Final = 4096
_NEVER: Final = float("-inf")


def provisioner_reserve(limit: int) -> int:
    """Return how many connections of the provisioning account are kept for provisioners.

    Args:
        limit: connections that nodes may have.
    """
    return min(max(_LEAST_RESERVE, limit // 20), _MOST_RESERVE)


class _Server(msgspec.Struct):
    """What is known of one nats-server. Times are Unix seconds.

    Attributes:
        broker: the broker it belongs to.
        name: its name, which it keeps when it starts again; its id it does not.
        heard: when it last reported anything.
        nodes: connections of the provisioning account there, provisioners included.
        counted: when it last reported those.
        services: connections of the callout account there: processes that answer for this broker.
        recent: nodes admitted there by this process and not reported yet, since ``turned``.
        older: the same, from the time before.
    """

    broker: str = ""
    name: str = ""
    heard: float = _NEVER
    nodes: int = 0
    counted: float = _NEVER
    services: int = 0
    recent: float = 0.0
    older: float = 0.0
    turned: float = _NEVER

    def turn(self, now: float) -> None:
        """Forget admissions that should have been reported by now: those clients went away."""
        age = now - self.turned
        if not 0 <= age < _HALF_FLIGHT:
            self.older = self.recent if 0 <= age < 2 * _HALF_FLIGHT else 0.0
            self.recent, self.turned = 0.0, now

    def landed(self, count: float) -> None:
        """Count admissions as reported, the oldest first."""
        from_older = min(self.older, count)
        self.older -= from_older
        self.recent = max(self.recent - (count - from_older), 0.0)

    def nodes_at(self, now: float) -> int:
        """Return the connections it reported, 0 if that is too long ago."""
        return self.nodes if abs(now - self.counted) < STALE_SECONDS else 0


class ConnectionGauge:
    """Estimates the connections of the provisioning account, for each broker of one zone.

    The servers of a broker form a cluster and share one limit. Reports come late in a rush, so this process adds
    what it admitted since, and takes it that each other process that answers for the broker did the same: requests
    are distributed evenly among them.
    """

    __slots__ = ("_limit", "_servers", "_workers")

    def __init__(self, limit: int = 0, workers: int = 1) -> None:
        """Know of no connection yet.

        Args:
            limit: connections to a broker beyond which no node is admitted.
            workers: processes that answer, at least.
        """
        self._limit = limit
        self._workers = workers
        self._servers: dict[str, _Server] = {}

    def report_nodes(self, broker: str, server: str, name: str, count: int, now: float) -> None:
        """Take the connections of the provisioning account that a server reports.

        Args:
            broker: the broker whose connection the report came by.
            server: id of the server that it is about.
            name: its name.
            count: connections.
            now: Unix seconds.
        """
        known = self._heard(broker, server, name, now)
        known.landed(max(count - known.nodes_at(now), 0) / self._processes(broker, now))
        known.nodes, known.counted = count, now

    def report_services(self, broker: str, server: str, name: str, count: int, now: float) -> None:
        """Take the connections of the callout account that a server reports; arguments as above."""
        self._heard(broker, server, name, now).services = count

    def admitted(self, server: str, now: float) -> None:
        """Count a node that this process admits at the server of this id."""
        known = self._known(server)
        known.turn(now)
        known.recent += 1

    def full(self, server: str, now: float) -> bool:
        """Return whether no more nodes should be admitted at a server; False if it has reported nothing lately.

        Args:
            server: its id.
            now: Unix seconds.
        """
        own = self._servers.get(server)
        if own is None or _is_stale(own, now):
            return False
        reported, admitted = 0, 0.0
        for known in self._of(own.broker, now):
            known.turn(now)
            reported += known.nodes_at(now)
            admitted += known.recent + known.older
        return reported + admitted * self._processes(own.broker, now) >= self._limit

    def _processes(self, broker: str, now: float) -> int:
        return max(self._workers, sum(known.services for known in self._of(broker, now)))

    def _of(self, broker: str, now: float) -> list[_Server]:
        return [known for known in self._servers.values() if known.broker == broker and not _is_stale(known, now)]

    def _heard(self, broker: str, server: str, name: str, now: float) -> _Server:
        """Return the server that reports; what it was before it started again is forgotten."""
        known = self._known(server)
        if known.name != name or known.broker != broker:
            for other in [key for key, item in self._servers.items() if (item.broker, item.name) == (broker, name)]:
                del self._servers[other]
            known.broker, known.name = broker, name
        known.heard = now
        return known

    def _known(self, server: str) -> _Server:
        """Return the server of this id, a new one in place of the one heard of least lately."""
        known = self._servers.get(server)
        if known is None:
            if len(self._servers) >= MAX_SERVERS:
                del self._servers[min(self._servers, key=lambda key: self._servers[key].heard)]
            known = self._servers[server] = _Server()
        return known


def _is_stale(server: _Server, now: float) -> bool:
    return abs(now - server.heard) > STALE_SECONDS
