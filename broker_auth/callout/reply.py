"""From a decision to signed bytes: the user JWT and the response JWT (INTERFACE "Wire").

Limits and connection types in a user JWT are ignored by nats-server in this mode (NATS_FACTS 16), so
none are promised here.
"""

from __future__ import annotations

import os
from typing import Final, Literal

import msgspec
import nacl.bindings

from broker_auth.callout import encoding
from broker_auth.callout.request import CLAIMS_VERSION, HEADER
from broker_auth.callout.xkey import Sealer
from broker_auth.nkey import Kind, encode_public
from broker_auth.policy.decision import Admit
from broker_auth.policy.permissions import SubjectPermission
from broker_auth.policy.request import AuthorizationRequest

_UNLIMITED: Final = -1


class _User(msgspec.Struct, kw_only=True):
    pub: SubjectPermission
    sub: SubjectPermission
    subs: int = _UNLIMITED
    data: int = _UNLIMITED
    payload: int = _UNLIMITED
    tags: tuple[str, ...]
    type: Literal["user"] = "user"
    version: int = CLAIMS_VERSION


class _UserClaims(msgspec.Struct, kw_only=True, omit_defaults=True):
    jti: str
    iat: int
    iss: str
    sub: str
    aud: str
    name: str
    exp: int | None = None
    nats: _User


class _Response(msgspec.Struct, kw_only=True, omit_defaults=True):
    jwt: str | None = None
    error: str | None = None
    type: str
    version: int


class _ResponseClaims(msgspec.Struct, kw_only=True):
    jti: str
    iat: int
    iss: str
    aud: str
    sub: str
    nats: _Response


class ReplyWriter:
    """Signs answers with the issuer's account key, and seals them where requests are sealed."""

    def __init__(self, issuer_seed: bytes, sealer: Sealer | None) -> None:
        """``issuer_seed`` is the 32 bytes of an account nkey seed."""
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(issuer_seed)
        self.issuer = encode_public(public, Kind.ACCOUNT)
        self._sealer = sealer
        self._encoder = msgspec.json.Encoder()

    def admit(self, request: AuthorizationRequest, admitted: Admit, now: float) -> bytes:
        """The answer that lets the connection in as ``admitted`` says."""
        user = _UserClaims(
            jti=_jti(),
            iat=int(now),
            iss=self.issuer,
            sub=request.user_nkey,
            aud=admitted.account,
            name=admitted.name,
            # Rounded down: the session ends before its credential does, never after.
            exp=None if admitted.expires is None else int(admitted.expires),
            nats=_User(pub=admitted.permissions.pub, sub=admitted.permissions.sub, tags=admitted.tags),
        )
        jwt = self._sign(user).decode("ascii")
        return self._answer(request, now, _Response(jwt=jwt, type="authorization_response", version=CLAIMS_VERSION))

    def deny(self, request: AuthorizationRequest, phrase: str, now: float) -> bytes:
        """The answer that refuses the connection; ``phrase`` appears in nats-server's log only."""
        return self._answer(
            request, now, _Response(error=phrase, type="authorization_response", version=CLAIMS_VERSION)
        )

    def _answer(self, request: AuthorizationRequest, now: float, response: _Response) -> bytes:
        answer = self._sign(
            _ResponseClaims(
                jti=_jti(),
                iat=int(now),
                iss=self.issuer,
                aud=request.server_id.id,
                sub=request.user_nkey,
                nats=response,
            )
        )
        return answer if self._sealer is None else self._sealer.seal(answer, request.server_id.xkey)

    def _sign(self, claims: msgspec.Struct) -> bytes:
        signed = HEADER + b"." + encoding.encode(self._encoder.encode(claims))
        signature = nacl.bindings.crypto_sign(signed, self._secret)[: nacl.bindings.crypto_sign_BYTES]
        return signed + b"." + encoding.encode(signature)


def _jti() -> str:
    return os.urandom(16).hex()
