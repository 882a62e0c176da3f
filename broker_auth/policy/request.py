"""The authorization request: nats-server's description of a connection.

Field names are those of the decoded ``nats`` object, so that a request from the wire, from an audit record or from
a file for ``explain`` is decoded and type-checked in one step. Fields that are not used by rules or records are
ignored; the server omits empty strings (fact 7).
"""

from __future__ import annotations

import msgspec


class ServerId(msgspec.Struct, frozen=True, kw_only=True):
    """The requesting server. ``id`` is its nkey (``N…``), ``xkey`` its curve key if it encrypts."""

    id: str
    name: str = ""
    host: str = ""
    cluster: str = ""
    version: str = ""
    tags: tuple[str, ...] | None = None
    xkey: str = ""


class ClientInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The server's information about the client. ``nonce`` is present only if the client sent ``sig``."""

    host: str = ""
    id: int = 0
    name: str = ""
    kind: str = ""
    type: str = ""
    nonce: str = ""


class ConnectOpts(msgspec.Struct, frozen=True, kw_only=True):
    """The client's CONNECT options, which are untrusted. ``repr`` omits secrets."""

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
    """The TLS state. ``certs`` are unverified certificates from the client and are never used (fact 2)."""

    version: str = ""
    cipher: str = ""
    verified_chains: tuple[tuple[str, ...], ...] | None = None


class AuthorizationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request to admit a connection. ``client_tls`` is None on plain TCP."""

    server_id: ServerId
    user_nkey: str
    client_info: ClientInfo
    connect_opts: ConnectOpts
    client_tls: ClientTLS | None = None
    type: str = ""
    version: int = 0
