"""The kinds of connection that are measured, and the cryptography that each of them needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker_auth import encoding
from broker_auth.bench.materials import NONCE, PlayedServer, Request, TokenSubject, Trust
from broker_auth.tokens.jws import parse
from broker_auth.tokens.keys import verify_ed25519

Primitive = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request.

    Attributes:
        always: what its credential needs verified on every connection.
        cold: what it needs verified the first time it is seen, beyond that.
    """

    request: Request
    always: tuple[Primitive, ...] = ()
    cold: tuple[Primitive, ...] = ()


@dataclass(frozen=True, slots=True)
class Maker:
    """A maker of samples of every kind, as from one server at one time (Unix seconds)."""

    trust: Trust
    server: PlayedServer
    now: float

    def provisioning(self, number: int) -> Sample:
        """Make an unprovisioned node with a separate provisioning token."""
        return self.node(number, self.trust.provisioning_token(self.now))

    def bad_token(self, number: int) -> Sample:
        """Make a node whose token is signed by an untrusted key."""
        return self.node(number, self.trust.provisioning_token(self.now, foreign=True))

    def node(self, number: int, token: str) -> Sample:
        """Make an unprovisioned node with this token."""
        options = {"auth_token": token, "name": f"node{number}.example.net"}
        return Sample(request=self.server.request(options, self.now), cold=(self._rsa(token),))

    def mtls(self, number: int) -> Sample:
        """Make a fleet member with a certificate."""
        name = f"node{number}.example.net"
        leaf = self.trust.authority.client(name)
        chain = (leaf.certificate_pem.decode("ascii"), self.trust.authority.certificate_pem.decode("ascii"))
        public = self.trust.authority.certificate.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        certificate = leaf.certificate

        def verify_certificate() -> None:
            public.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))

        return Sample(request=self.server.request({"name": name}, self.now, chain), cold=(verify_certificate,))

    def client(self, _: int) -> Sample:
        """Make a client with a token of the organization."""
        subject = TokenSubject()
        token = self.trust.client_token(self.now, subject)
        return self._with_token(subject, token, {"name": "choria client"}, ())

    def server_chain(self, number: int) -> Sample:
        """Make a server with a token of a chain issuer, with two more signatures to verify."""
        subject, name = TokenSubject(), f"node{number}.example.net"
        token = self.trust.server_token(self.now, subject, self.trust.chain_issuer_token(self.now), name)
        claims = parse(token).claims
        creator_tcs, _, own = claims["tcs"].partition(".")
        creator_jti, _, creator_hex = claims["iss"].removeprefix("C-").partition(".")
        links = (
            _ed25519(self.trust.organization.public_hex, f"{creator_jti}.{creator_hex}", creator_tcs),
            _ed25519(creator_hex, f"{claims['jti']}.{creator_tcs}", own),
        )
        return self._with_token(subject, token, {"name": name}, links)

    def _with_token(
        self, subject: TokenSubject, token: str, options: dict[str, Any], links: tuple[Primitive, ...]
    ) -> Sample:
        jws, signature = parse(token), subject.nonce_signature
        public = subject.public_hex
        options = {**options, "auth_token": token, "sig": encoding.encode(signature).decode("ascii")}
        signer = self.trust.creator if links else self.trust.organization
        return Sample(
            request=self.server.request(options, self.now, signs=True),
            always=(_ed25519(public, NONCE, signature.hex()),),
            cold=(_ed25519(signer.public_hex, jws.signing_input.decode("ascii"), jws.signature.hex()), *links),
        )

    def _rsa(self, token: str) -> Primitive:
        jws, public = parse(token), self.trust.provisioning.certificate.public_key()
        assert isinstance(public, rsa.RSAPublicKey)
        check = self.trust.provisioning_verifies  # a foreign signature fails, at the same cost
        return lambda: check.verify(jws.algorithm, jws.signing_input, jws.signature)


def _ed25519(public_hex: str | None, message: str, signature_hex: str) -> Primitive:
    public, text, signature = bytes.fromhex(public_hex or ""), message.encode(), bytes.fromhex(signature_hex)
    return lambda: verify_ed25519(public, text, signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKind:
    """A kind of decision that is measured.

    Attributes:
        make: the method of :class:`Maker` that makes its samples.
        issuer_mode: the policy it is decided by.
    """

    make: Callable[[Maker, int], Sample]
    issuer_mode: bool = False


KINDS: Final = {
    "provisioning": RequestKind(make=Maker.provisioning),
    "mtls": RequestKind(make=Maker.mtls),
    "server_chain": RequestKind(make=Maker.server_chain, issuer_mode=True),
    "client": RequestKind(make=Maker.client, issuer_mode=True),
    "bad_token": RequestKind(make=Maker.bad_token),
}
"""Each is measured with its credential cached and, as ``KIND_cold``, seen for the first time."""
