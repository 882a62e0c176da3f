"""TLS peers: certificates, and the verified chains as nats-server reports them (PEM, leaf first).

Certificates hold from 2020 until :data:`NOT_AFTER`, for tests at ``NOW`` and for tests of running
servers alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from broker_auth.deploy.pki import Authority, Pair, Validity
from broker_auth.x509 import PeerVerifier
from tests.builders.clock import NOW, YEAR

NOT_AFTER: Final = NOW + 10 * YEAR
FLEET_NAME: Final = "node1.example.net"
PROVISIONER_NAME: Final = "provisioner.example.net"
Chain = tuple[str, ...]


def validity(not_before: float, not_after: float) -> Validity:
    """From Unix seconds."""
    return Validity(
        not_before=datetime.fromtimestamp(not_before, UTC), not_after=datetime.fromtimestamp(not_after, UTC)
    )


LONG: Final = validity(1_577_836_800, NOT_AFTER)


def authority(name: str = "fleet CA") -> Authority:
    """The CA of this name, made once per process."""
    return _authority(name)  # a cache takes a default for another call than the same value given


@cache
def _authority(name: str) -> Authority:
    return Authority.create(name, validity=LONG)


@cache
def intermediate() -> Authority:
    """A CA signed by the fleet's."""
    return authority().intermediate("fleet intermediate", validity=LONG)


def client(name: str = FLEET_NAME, names: tuple[str, ...] | None = None, ca: str = "fleet CA") -> Pair:
    """A client certificate of the fleet, or of another CA."""
    return _client(name, names, ca)


@cache
def _client(name: str, names: tuple[str, ...] | None, ca: str) -> Pair:
    return authority(ca).client(name, names=names, validity=LONG)


def pem(pair: Pair | Authority) -> str:
    """A certificate as PEM text."""
    return pair.certificate_pem.decode("ascii")


def chain(*certificates: Pair | Authority) -> Chain:
    """A chain as nats-server reports it: leaf first, the root last."""
    return tuple(pem(certificate) for certificate in certificates)


def fleet_chain(name: str = FLEET_NAME, names: tuple[str, ...] | None = None) -> Chain:
    """The verified chain of a fleet member."""
    return chain(client(name, names), authority())


def foreign_chain(name: str = FLEET_NAME) -> Chain:
    """A chain that nats-server verified against a CA which is not the fleet's."""
    return chain(client(name, ca="foreign CA"), authority("foreign CA"))


def verifier(*roots: Authority) -> PeerVerifier:
    """A new verifier of the fleet's peers, or of others'."""
    chosen: Sequence[Authority] = roots or (authority(),)
    return PeerVerifier([root.certificate for root in chosen])
