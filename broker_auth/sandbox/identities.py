"""Servers and clients with a token and an Ed25519 key, and the issuer of their tokens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_auth.secret import Secret
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.issue import (
    Claims,
    SigningKey,
    client_claims,
    issue_under,
    make_chain_issuer,
    new_seed,
    provisioning_claims,
    server_claims,
    signing_key_from_seed,
)

DAY: Final = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A token, and the seed that signs nonces for it."""

    token: str = field(repr=False)
    seed: bytes = field(repr=False)


class Issuer:
    """An issuer that signs tokens with an organization's key, or with a configured signer's."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    def node_token(
        self,
        *,
        organization: str = "choria",
        issued: float | None = None,
        validity: float = DAY,
        urls: Sequence[str] = ("tls://127.0.0.1:4223",),
        bounds: Bounds | None = None,
    ) -> str:
        """Return a provisioning token, valid for ``validity`` seconds from ``issued`` (Unix seconds) or now."""
        claims = provisioning_claims(
            now=time.time() if issued is None else issued,
            validity=validity,
            token=Secret("demo"),
            urls=urls,
            organization=organization,
            bounds=bounds,
        )
        return self._key.sign(claims)

    def server(self, identity: str, *permissions: str, collectives: Sequence[str] = ("mcollective",)) -> Identity:
        """Issue a token to a server with a new key."""
        seed = new_seed()
        claims = server_claims(
            now=time.time(),
            validity=DAY,
            identity=identity,
            public_key=_public(seed),
            collectives=collectives,
            permissions=permissions,
        )
        return Identity(token=self._key.sign(claims), seed=bytes.fromhex(seed.reveal()))

    def client(self, caller_id: str, *permissions: str, validity: float = DAY) -> Identity:
        """Issue a token to a client with a new key."""
        seed = new_seed()
        claims = _client(caller_id, permissions, seed, validity)
        return Identity(token=self._key.sign(claims), seed=bytes.fromhex(seed.reveal()))

    def client_by_chain(self, caller_id: str, *permissions: str, foreign: bool = False) -> Identity:
        """Issue a client token signed by a chain issuer; if ``foreign``, of another organization."""
        organization = Issuer(signing_key_from_seed(new_seed(), "another organization")) if foreign else self
        issuer = organization.chain_issuer("up=issuer")
        issuer_key, seed = signing_key_from_seed(Secret(issuer.seed.hex()), "chain issuer"), new_seed()
        claims = issue_under(_client(caller_id, permissions, seed, DAY), issuer.token, issuer_key)
        return Identity(token=issuer_key.sign(claims), seed=bytes.fromhex(seed.reveal()))

    def chain_issuer(self, caller_id: str, *permissions: str, validity: float = DAY) -> Identity:
        """Return a client with a fresh key that may issue others."""
        seed = new_seed()
        claims = make_chain_issuer(_client(caller_id, permissions, seed, validity), self._key)
        return Identity(token=self._key.sign(claims), seed=bytes.fromhex(seed.reveal()))


def _client(caller_id: str, permissions: Sequence[str], seed: Secret, validity: float) -> Claims:
    return client_claims(
        now=time.time(),
        validity=validity,
        caller_id=caller_id,
        public_key=_public(seed),
        permissions=permissions,
    )


def _public(seed: Secret) -> str:
    public = signing_key_from_seed(seed, "identity").public_hex
    assert public is not None
    return public
