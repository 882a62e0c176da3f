"""The nodes that were counted for a token, as the bucket holds them; pure (docs/interface.md#the-bucket-of-nodes)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from broker_auth.natsio.bucket import NODES, KeyValue, ttl_until
from broker_auth.tokens.bounds import MOST_NODES

PREFIX: Final = "token."
HASH_BYTES: Final = 16
_KEEP_SECONDS: Final = 86_400.0  # after the end of a token: clocks differ
_HEADERS: Final = 128  # bytes that the headers of a message need at most


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedToken:
    """A verified token that is for a number of nodes.

    Attributes:
        digest: SHA-256 of what was signed.
        limit: the number.
        expires: the end of its validity in Unix seconds; None if it never ends.
    """

    digest: bytes
    limit: int
    expires: float | None

    @property
    def key(self) -> str:
        """The key of its nodes in the bucket."""
        return PREFIX + self.digest.hex()


class _NodesValue(msgspec.Struct, forbid_unknown_fields=True):
    """The value of a key: the token's limit, and a hash of each counted node's name in the order of counting."""

    limit: int
    nodes: list[bytes]


def node_hash(name: str) -> bytes:
    """Return what tells a node from others: the beginning of the SHA-256 of its name."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:HASH_BYTES]


def read_nodes(entry: KeyValue | None, token: CountedToken) -> tuple[bytes, ...] | None:
    """Return the counted nodes in an entry, none if there is no entry; None if it cannot be read."""
    if entry is None:
        return ()
    try:
        value = msgspec.json.decode(entry.value, type=_NodesValue)
    except (ValueError, RecursionError):
        return None
    unusable = value.limit != token.limit or len(value.nodes) > MOST_NODES
    if unusable or any(len(node) != HASH_BYTES for node in value.nodes):
        return None
    return tuple(value.nodes)


def write_nodes(nodes: Collection[bytes], token: CountedToken, now: float) -> tuple[bytes, float | None]:
    """Return the value for a token's counted nodes, and the seconds for which the bucket keeps it."""
    data = msgspec.json.encode(_NodesValue(token.limit, list(nodes)))
    assert len(data) + _HEADERS <= NODES.max_value
    ends = None if token.expires is None else token.expires + _KEEP_SECONDS
    return data, ttl_until(ends, now)


def admissible(names: Iterable[bytes], known: Collection[bytes], limit: int) -> list[bytes]:
    """Return the names that are counted in addition to the known ones: as many as there are places, first come."""
    fresh = [name for name in dict.fromkeys(names) if name not in known]
    return fresh[: max(0, limit - len(known))]
