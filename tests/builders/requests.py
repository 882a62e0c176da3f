"""Authorization requests, one function for each kind of connection, typed and as wire bytes.

request = node(name="a b")                  # typed; one field changed
data = Server().wire(request)               # what nats-server sends
data, header = Server().sealed(request, service_xkey)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import nacl.bindings
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from broker_auth.natsio.nkey import NkeyKind, encode_public
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.policy.request import AuthorizationRequest, ClientInfo, ClientTLS, ConnectOpts, ServerId
from tests.builders.clock import NOW
from tests.builders.peers import PROVISIONER_NAME, Chain, fleet_chain
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, SYSTEM_USER
from tests.builders.tokens import (
    HOLDER,
    NONCE,
    ORG,
    Key,
    b64,
    client_claims,
    nonce_signature,
    provisioning_claims,
    provisioning_signer,
    server_claims,
    sign,
)

HOST: Final = "192.0.2.10"
NODE_NAME: Final = "new1.example.net"
TLS: Final = ClientTLS(version="1.3", cipher="TLS_AES_128_GCM_SHA256")
HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}


@dataclass(frozen=True, slots=True)
class Server:
    """A nats-server: its nkey signs requests, its curve key seals them."""

    name: str = "fleet1"
    key: SigningKey = field(default_factory=SigningKey.generate, repr=False)
    curve: PrivateKey = field(default_factory=PrivateKey.generate, repr=False)

    @property
    def id(self) -> str:
        """Its public nkey, ``N…``."""
        return encode_public(bytes(self.key.verify_key), NkeyKind.SERVER)

    @property
    def xkey(self) -> str:
        """Its public curve nkey, ``X…``."""
        return encode_public(bytes(self.curve.public_key), NkeyKind.CURVE)

    def asks(self, request: AuthorizationRequest, *, sealed: bool = False) -> AuthorizationRequest:
        """Return ``request`` with the id of this server."""
        server_id = ServerId(id=self.id, name=self.name, host="0.0.0.0", version="2.15.1")  # noqa: S104
        if sealed:
            server_id = msgspec.structs.replace(server_id, xkey=self.xkey)
        return msgspec.structs.replace(request, server_id=server_id)

    def claims(self, request: AuthorizationRequest, *, sealed: bool = False, now: int = NOW) -> dict[str, Any]:
        """Return the claims of the request JWT, to be changed and signed."""
        own: dict[str, Any] = {
            "aud": "nats-authorization-request",
            "exp": now + 2,
            "iat": now,
            "iss": self.id,
            "jti": "JTI",
            "sub": "sub",
        }
        return own | {"nats": msgspec.to_builtins(self.asks(request, sealed=sealed))}

    def sign(self, claims: object, header: object = HEADER) -> bytes:
        """Return a JWT of these claims and header; bytes are taken as they are."""
        signed = f"{_part(header)}.{_part(claims)}".encode()
        return signed + b"." + b64(self.key.sign(signed).signature).encode()

    def wire(self, request: AuthorizationRequest, *, now: int = NOW) -> bytes:
        """Return an unencrypted request."""
        return self.sign(self.claims(request, now=now))

    def sealed(self, request: AuthorizationRequest, service: bytes, *, now: int = NOW) -> tuple[bytes, str]:
        """Return an encrypted request for the service's public curve key (32 bytes), and its header's value."""
        return self.seal(self.sign(self.claims(request, sealed=True, now=now)), service), self.xkey

    def seal(self, message: bytes, service: bytes) -> bytes:
        """Seal ``message`` for the service's public curve key."""
        nonce = os.urandom(24)
        return b"xkv1" + nonce + nacl.bindings.crypto_box(message, nonce, service, bytes(self.curve))

    def open(self, sealed: bytes, service: bytes) -> bytes:
        """Return the message that the service sealed for this server."""
        assert sealed[:4] == b"xkv1"
        return nacl.bindings.crypto_box_open(sealed[28:], sealed[4:28], service, bytes(self.curve))


def _part(value: object) -> str:
    return b64(value if isinstance(value, bytes) else msgspec.json.encode(value))


SERVER: Final = Server()
USER_NKEY: Final = encode_public(bytes(SigningKey.generate().verify_key), NkeyKind.USER)


def gauge(nodes: int) -> ConnectionGauge:
    """Return a gauge with a limit of three, to which the requesting server has reported ``nodes`` connections."""
    made = ConnectionGauge(3)
    made.report_nodes("", SERVER.id, SERVER.name, nodes, NOW)
    return made


def request(
    *,
    chains: tuple[Chain, ...] = (),
    tls: ClientTLS | None = TLS,
    kind: str = "Client",
    type: str = "nats",
    host: str = HOST,
    nonce: str = "",
    opts: Mapping[str, str] | None = None,
    **options: str,
) -> AuthorizationRequest:
    """Return a request of any kind; ``options`` are ``connect_opts`` (``opts`` for names that Python keeps)."""
    if tls is not None and chains:
        tls = msgspec.structs.replace(tls, verified_chains=chains)
    defaults = {"lang": "go", "version": "1.40.0", "protocol": 1, **(opts or {}), **options}
    connect_opts = msgspec.convert(
        {"pass" if name == "password" else name: value for name, value in defaults.items()}, ConnectOpts
    )
    return AuthorizationRequest(
        server_id=ServerId(id=SERVER.id, name=SERVER.name, version="2.15.1"),
        user_nkey=USER_NKEY,
        client_info=ClientInfo(host=host, id=7, name=connect_opts.name, kind=kind, type=type, nonce=nonce),
        connect_opts=connect_opts,
        client_tls=tls,
        type="authorization_request",
        version=2,
    )


def fleet(**changes: Any) -> AuthorizationRequest:
    """Return a fleet member: verified TLS, nothing else."""
    return request(**({"chains": (fleet_chain(),), "name": "node1.example.net"} | changes))


def provisioner(**changes: Any) -> AuthorizationRequest:
    """Return the provisioner of x509 mode: verified TLS and the password."""
    valid = {"chains": (fleet_chain(PROVISIONER_NAME),), "user": "provisioner", "password": PASSWORD}
    return request(**(valid | changes))


def system(**changes: Any) -> AuthorizationRequest:
    """Return the system user: verified TLS and its password."""
    valid = {"chains": (fleet_chain("admin.example.net"),), "user": SYSTEM_USER, "password": SYSTEM_PASSWORD}
    return request(**(valid | changes))


def node(token: str | None = None, **changes: Any) -> AuthorizationRequest:
    """Return an unprovisioned node: unverified TLS and a provisioning token, by default one of RSA's signer."""
    chosen = sign(provisioning_claims(), provisioning_signer()) if token is None else token
    return request(**({"auth_token": chosen, "name": NODE_NAME} | changes))


def presenting(token: str, key: Key = HOLDER, **changes: Any) -> AuthorizationRequest:
    """Return a connection with a client or server token and the signed nonce; unverified TLS."""
    valid = {"auth_token": token, "nonce": NONCE, "sig": nonce_signature(key), "name": "holder"}
    return request(**(valid | changes))


def client(key: Key = ORG, claims: Mapping[str, Any] | None = None, **changes: Any) -> AuthorizationRequest:
    """Return a client with a token of ``key``; ``claims`` are changes of the valid ones."""
    return presenting(sign(client_claims(**(claims or {})), key), **changes)


def server(key: Key = ORG, claims: Mapping[str, Any] | None = None, **changes: Any) -> AuthorizationRequest:
    """Return a server with a token of ``key``; ``claims`` are changes of the valid ones."""
    return presenting(sign(server_claims(**(claims or {})), key), **changes)
