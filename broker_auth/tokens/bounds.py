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

EXTENSIONS: Final = "extensions"
KEY: Final = "broker-auth"
NAMES: Final = "names"
NETWORKS: Final = "networks"
MAX_NAMES: Final = 64
MAX_NETWORKS: Final = 64
MAX_NAME: Final = 253  # characters, as of a node's connection name

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Bounds:
    """The nodes that may wait by a provisioning token; an empty tuple does not restrict.

    Attributes:
        names: connection names, and patterns between slashes.
        networks: addresses that nodes may connect from.
    """

    names: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def allow_name(self, name: str) -> bool:
        """Return whether a node of this connection name may wait."""
        if not self.names or name in self.names:
            return True
        patterns = (compile_pattern(entry[1:-1]) for entry in self.names if entry.startswith("/"))
        return len(name) <= MAX_NAME and any(pattern.matches(name) for pattern in patterns)

    def claim(self) -> dict[str, list[str]]:
        """Return the bounds as the token holds them."""
        lists = {NAMES: list(self.names), NETWORKS: [str(network) for network in self.networks]}
        return {key: values for key, values in lists.items() if values}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield a label and a value for each bound, for people."""
        if self.names:
            yield "Only for names", ", ".join(self.names)
        if self.networks:
            yield "Only from networks", ", ".join(map(str, self.networks))


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
    if unknown := sorted(bounds.keys() - {NAMES, NETWORKS}):
        raise _malformed(f"holds {show(unknown[0])}, which this version does not know; use a version that does")
    if not bounds:
        raise _malformed("is empty")
    return make_bounds(
        _texts(bounds, NAMES, MAX_NAMES) if NAMES in bounds else (),
        _texts(bounds, NETWORKS, MAX_NETWORKS) if NETWORKS in bounds else (),
    )


def make_bounds(names: Sequence[str], networks: Sequence[str]) -> Bounds:
    """Return the bounds of these names, patterns and networks.

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
    return Bounds(tuple(names), tuple(map(_network, networks)))


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


def _malformed(problem: str) -> TokenRejected:
    return TokenRejected(TokenFault.BOUNDS, f"token extension '{KEY}' {problem}")
