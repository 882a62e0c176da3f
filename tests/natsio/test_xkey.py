"""Sealing, against NaCl's own box and among services."""

from __future__ import annotations

import pytest
from nacl.public import Box, PrivateKey

from broker_auth.natsio import xkey
from broker_auth.natsio.nkey import NkeyKind, encode_public
from broker_auth.natsio.xkey import Sealer, SealError

SERVICE, SERVER, OTHER = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
SEALER = Sealer(bytes(SERVICE))
# X25519 points of small order: the shared key is zero, whoever holds which secret (RFC 7748, section 6.1)
SMALL_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def name(key: PrivateKey) -> str:
    return encode_public(bytes(key.public_key), NkeyKind.CURVE)


def sealed_by(key: PrivateKey, message: bytes, to: PrivateKey = SERVICE) -> bytes:
    return b"xkv1" + bytes(Box(key, to.public_key).encrypt(message))


@pytest.mark.parametrize("message", [b"", b"x", b"\0" * 100_000])
def test_what_nacl_boxes_is_opened_and_the_other_way_round(message: bytes) -> None:
    assert SEALER.open(sealed_by(SERVER, message), name(SERVER)) == message
    sealed = SEALER.seal(message, name(SERVER))
    assert sealed[:4] == b"xkv1"
    assert Box(SERVER, SERVICE.public_key).decrypt(sealed[4:]) == message


def test_no_nonce_is_used_twice() -> None:
    assert len({SEALER.seal(b"x", name(SERVER))[4:28] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("sealed", "server"),
    [
        (sealed_by(OTHER, b"x"), name(SERVER)),
        (sealed_by(SERVER, b"x", OTHER), name(SERVER)),
        (sealed_by(SERVER, b"x")[4:], name(SERVER)),
        (b"xkv1", name(SERVER)),
        (b"xkv1" + bytes(39), name(SERVER)),
        (b"xkv1" + bytes(40), name(SERVER)),
        (sealed_by(SERVER, b"x"), name(SERVER).lower()),
        (sealed_by(SERVER, b"x"), ""),
    ],
    ids=["by another", "for another", "no version", "short", "no tag", "zeros", "lower case", "no key"],
)
def test_anything_else_is_refused(sealed: bytes, server: str) -> None:
    with pytest.raises(SealError):
        SEALER.open(sealed, server)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=lambda point: point.hex()[:8])
def test_a_key_of_small_order_is_refused(point: bytes) -> None:
    """Else anybody knew the shared key, and could open what is sealed for it."""
    with pytest.raises(SealError):
        SEALER.open(sealed_by(SERVER, b"x"), encode_public(point, NkeyKind.CURVE))
    with pytest.raises(SealError):
        SEALER.seal(b"x", encode_public(point, NkeyKind.CURVE))


def test_shared_keys_are_bounded_and_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xkey, "_SERVERS", 3)
    sealer = Sealer(bytes(SERVICE))
    servers = [PrivateKey.generate() for _ in range(8)]
    for _ in range(2):
        for server in servers:
            assert sealer.open(sealed_by(server, b"x"), name(server)) == b"x"
            with pytest.raises(SealError):
                sealer.open(sealed_by(OTHER, b"x"), name(server))
    assert len(sealer._shared) == 3
