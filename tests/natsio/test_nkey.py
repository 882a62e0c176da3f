"""nkeys against the reference implementation, and every way a text may be wrong."""

from __future__ import annotations

import base64

import nkeys  # type: ignore[import-untyped]  # ships no types
import pytest
from nacl.public import PrivateKey

from broker_auth.errors import InputError
from broker_auth.natsio import nkey
from broker_auth.natsio.nkey import NkeyKind

LETTERS = {NkeyKind.USER: "U", NkeyKind.ACCOUNT: "A", NkeyKind.SERVER: "N", NkeyKind.CURVE: "X"}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@pytest.mark.parametrize("kind", list(NkeyKind))
def test_seed_and_public_key_round_trip(kind: NkeyKind) -> None:
    seed = nkey.generate_seed(kind)
    public = nkey.public_nkey(seed)
    assert (seed[0], seed[1], public[0]) == ("S", LETTERS[kind], LETTERS[kind])
    assert nkey.encode_seed(nkey.decode_seed(seed, kind), kind) == seed
    assert nkey.encode_public(nkey.decode_public(public, kind), kind) == public
    assert nkey.seed_kind(seed) is kind


@pytest.mark.parametrize("kind", [NkeyKind.USER, NkeyKind.ACCOUNT, NkeyKind.SERVER])
def test_the_reference_library_reads_the_same_key(kind: NkeyKind) -> None:
    seed = nkey.generate_seed(kind)
    theirs = nkeys.from_seed(seed.encode())
    assert theirs.public_key.decode() == nkey.public_nkey(seed)


def test_curve_public_key_is_the_x25519_key_of_the_raw_seed() -> None:
    seed = nkey.generate_seed(NkeyKind.CURVE)
    expected = bytes(PrivateKey(nkey.decode_seed(seed, NkeyKind.CURVE)).public_key)
    assert nkey.decode_public(nkey.public_nkey(seed), NkeyKind.CURVE) == expected


def test_seeds_are_random() -> None:
    assert len({nkey.generate_seed(NkeyKind.USER) for _ in range(16)}) == 16


@pytest.mark.parametrize("kind", list(NkeyKind))
def test_every_changed_character_of_a_public_key_is_refused(kind: NkeyKind) -> None:
    public = nkey.public_nkey(nkey.generate_seed(kind))
    for index, character in enumerate(public):
        other = ALPHABET[(ALPHABET.index(character) + 1) % 32]
        with pytest.raises(InputError):
            nkey.decode_public(public[:index] + other + public[index + 1 :], kind)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_spare_bits_of_a_seed_must_be_zero(bits: int) -> None:
    seed = nkey.generate_seed(NkeyKind.USER)
    noncanonical = seed[:-1] + ALPHABET[ALPHABET.index(seed[-1]) | bits]
    assert base64.b32decode(noncanonical + "======") == base64.b32decode(seed + "======")
    with pytest.raises(InputError, match="canonical"):
        nkey.decode_seed(noncanonical, NkeyKind.USER)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "U",
        "U" * 56,
        "U" * 55 + "=",
        "u" * 56,
        "Ü" * 56,
        "U" * 55 + "\n",
        "=" * 56,
        "_" * 56,
        " " * 56,
        "+" + "U" * 55,
    ],
)
def test_what_is_no_key_at_all_is_refused(wrong: str) -> None:
    with pytest.raises(InputError):
        nkey.decode_public(wrong, NkeyKind.USER)
    with pytest.raises(InputError):
        nkey.decode_seed(("S" + wrong + "AAA")[:58], NkeyKind.USER)


def test_another_kind_is_refused() -> None:
    seed = nkey.generate_seed(NkeyKind.ACCOUNT)
    with pytest.raises(InputError, match="another kind"):
        nkey.decode_seed(seed, NkeyKind.USER)
    with pytest.raises(InputError, match="another kind"):
        nkey.decode_public(nkey.public_nkey(seed), NkeyKind.USER)


def test_a_seed_never_appears_in_an_error() -> None:
    seed = nkey.generate_seed(NkeyKind.USER)
    broken = seed[:-1] + ("A" if seed[-1] != "A" else "B")
    with pytest.raises(InputError) as caught:
        nkey.decode_seed(broken.lower(), NkeyKind.USER)
    assert broken[2:20].lower() not in str(caught.value).lower()
    assert caught.value.__cause__ is None


def test_a_key_of_the_wrong_length_is_not_encoded() -> None:
    with pytest.raises(InputError, match="32 bytes"):
        nkey.encode_public(b"short", NkeyKind.USER)
