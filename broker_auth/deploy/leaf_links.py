"""The leaf links of a nats-server: their files, and which users connect to which account."""

from __future__ import annotations

from dataclasses import dataclass

from broker_auth.natsio.tls import TLSFiles
from broker_auth.settings.model import AccountNames, BrokerSettings, ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafUsers:
    """The users of one account at the leaf listener, each named in a leaf certificate."""

    account: str
    users: tuple[str, ...]
    gates: tuple[str, ...] = ()


def leaf_files(broker: BrokerSettings) -> TLSFiles:
    """Return the TLS files of the leaf link; the fleet's side defaults to those of the client listener.

    An edge or a gate has no such default, because its server certificate may not be valid for a client.
    """
    own, listener = broker.server.leaf_tls, broker.server.tls
    if broker.role.is_outpost:
        return own
    return TLSFiles(
        ca=own.ca or listener.ca,
        certificate=own.certificate or listener.certificate,
        key=own.key or listener.key,
    )


def leaf_users(server: ServerSettings, accounts: AccountNames) -> tuple[LeafUsers, ...]:
    """Return the users of each account that leaf nodes connect to; none without a leaf listener."""
    if server.leaf_listen is None:
        return ()
    return (
        LeafUsers(account=accounts.provisioning, users=server.leaf_users),
        LeafUsers(account=accounts.fleet, users=server.leaf_branches, gates=server.leaf_gates),
    )
