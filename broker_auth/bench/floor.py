"""The crypto floor: what no service can save, on texts of the very sizes at hand."""

from __future__ import annotations

import msgspec
import nacl.bindings

from broker_auth import encoding
from broker_auth.bench.materials import Request, sign_ed25519
from broker_auth.callout.reply import Decided, ReplyWriter
from broker_auth.callout.request import RequestReader
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Decision
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.keys import verify_ed25519


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """One verification of a request and the signatures of its answer.

    Attributes:
        public: the key that signed the request.
        signed: what it signed.
        signature: over that.
        texts: what the answer signs.
        secret: a key to sign with, made for the bench.
    """

    public: bytes
    signed: bytes
    signature: bytes
    texts: tuple[bytes, ...]
    secret: bytes

    def __call__(self) -> None:
        """Do that work once."""
        verify_ed25519(self.public, self.signed, self.signature)
        for text in self.texts:
            sign_ed25519(text, self.secret)


def floor_of(sent: Request, server_public: bytes, request: AuthorizationRequest, decision: Decision) -> Floor:
    """Return the floor of answering a request as it was decided; a denial signs once, an admission twice."""
    signed, _, signature = sent.token.rpartition(b".")
    _, secret = nacl.bindings.crypto_sign_keypair()
    return Floor(
        public=server_public,
        signed=signed,
        signature=encoding.decode(signature),
        texts=_texts(request, decision),
        secret=secret,
    )


def floor_by_policy(sent: Request, server_public: bytes, policy: Policy, now: float) -> Floor:
    """Return the floor of answering one request as this policy decides it."""
    reader = RequestReader(None)
    request = reader.verify(reader.open(sent.token, None), now)
    return floor_of(sent, server_public, request, decide(request, policy, now))


def _texts(request: AuthorizationRequest, decision: Decision) -> tuple[bytes, ...]:
    writer = ReplyWriter(bytes(32), None)  # any key: signatures are of one size
    decided = Decided(request, decision)
    writer.write([decided], 0.0)
    response = decided.answer.rpartition(b".")[0]
    if not isinstance(decision, Admit):
        return (response,)
    claims = msgspec.json.decode(encoding.decode(response.partition(b".")[2]))
    return response, claims["nats"]["jwt"].rpartition(".")[0].encode()
