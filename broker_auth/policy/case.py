"""The state of one decision: the request, the policy, the time, and the checks that rules share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NoReturn

import msgspec

from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.policy.counting import Counted, NodeClaim
from broker_auth.policy.decision import NO_EVIDENCE, Admit, Code, DenyCode, Evidence, Rule
from broker_auth.policy.model import HostList, Policy
from broker_auth.policy.permissions import Permissions
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.times import MAX_TIME
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.claims import earlier
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import ASCII_SPACE, show
from broker_auth.tokens.nonce import verify_nonce
from broker_auth.tokens.verify import Rejected, Verified, check_times
from broker_auth.wording import counted

_MEMBERS: Final = frozenset({Rule.CLIENT, Rule.SERVER, Rule.VERIFIED_TLS})


class Refused(Exception):
    """A rule denies the connection; ends the decision from anywhere within the rule."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Case(msgspec.Struct):
    """The state of one decision.

    Attributes:
        broker: the configured broker that the request was received from; empty if unknown.
        counted: whether the node is counted for its token; None if nobody was asked.
        rule: the last rule that has claimed the connection; denials are recorded under it.
        peer: the verified peer; None on unverified TLS.
        refused_peer: a peer that nats-server verified, but whose chain does not lead to a configured CA.
        token: the token, once a rule has examined it.
        password: which of the accepted passwords matched, ``current`` or ``previous``.
        connections: the number that was compared with the limit of provisioning connections.
        nodes: the ``counted`` that decided, once a rule has required that the node is counted.
        claim: the node to count, if nothing else is missing.
    """

    request: AuthorizationRequest
    policy: Policy
    now: float
    broker: str = ""
    counted: Counted | None = None
    rule: Rule = Rule.CONNECTION
    peer: PeerIdentity | None = None
    refused_peer: RefusedPeer | None = None
    token: Verified | Rejected | None = None
    password: str = ""
    connections: int | None = None
    nodes: Counted | None = None
    claim: NodeClaim | None = None

    @property
    def evidence(self) -> Evidence:
        """Results of the checks that a stored request cannot repeat."""
        signer_key = self.token.signer_key if isinstance(self.token, Verified) else ""
        if not signer_key and not self.password and self.connections is None:
            return NO_EVIDENCE
        counted = "" if self.nodes is None else self.nodes.value
        return Evidence(signer_key=signer_key, password=self.password, connections=self.connections, counted=counted)

    def refuse(self, code: Code, detail: str) -> NoReturn:
        """Deny the connection under the rule that claimed it."""
        raise Refused(code, detail)

    def identify_peer(self) -> None:
        """Determine whether TLS is verified by the configured CAs (docs/policy.md#0-connections-not-served)."""
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
        """Deny the connection because TLS is not verified; the detail says why a presented certificate was refused."""
        self.refuse(code, f"{detail}; {self.refused_peer.description}" if self.refused_peer else detail)

    def require_password(self, accepted: Iterable[Secret], code: DenyCode) -> None:
        """Require that the password is one of ``accepted``; compare it with each of them in constant time."""
        password = self.request.connect_opts.password
        matches = [secret.matches(password) for secret in accepted if secret]
        if not password or not any(matches):
            self.refuse(code, "wrong password" if password else "no password")
        self.password = "current" if matches[0] else "previous"

    def examine_token(self) -> Verified | Rejected:
        """Return the result of examining the token, without checking its times and the nonce."""
        self.token = self.policy.tokens.examine(self.request.connect_opts.auth_token)
        return self.token

    def require_valid(self, token: Verified | Rejected, *, nonce: bool) -> Verified:
        """Require a verified token that is valid now and, with ``nonce``, whose key signed the nonce."""
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
                self.require_nonce(token)
        except TokenRejected as rejected:
            self.refuse(rejected.fault, rejected.detail)
        return token

    def require_nonce(self, token: Verified) -> None:
        """Require that the connection signed the server's nonce with the token's key.

        Raises:
            TokenRejected: it did not.
        """
        verify_nonce(token.claims, self.request.client_info.nonce, self.request.connect_opts.sig)

    def require_within(self, bounds: Bounds) -> None:
        """Require that the token is for this node (docs/policy.md#provisioning-tokens-for-certain-nodes)."""
        name, host = self.request.connect_opts.name, self.request.client_info.host
        if not bounds.allow_name(name):
            self.refuse(DenyCode.NODE_NAME_NOT_ALLOWED, f"the token is not for nodes with the name {show(name)}")
        if bounds.networks and host not in HostList(networks=bounds.networks):
            self.refuse(DenyCode.ADDRESS_NOT_ALLOWED, f"the token is not for nodes from {show(host)}")

    def require_place(self) -> None:
        """Require that another node leaves connections for provisioners (docs/policy.md#the-places-of-provisioners)."""
        gauge = self.policy.provisioning.gauge
        self.connections = gauge.connections(self.broker, self.request.server_id.id, self.now)
        if self.connections is not None:
            self.require_below_limit(self.connections)

    def require_below_limit(self, connections: int) -> None:
        """Require that the provisioning account has fewer connections than nodes may have."""
        if connections >= self.policy.provisioning.gauge.limit:
            limit = "plugin.broker_auth.provisioning.limits.max_connections"
            self.refuse(DenyCode.PROVISIONING_FULL, f"the account has as many connections as {limit} allows for nodes")

    def require_not_revoked(self, token: Verified | None) -> None:
        """Check that no credential of the connection was revoked (docs/policy.md#revoked-credentials)."""
        node = self.request.connect_opts.name if self.rule is Rule.PROVISIONING else ""
        revoked = self.policy.revocations.find(token, self.peer, node, self.request.client_info.host, self.now)
        if revoked is not None:
            self.refuse(revoked.code, revoked.detail)

    def require_counting(self, most: int) -> None:
        """Require that hosts can count the nodes of a token (docs/policy.md#tokens-for-a-number-of-nodes)."""
        if not self.policy.provisioning.counts_nodes:
            nodes, key = counted(most, "node"), "plugin.broker_auth.revocations_bucket"
            self.refuse(
                DenyCode.NODES_NOT_COUNTED, f"the token is for {nodes}, and {key} is not set, so none is counted"
            )

    def require_counted(self, most: int) -> None:
        """Require that the node is one of the ``most`` that may wait by its token.

        If nobody was asked, make a claim: nothing else is missing.
        """
        self.nodes = self.counted or Counted.UNKNOWN
        nodes = counted(most, "node")
        if self.nodes is Counted.USED_UP:
            self.refuse(DenyCode.TOKEN_USED_UP, f"the token is for {nodes}, and others have waited by it")
        if self.nodes is Counted.UNKNOWN:
            if self.counted is None:
                options = self.request.connect_opts
                self.claim = NodeClaim(token=options.auth_token.strip(ASCII_SPACE), node=options.name)
            detail = f"the token is for {nodes}, and it is not known whether this is one of them"
            self.refuse(DenyCode.NODES_NOT_COUNTED, detail)

    def admit(
        self, account: str, name: str, permissions: Permissions, reason: str, token: Verified | None = None
    ) -> Admit:
        """Admit the connection until its first credential ends, and the grace (docs/policy.md#the-admitted-session).

        Refuse revoked credentials, and nodes that their token's number leaves out. Every admission ends here, so that
        no rule can omit the checks. Counting comes last: a connection that is denied must not use up a token.
        """
        self.require_not_revoked(token)
        if token is not None and token.bounds is not None and token.bounds.max_nodes is not None:
            self.require_counting(token.bounds.max_nodes)
            self.require_counted(token.bounds.max_nodes)
        ends = earlier(token.expires if token else None, self.peer.not_after if self.peer else None)
        grace = 0.0
        if ends is not None and self.policy.session_grace and self.rule in _MEMBERS:
            grace = max(0.0, min(self.policy.session_grace, MAX_TIME - ends))
        return Admit(
            rule=self.rule,
            account=account,
            name=name,
            permissions=permissions,
            expires=None if ends is None else ends + grace,
            grace=grace,
            reason=reason,
            token_id=token.claims.jti if token else "",
            signer=token.signer if token else "",
            fingerprint=self.peer.fingerprint if self.peer else "",
            chain_issuer=token.chain_issuer if token else None,
            evidence=self.evidence,
        )
