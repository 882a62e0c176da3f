"""The authorization request: what nats-server says about one connection.

Field names are those of the decoded ``nats`` object, so a request is decoded from the wire, from an
audit record or from a file for ``explain`` in one step, and types are checked there, once. Fields
that no rule and no record uses are ignored; empty strings are left out by the server (fact 7).
"""

from __future__ import annotations

import msgspec


class ServerId(msgspec.Struct, frozen=True, kw_only=True):
    """Which server asks. ``id`` is its nkey (``N…``), ``xkey`` its curve key if it encrypts."""

    id: str
    name: str = ""
    host: str = ""
    cluster: str = ""
    version: str = ""
    tags: tuple[str, ...] | None = None
    xkey: str = ""


class ClientInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the server knows of the client. ``nonce`` is there only if the client sent ``sig``."""

    host: str = ""
    id: int = 0
    name: str = ""
    kind: str = ""
    type: str = ""
    nonce: str = ""


class ConnectOpts(msgspec.Struct, frozen=True, kw_only=True):
    """What the client said in CONNECT: hostile until proven otherwise. ``repr`` shows no secret."""

    jwt: str = ""
    nkey: str = ""
    sig: str = ""
    auth_token: str = ""
    user: str = ""
    password: str = msgspec.field(default="", name="pass")
    name: str = ""
    lang: str = ""
    version: str = ""
    protocol: int = 0

    def __repr__(self) -> str:
        return f"ConnectOpts(user={self.user!r}, name={self.name!r}, …)"


class ClientTLS(msgspec.Struct, frozen=True, kw_only=True):
    """TLS state. ``certs`` is what the client offered unverified, and is never used (fact 2)."""

    version: str = ""
    cipher: str = ""
    verified_chains: tuple[tuple[str, ...], ...] | None = None


class AuthorizationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One connection that wants in. ``client_tls`` is None on plain TCP."""

    server_id: ServerId
    user_nkey: str
    client_info: ClientInfo
    connect_opts: ConnectOpts
    client_tls: ClientTLS | None = None
    type: str = ""
    version: int = 0
