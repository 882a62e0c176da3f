"""The nodes that wait to be provisioned, and what they are asked, as nats-servers report it.

For metrics, not for decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from broker_auth.policy.gauge import STALE_SECONDS

MAX_SERVERS: Final = 64  # of each broker; a compromised broker can invent any number


class WaitingNodes:
    """The client connections of the provisioning account at each broker where nodes connect.

    Where provisioners connect to the same broker, they are counted too: the reports do not tell who is connected.
    """

    def __init__(self, brokers: Iterable[str], now: float) -> None:
        """Start without a report; ``now`` is the current time in seconds, as in all methods."""
        self._since = now
        self._refused: set[str] = set()
        self._reported: dict[str, dict[str, tuple[int, float]]] = {broker: {} for broker in brokers}
        self._asked: dict[str, dict[str, int]] = {broker: {} for broker in brokers}

    def report(self, broker: str, server: str, count: int, now: float) -> None:
        """Store the number of connections at one server of a broker, by its name, which survives a restart."""
        self._refused.discard(broker)
        servers = self._reported[broker]
        if server not in servers and len(servers) >= MAX_SERVERS:
            oldest = min(servers, key=lambda name: servers[name][1])
            del servers[oldest]
            self._asked[broker].pop(oldest, None)
        servers[server] = count, now

    def ask(self, broker: str, server: str, total: int) -> None:
        """Store how many messages the nodes at a server were sent from the fleet since it started, after its report."""
        self._asked[broker][server] = total

    def refuse(self, broker: str) -> None:
        """Note that a broker's configuration does not permit reports."""
        self._refused.add(broker)

    def measured(self, now: float) -> dict[str, int]:
        """Return the connections by broker, without brokers of which nothing is known yet.

        A server reports every change and, while it has any connection, twice a minute (fact 30 of docs/nats-server.md).
        """
        known = {
            broker: [count for count, when in servers.values() if now - when < STALE_SECONDS]
            for broker, servers in self._reported.items()
            if broker not in self._refused
        }
        silent = now - self._since >= STALE_SECONDS
        return {broker: sum(counts) for broker, counts in known.items() if counts or silent}

    def asked(self) -> dict[str, int]:
        """Return the messages by broker, without brokers that do not report them.

        Also of servers that have reported nothing lately, because they may have no connection now.
        """
        return {broker: sum(totals.values()) for broker, totals in self._asked.items() if totals}
