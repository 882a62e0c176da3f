"""Values of revocations are refused, or written in one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import Revocation, RevocationError, RevocationKind, is_wide, normalized

K = RevocationKind


def revoked(kind: RevocationKind, value: str) -> Revocation:
    return Revocation(kind=kind, value=value)


BAD: tuple[tuple[RevocationKind, str], ...] = (
    (K.TOKEN_ID, ""),
    (K.TOKEN_ID, " a"),
    (K.TOKEN_ID, "a\n"),
    (K.TOKEN_ID, "a" * 1025),
    (K.KEY, "ab"),
    (K.CERTIFICATE, "g" * 64),
    (K.SERIAL, "01"),
    (K.NETWORK, "example.net"),
    (K.IDENTITY, "/(/"),
)


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_unusable_value_is_refused(kind: RevocationKind, value: str) -> None:
    with pytest.raises(RevocationError):
        normalized(kind, value)
    with pytest.raises(RevocationError):
        Revocations.of([revoked(kind, value)])


def test_values_are_written_in_one_form() -> None:
    assert normalized(K.CERTIFICATE, ":".join(["AB"] * 32)) == "ab" * 32
    assert normalized(K.NETWORK, "192.0.2.7") == "192.0.2.7/32"
    assert normalized(K.NETWORK, "192.0.2.7/24") == "192.0.2.0/24"
    assert normalized(K.NETWORK, "::ffff:192.0.2.7/120") == "192.0.2.0/24"
    assert normalized(K.IDENTITY, "URI:spiffe://x") == "uri:spiffe://x"


def test_wide_revocations_are_known() -> None:
    wide = [
        revoked(K.SIGNER, "organization"),
        revoked(K.CHAIN_ISSUER, "creator"),
        revoked(K.IDENTITY, "/a/"),
        revoked(K.NETWORK, "192.0.2.0/24"),
    ]
    assert all(map(is_wide, wide))
    narrow = [revoked(K.TOKEN_ID, "a"), revoked(K.IDENTITY, "a"), revoked(K.NETWORK, "192.0.2.1/32")]
    assert not any(map(is_wide, narrow))


@given(st.text(max_size=40), st.sampled_from(K))
def test_any_value_is_refused_or_stored_in_one_form(text: str, kind: RevocationKind) -> None:
    try:
        value = normalized(kind, text)
    except RevocationError:
        return
    assert normalized(kind, value) == value
    revocations = Revocations.of([revoked(kind, value)])
    assert [(kind, value)] == [(kept, shown) for kept, shown, _ in revocations.items()]
