"""One connection under decision: the request, the policy, the time, and the checks all rules share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import msgspec

from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.policy.decision import Admit, Code, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.permissions import Permissions
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.tokens.claims import earlier
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.nonce import verify_nonce
from broker_auth.tokens.verify import Rejected, Verified, check_times


class Refused(Exception):
    """Ends a decision from anywhere within a rule."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Case(msgspec.Struct):
    """The state of one decision.

    Attributes:
        rule: the rule that has claimed the connection so far; denials are recorded under it.
        peer: the verified peer, None on unverified TLS.
        refused_peer: a peer that nats-server verified and whose chain does not count here.
        token: the token, once a rule has looked at it.
    """

    request: AuthorizationRequest
    policy: Policy
    now: float
    rule: Rule = Rule.CONNECTION
    peer: PeerIdentity | None = None
    refused_peer: RefusedPeer | None = None
    token: Verified | Rejected | None = None

    def refuse(self, code: Code, detail: str) -> NoReturn:
        """Deny the connection under the rule that claimed it."""
        raise Refused(code, detail)

    def identify_peer(self) -> None:
        """Find out whether TLS is verified, by our own CAs (docs/policy.md#0-what-is-not-served)."""
        tls = self.request.client_tls
        if tls is None or not tls.verified_chains:
            return
        peer = self.policy.peers.identify(tls.verified_chains, self.now)
        if isinstance(peer, PeerIdentity):
            self.peer = peer
            return
        self.refused_peer = peer
        if peer.unusable:
            self.refuse(DenyCode.CHAIN_UNUSABLE, peer.description)

    def refuse_for_want_of_tls(self, code: Code, detail: str) -> NoReturn:
        """Deny the connection for want of verified TLS; says why a certificate that was shown does not count."""
        self.refuse(code, f"{detail}; {self.refused_peer.description}" if self.refused_peer else detail)

    def require_password(self, accepted: Iterable[Secret], code: DenyCode) -> None:
        """The password is one of ``accepted``; all are compared, each in constant time."""
        given = self.request.connect_opts.password
        matches = [secret.matches(given) for secret in accepted if secret]
        if not given or not any(matches):
            self.refuse(code, "wrong password" if given else "no password")

    def examine_token(self) -> Verified | Rejected:
        """The token, whatever it is; its time and nonce are not looked at yet."""
        self.token = self.policy.tokens.examine(self.request.connect_opts.auth_token)
        return self.token

    def require_valid(self, token: Verified | Rejected, *, nonce: bool) -> Verified:
        """The token is verified, in its time and, with ``nonce``, held by whoever presents it."""
        if isinstance(token, Rejected):
            self.refuse(token.fault, token.detail)
        try:
            check_times(
                token,
                self.now,
                leeway=self.policy.token_leeway,
                allow_non_expiring=self.policy.provisioning.allow_non_expiring_tokens,
            )
            if nonce:
                verify_nonce(token.claims, self.request.client_info.nonce, self.request.connect_opts.sig)
        except TokenRejected as rejected:
            self.refuse(rejected.fault, rejected.detail)
        return token

    def require_place(self) -> None:
        """Check that one more node leaves provisioners a place (docs/policy.md#the-places-of-provisioners)."""
        if self.policy.provisioning.gauge.full(self.request.server_id.id, self.now):
            limit = "plugin.broker_auth.provisioning.limits.max_connections"
            self.refuse(DenyCode.PROVISIONING_FULL, f"as many connections as {limit} allows nodes are there")

    def admit(
        self, account: str, name: str, permissions: Permissions, reason: str, token: Verified | None = None
    ) -> Admit:
        """Admit the connection until its first credential ends (docs/policy.md#the-session-that-was-let-in)."""
        return Admit(
            rule=self.rule,
            account=account,
            name=name,
            permissions=permissions,
            expires=earlier(token.expires if token else None, self.peer.not_after if self.peer else None),
            reason=reason,
            token_id=token.claims.jti if token else "",
            signer=token.signer if token else "",
            fingerprint=self.peer.fingerprint if self.peer else "",
            chain_issuer=token.chain_issuer if token else None,
        )
