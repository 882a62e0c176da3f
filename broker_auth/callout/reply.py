"""From a decision to signed bytes: the user JWT and the response JWT (docs/interface.md#the-wire).

Limits and connection types in a user JWT are ignored by nats-server in this mode (fact 16), so
none are promised here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import nacl.bindings

from broker_auth import encoding
from broker_auth.callout.request import CLAIMS_VERSION, HEADER
from broker_auth.natsio.nkey import Kind, encode_public
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.decision import Admit, Decision
from broker_auth.policy.permissions import SubjectPermission
from broker_auth.policy.request import AuthorizationRequest

_UNLIMITED: Final = -1
_PREFIX: Final = HEADER + b"."


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

    def write(self, decided: Sequence[tuple[AuthorizationRequest, Decision]], now: float) -> list[bytes]:
        """The answer to each request, in their order.

        All of them go through one step before any goes through the next: libsodium and the interpreter drive
        each other out of the processor's caches, and every change between them costs (docs/performance.md).

        Args:
            decided: what was asked and what was decided.
            now: Unix seconds.
        """
        issued = int(now)
        users, jwts, texts, answers = [], [], [], []
        # Loops, not comprehensions: before Python 3.12 each of those is a function made and called.
        for request, decision in decided:
            if isinstance(decision, Admit):
                users.append(self._encode(self._user(request, decision, issued)))
        for user in users:
            jwts.append(self._sign(user))
        in_turn = iter(jwts)
        for request, decision in decided:
            jwt = next(in_turn) if isinstance(decision, Admit) else None
            texts.append(self._encode(self._response(request, decision, issued, jwt)))
        for text in texts:
            answers.append(self._sign(text))
        if self._sealer is None:
            return answers
        seal = self._sealer.seal
        return [seal(answer, request.server_id.xkey) for (request, _), answer in zip(decided, answers, strict=True)]

    def _user(self, request: AuthorizationRequest, admitted: Admit, issued: int) -> _UserClaims:
        return _UserClaims(
            iat=issued,
            iss=self.issuer,
            sub=request.user_nkey,
            aud=admitted.account,
            name=admitted.name,
            # Rounded down: the session ends before its credential does, never after.
            exp=None if admitted.expires is None else int(admitted.expires),
            nats=_User(pub=admitted.permissions.pub, sub=admitted.permissions.sub, tags=admitted.tags),
        )

    def _response(
        self, request: AuthorizationRequest, decision: Decision, issued: int, jwt: bytes | None
    ) -> _ResponseClaims:
        """``jwt`` of whoever is admitted."""
        return _ResponseClaims(
            jti=os.urandom(16).hex(),
            iat=issued,
            iss=self.issuer,
            aud=request.server_id.id,
            sub=request.user_nkey,
            nats=_Response(
                jwt=None if jwt is None else jwt.decode("ascii"),
                error=None if isinstance(decision, Admit) else decision.phrase,
                type="authorization_response",
                version=CLAIMS_VERSION,
            ),
        )

    def _encode(self, claims: msgspec.Struct) -> bytes:
        return _PREFIX + encoding.encode(self._encoder.encode(claims))

    def _sign(self, text: bytes) -> bytes:
        signature = nacl.bindings.crypto_sign(text, self._secret)[: nacl.bindings.crypto_sign_BYTES]
        return text + b"." + encoding.encode(signature)
