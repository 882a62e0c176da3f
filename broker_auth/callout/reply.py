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
from broker_auth.natsio.nkey import NkeyKind, encode_public
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


class Decided(msgspec.Struct):
    """A verified request, its decision, and the answer as far as it is made.

    Attributes:
        user_jwt: of an admission; empty for a denial.
        answer: the bytes to publish, once every step of :meth:`ReplyWriter.write` is done.
    """

    request: AuthorizationRequest
    decision: Decision
    user_jwt: bytes = b""
    answer: bytes = b""


class ReplyWriter:
    """The writer of answers, signed with the issuer's account key, and sealed if requests are sealed."""

    def __init__(self, issuer_seed: bytes, sealer: Sealer | None) -> None:
        """Create a writer; ``issuer_seed`` is the 32 bytes of an account nkey seed."""
        public, self._secret = nacl.bindings.crypto_sign_seed_keypair(issuer_seed)
        self.issuer = encode_public(public, NkeyKind.ACCOUNT)
        self._sealer = sealer
        self._encoder = msgspec.json.Encoder()

    def write(self, decided: Sequence[Decided], now: float) -> None:
        """Set the answer of each decided request.

        All of them go through one step before any goes through the next: libsodium and the interpreter drive
        each other out of the processor's caches, and every change between them costs (docs/performance.md).

        Args:
            decided: requests and their decisions.
            now: Unix seconds.
        """
        issued = int(now)
        for one in decided:
            if isinstance(one.decision, Admit):
                one.user_jwt = self._encode(self._user(one.request, one.decision, issued))
        for one in decided:
            if one.user_jwt:
                one.user_jwt = self._sign(one.user_jwt)
        for one in decided:
            one.answer = self._encode(self._response(one, issued))
        for one in decided:
            one.answer = self._sign(one.answer)
        if self._sealer is not None:
            for one in decided:
                one.answer = self._sealer.seal(one.answer, one.request.server_id.xkey)

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

    def _response(self, decided: Decided, issued: int) -> _ResponseClaims:
        request, decision = decided.request, decided.decision
        return _ResponseClaims(
            jti=os.urandom(16).hex(),
            iat=issued,
            iss=self.issuer,
            aud=request.server_id.id,
            sub=request.user_nkey,
            nats=_Response(
                jwt=decided.user_jwt.decode("ascii") if isinstance(decision, Admit) else None,
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
