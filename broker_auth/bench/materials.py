"""Keys, tokens and authorization requests as a nats-server would send them, all made on the spot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import nacl.bindings

from broker_auth import encoding
from broker_auth.callout.request import AUDIENCE, CLAIMS_VERSION, HEADER, REQUEST_TYPE
from broker_auth.certificates.verifier import PeerVerifier, load_roots
from broker_auth.deploy.pki import CertificateAuthority, signer
from broker_auth.natsio.nkey import NkeyKind, encode_public
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.model import Policy, Provisioning
from broker_auth.secret import Secret
from broker_auth.tokens import issue
from broker_auth.tokens.keys import VerificationKey, ed25519_key, load_verification_key
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys

ORGANIZATION: Final = "choria"
NONCE: Final = "eLWfYQmGjJjmH0Y"
HOUR: Final = 3600.0
REQUEST_SECONDS: Final = 900  # requests of a pool stay in time for as long as any part of the bench runs


@dataclass(frozen=True, slots=True)
class TokenSubject:
    """The subject of a server or client token, which signs the nonce."""

    seed: bytes = field(default_factory=lambda: os.urandom(32), repr=False)

    @property
    def public_hex(self) -> str:
        """The public key as tokens carry it."""
        return nacl.bindings.crypto_sign_seed_keypair(self.seed)[0].hex()

    @property
    def nonce_signature(self) -> bytes:
        """The signature over :data:`NONCE`."""
        return sign_ed25519(NONCE.encode(), nacl.bindings.crypto_sign_seed_keypair(self.seed)[1])


class Trust:
    """The signers of tokens and certificates, and policies that trust them."""

    def __init__(self) -> None:
        self.provisioning = signer()
        self.authority = CertificateAuthority.create()
        self.organization = issue.signing_key_from_seed(issue.new_seed(), "organization")
        self.creator = issue.signing_key_from_seed(issue.new_seed(), "creator")
        self._provisioning_key = issue.load_signing_key(self.provisioning.key_pem, "provisioning")
        self._foreign_key = issue.load_signing_key(signer().key_pem, "foreign")

    @property
    def provisioning_verifies(self) -> VerificationKey:
        """The key of ``signer_cert``."""
        return load_verification_key(self.provisioning.certificate_pem, "signer")

    def policy(self, *, issuer_mode: bool) -> Policy:
        """Return a policy with empty caches."""
        hex_key = self.organization.public_hex
        assert hex_key is not None  # an Ed25519 key
        issuers = {ORGANIZATION: ed25519_key(hex_key, ORGANIZATION)} if issuer_mode else {}
        keys = TrustedKeys(issuers=issuers, provisioning=(self.provisioning_verifies,))
        return Policy(
            tokens=TokenVerifier(keys),
            peers=PeerVerifier(load_roots(self.authority.certificate_pem, "bench CA")),
            issuer_mode=issuer_mode,
            provisioning=Provisioning(enabled=True, passwords=(Secret("bench"),)),
        )

    def provisioning_token(self, now: float, *, foreign: bool = False) -> str:
        """Issue a provisioning token like those in RPMs (RS256), or if ``foreign`` one of an unknown signer."""
        claims = issue.provisioning_claims(
            now=now - 1,
            validity=HOUR,
            token=Secret("s3cret"),
            urls=("nats://broker1.example.net:4222", "nats://broker2.example.net:4222"),
            secure=True,
        )
        return (self._foreign_key if foreign else self._provisioning_key).sign(claims)

    def client_token(self, now: float, subject: TokenSubject) -> str:
        """Issue a client token of the organization itself."""
        return self.organization.sign(self._client_claims(now, subject.public_hex))

    def server_token(self, now: float, subject: TokenSubject, issuer_token: str, identity: str) -> str:
        """Issue a server token of a chain issuer."""
        claims = issue.server_claims(
            now=now - 1,
            validity=HOUR / 2,
            identity=identity,
            public_key=subject.public_hex,
            collectives=("mcollective",),
            permissions=("streams", "submission"),
        )
        return self.creator.sign(issue.issue_under(claims, issuer_token, self.creator))

    def chain_issuer_token(self, now: float) -> str:
        """Issue the token of the chain issuer :attr:`creator`."""
        hex_key = self.creator.public_hex
        assert hex_key is not None  # an Ed25519 key
        claims = issue.make_chain_issuer(self._client_claims(now, hex_key), self.organization)
        return self.organization.sign(claims)

    def _client_claims(self, now: float, public_hex: str) -> issue.Claims:
        return issue.client_claims(
            now=now - 1,
            validity=HOUR,
            caller_id="up=operator",
            public_key=public_hex,
            agents=("rpcutil.*", "puppet.*"),
            permissions=("fleet_management", "events_viewer"),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """An authorization request: ``wire`` is what is sent, ``token`` the JWT in it, sealed or not."""

    wire: bytes
    token: bytes


class PlayedServer:
    """A played nats-server: its nkey signs requests, and its curve key seals them for the service."""

    def __init__(self, service_xkey: bytes | None = None) -> None:
        """Create a server; ``service_xkey`` is the service's public curve key, None if requests are not sealed."""
        self.public, self._secret = nacl.bindings.crypto_sign_keypair()
        self.id = encode_public(self.public, NkeyKind.SERVER)
        self.xkey: str | None = None
        if service_xkey is not None:
            curve = os.urandom(32)
            self.xkey = encode_public(nacl.bindings.crypto_scalarmult_base(curve), NkeyKind.CURVE)
            self._sealer = Sealer(curve)
            self._service = encode_public(service_xkey, NkeyKind.CURVE)

    def request(
        self, options: dict[str, Any], now: float, chain: Sequence[str] = (), *, signs: bool = False
    ) -> Request:
        """Return an authorization request for a client that sent ``options``, sealed if this server has an xkey.

        Args:
            options: ``connect_opts``.
            now: Unix seconds.
            chain: verified certificates, leaf first.
            signs: the client signed the nonce.
        """
        token = self._signed(self._claims(options, now, chain, signs=signs))
        return Request(token if self.xkey is None else self._sealer.seal(token, self._service), token)

    def _signed(self, claims: dict[str, Any]) -> bytes:
        signed = HEADER + b"." + encoding.encode(msgspec.json.encode(claims))
        return signed + b"." + encoding.encode(sign_ed25519(signed, self._secret))

    def _claims(self, options: dict[str, Any], now: float, chain: Sequence[str], *, signs: bool) -> dict[str, Any]:
        user = encode_public(os.urandom(32), NkeyKind.USER)
        tls: dict[str, Any] = {"version": "1.3", "cipher": "TLS_AES_128_GCM_SHA256"}
        if chain:
            tls["verified_chains"] = [list(chain)]
        server_id = {"name": "bench-1", "host": "127.0.0.1", "id": self.id, "version": "2.15.1"}
        if self.xkey is not None:
            server_id["xkey"] = self.xkey
        info = {"host": "127.0.0.1", "id": 4711, "user": "[REDACTED]", "name": options.get("name", "")}
        info |= {"kind": "Client", "type": "nats"} | ({"nonce": NONCE} if signs else {})
        nats = {
            "server_id": server_id,
            "user_nkey": user,
            "client_info": info,
            "connect_opts": {"lang": "go", "version": "1.40.0", "protocol": 1, **options},
            "client_tls": tls,
            "type": REQUEST_TYPE,
            "version": CLAIMS_VERSION,
        }
        own = {"exp": int(now) + REQUEST_SECONDS, "iat": int(now), "iss": self.id, "jti": "J" * 52, "sub": user}
        return {"aud": AUDIENCE, **own, "nats": nats}


def sign_ed25519(message: bytes, secret: bytes) -> bytes:
    """Return the 64 bytes of the signature; ``secret`` is libsodium's 64 byte key."""
    return nacl.bindings.crypto_sign(message, secret)[: nacl.bindings.crypto_sign_BYTES]
