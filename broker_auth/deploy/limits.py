"""The limits in the configuration of a nats-server: connections, subscriptions and leaf links of its accounts."""

from __future__ import annotations

from broker_auth.policy.gauge import provisioner_reserve
from broker_auth.settings.model import BrokerSettings, Role, ServerSettings, Settings

# Minimum limit on subscriptions per connection at an edge. The limit includes the leaf link, which carries about
# a dozen subscriptions of the servers and a few of each provisioner. nats-server drops those beyond the limit
# without telling the provisioner.
LEAF_LINK_SUBSCRIPTIONS = 1024
NATS_MAX_CONNECTIONS = 65_536  # nats-server's default for clients
SPARE_LEAF_LINKS = 8  # in addition to one for each edge


def max_subscriptions(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on subscriptions of each connection of the provisioning account, including leaf links.

    A leaf link carries each distinct subject of its nodes once: a node's own name, four agent subjects that all
    nodes share, and those of nats-server. Twice as many is a bound that no honest edge reaches.
    """
    chosen = settings.provisioning.max_subscriptions
    if broker.role is Role.EDGE:
        return max(chosen, LEAF_LINK_SUBSCRIPTIONS)
    if broker.server.leaf_listen is None:
        return chosen
    return max(chosen, 2 * settings.provisioning.max_connections + 4 * LEAF_LINK_SUBSCRIPTIONS)


def max_connections(settings: Settings, broker: BrokerSettings) -> int:
    """Return the limit on connections of the provisioning account: nodes, and a leaf link or provisioners."""
    chosen = settings.provisioning.max_connections
    if broker.takes_nodes_and_provisioners:
        return chosen + provisioner_reserve(chosen)
    return chosen + (broker.role is Role.EDGE)


def max_leafnodes(settings: Settings, broker: BrokerSettings) -> int | None:
    """Return the number of leaf links that the fleet accepts, None if it has no leaf listener.

    Spare ones are for edges that reconnect before their dead connection is detected.
    """
    if broker.server.leaf_listen is None:
        return None
    edges = sum(item.role is Role.EDGE for item in settings.brokers)
    return max(edges, len(broker.server.leaf_users)) + SPARE_LEAF_LINKS


def max_fleet_links(settings: Settings, server: ServerSettings) -> int | None:
    """Return how many leaf node connections the fleet's account accepts, None where it accepts none at all.

    Some to spare are for leaf nodes that come back before their old connection is noticed to be dead.
    """
    if server.leaf_listen is None or not (server.leaf_gates or server.leaf_branches):
        return None
    gates = sum(item.role is Role.GATE for item in settings.brokers)
    return max(gates, len(server.leaf_gates)) + len(server.leaf_branches) + SPARE_LEAF_LINKS


def max_gate_subscriptions(settings: Settings) -> int:
    """Return the limit on subscriptions of each connection of the fleet's account, a gate's link included.

    A link carries each distinct subject once: a node's or an inbox's for each member, some of agents that all share.
    nats-server counts by account, so the limit binds members and branches too, far above what one of them needs.
    """
    gates = [item.server.max_connections or NATS_MAX_CONNECTIONS for item in settings.brokers if item.role is Role.GATE]
    return 4 * max(gates, default=NATS_MAX_CONNECTIONS) + 4 * LEAF_LINK_SUBSCRIPTIONS
