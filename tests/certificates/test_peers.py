"""The identity of a verified peer, and whether its chain leads to our CA (docs/policy.md#0-connections-not-served)."""

from __future__ import annotations

import base64
import random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker_auth.certificates.peer import RefusedPeer
from broker_auth.certificates.verifier import PeerVerifier, load_roots
from broker_auth.deploy import pki
from broker_auth.errors import InputError
from tests.builders.clock import NOW
from tests.builders.peers import LONG, authority, client, fleet_chain, intermediate, parsed, pem, verifier

ED25519_ROOT = pki.signer("Ed25519 CA", algorithm="ed25519", validity=LONG)
DER = client().certificate.public_bytes(Encoding.DER)
VERSION = DER.index(bytes.fromhex("a003020102")) + 4  # offset in the DER, where X.509 version 3 is written as 2


def as_pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


BELOW_MIDDLE = intermediate().client(validity=LONG, name="below")

UNUSABLE = {
    "no certificate": ((),),
    "an empty chain first": ((), fleet_chain()),
    "an empty chain second": (fleet_chain(), ()),
    "no PEM": (("garbage",),),
    "not ASCII": (("\u00e9",),),
    "lone surrogate": (("\ud800",),),
    "its issuer is garbage": ((pem(BELOW_MIDDLE), "garbage"),),
    "X.509 version 9": ((as_pem(DER[:VERSION] + b"\x08" + DER[VERSION + 1 :]),),),
}


@pytest.mark.parametrize("chains", UNUSABLE.values(), ids=UNUSABLE)
@pytest.mark.parametrize("roots", ["none", "fleet", "ed25519"])
def test_unparsable_chain_is_unusable(chains: tuple[tuple[str, ...], ...], roots: str) -> None:
    chosen = {"none": [], "fleet": [parsed(authority())], "ed25519": [parsed(ED25519_ROOT)]}[roots]
    peer = PeerVerifier(chosen).identify(chains, NOW)
    assert isinstance(peer, RefusedPeer)
    assert peer.unusable
    assert peer.description


def test_mutated_certificates_never_verify_or_raise_other_errors() -> None:
    chosen = random.Random(4)  # noqa: S311 - reproducible, not secret
    peers = verifier()
    for _ in range(1500):
        der = bytearray(DER)
        while der == DER:
            for _ in range(chosen.randint(1, 3)):
                der[chosen.randrange(len(der))] = chosen.randrange(256)
        assert isinstance(peers.identify(((as_pem(bytes(der)), pem(authority())),), NOW), RefusedPeer)


UNREADABLE = {
    "nothing": b"",
    "no PEM": b"garbage",
    "cut short": as_pem(DER[:-9]).encode(),
    "X.509 version 9": UNUSABLE["X.509 version 9"][0][0].encode(),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_roots_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^ca\.pem: "):
        load_roots(data, "ca.pem")


def test_all_roots_of_a_file_are_read() -> None:
    both = authority().certificate_pem + b"\n# another\n" + authority("foreign CA").certificate_pem
    assert load_roots(both, "ca.pem") == [parsed(authority()), parsed(authority("foreign CA"))]
