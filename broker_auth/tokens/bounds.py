"""Bounds of a provisioning token: the nodes that may wait by it (docs/policy.md#provisioning-tokens-for-certain-nodes).

They are part of the claim ``extensions``, whose content Choria's programs pass on without reading it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.jws import show
from broker_auth.tokens.patterns import MAX_POSITIONS, PatternError, compile_pattern
from broker_auth.wording import counted

EXTENSIONS: Final = "extensions"
KEY: Final = "broker-auth"
NAMES: Final = "names"
NETWORKS: Final = "networks"
MAX_NODES: Final = "max_nodes"
MAX_NAMES: Final = 64
MAX_NETWORKS: Final = 64
MAX_NAME: Final = 253  # characters, as of a node's connection name
MOST_NODES: Final = 1000  # by one token

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Bounds:
    """The nodes that may wait by a provisioning token; an empty tuple and None do not restrict.

    Attributes:
        names: connection names, and patterns between slashes.
        networks: addresses that nodes may connect from.
        max_nodes: how many nodes of different names may ever wait.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    max_nodes: int | None = None

    def allow_name(self, name: str) -> bool:
        """Return whether a node of this connection name may wait."""
        if not self.names or name in self.names:
            return True
        patterns = (compile_pattern(entry[1:-1]) for entry in self.names if entry.startswith("/"))
        return len(name) <= MAX_NAME and any(pattern.matches(name) for pattern in patterns)

    def claim(self) -> dict[str, Any]:
        """Return the bounds as the token holds them."""
        networks = [str(network) for network in self.networks]
        held = {NAMES: list(self.names), NETWORKS: networks, MAX_NODES: self.max_nodes}
        return {key: value for key, value in held.items() if value}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield a label and a value for each bound, for people."""
        if self.names:
            yield "Only for names", ", ".join(self.names)
        if self.networks:
            yield "Only from networks", ", ".join(map(str, self.networks))
        if self.max_nodes is not None:
            yield "At most", counted(self.max_nodes, "node")


def bounds_of(claims: Mapping[str, Any]) -> Bounds | None:
    """Return the bounds in the claims of a provisioning token; None if it is for any node.

    Raises:
        TokenRejected: they are malformed, or of a kind that this version does not know and must not ignore.
    """
    extensions = claims.get(EXTENSIONS)
    if extensions is None:
        return None
    if not isinstance(extensions, dict):
        raise TokenRejected(TokenFault.CLAIM_TYPE, f"token claim '{EXTENSIONS}' is not an object")
    if KEY not in extensions:
        return None
    bounds = extensions[KEY]
    if not isinstance(bounds, dict):
        raise _malformed("is not an object")
    if unknown := sorted(bounds.keys() - {NAMES, NETWORKS, MAX_NODES}):
        raise _malformed(f"holds {show(unknown[0])}, which this version does not know; use a version that does")
    if not bounds:
        raise _malformed("is empty")
    return make_bounds(
        _texts(bounds, NAMES, MAX_NAMES) if NAMES in bounds else (),
        _texts(bounds, NETWORKS, MAX_NETWORKS) if NETWORKS in bounds else (),
        _number(bounds[MAX_NODES]) if MAX_NODES in bounds else None,
    )


def make_bounds(names: Sequence[str], networks: Sequence[str], max_nodes: int | None = None) -> Bounds:
    """Return the bounds of these names, patterns and networks, and of this number of nodes.

    Raises:
        TokenRejected: one of them is not usable.
    """
    positions = 0
    for name in names:
        if name.startswith("/"):
            positions += _size(name)
        elif not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise _malformed(f"has the name {show(name)}; a name has 1 to {MAX_NAME} printable characters")
    if positions > MAX_POSITIONS:
        raise _malformed(f"has patterns of {positions} characters together, more than {MAX_POSITIONS}")
    return Bounds(tuple(names), tuple(map(_network, networks)), max_nodes)


def _size(name: str) -> int:
    """Return the size of a pattern between slashes."""
    if len(name) < 2 or not name.endswith("/"):
        raise _malformed(f"has the name {show(name)}; a pattern ends with a slash too")
    try:
        return compile_pattern(name[1:-1]).size
    except PatternError as error:
        raise _malformed(f"has the pattern {show(name)}: {error}") from error


def _network(text: str) -> Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise _malformed(f"has {show(text)}, which is neither an address nor a network like 10.1.0.0/16") from error
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        raise _malformed(f"has {show(text)}; write an IPv4 network in its own form")
    return network


def _texts(bounds: Mapping[str, Any], key: str, most: int) -> Sequence[str]:
    values = bounds[key]
    if not isinstance(values, list) or not 0 < len(values) <= most or not all(isinstance(one, str) for one in values):
        raise _malformed(f"'{key}' is not a list of 1 to {most} texts")
    return values


def _number(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_NODES:  # True is an int too
        raise _malformed(f"'{MAX_NODES}' is not a whole number from 1 to {MOST_NODES}")
    return value


def _malformed(problem: str) -> TokenRejected:
    return TokenRejected(TokenFault.BOUNDS, f"token extension '{KEY}' {problem}")
