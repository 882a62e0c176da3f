"""Rows of decision tables: a request, a policy and the complete expected decision.

One row for each sentence of docs/policy.md; a row's name begins with the rule it is about.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import PHRASES, Admit, Code, Deny, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.outcomes import ADMITTED, outcomes
from broker_auth.policy.permissions import Permissions
from broker_auth.policy.request import AuthorizationRequest
from tests.builders.clock import HOUR, NOW
from tests.builders.peers import NOT_AFTER
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.tokens import ksuid

X509 = x509_policy()
ISSUER = issuer_policy()
TOKEN_ENDS = NOW + HOUR
PEER_ENDS = NOT_AFTER
TOKEN_ID = ksuid()


@dataclass(frozen=True, slots=True)
class Grant:
    """Permissions as sets: publish allow, publish deny, subscribe allow, subscribe deny."""

    publish: frozenset[str] = frozenset()
    subscribe: frozenset[str] = frozenset()
    no_publish: frozenset[str] = frozenset()
    no_subscribe: frozenset[str] = frozenset()


def grant(publish: str = "", subscribe: str = "", no_publish: str = "", no_subscribe: str = "") -> Grant:
    """Build a grant from texts of subjects separated by white space."""
    sets = (frozenset(text.split()) for text in (publish, subscribe, no_publish, no_subscribe))
    return Grant(*sets)


def granted(permissions: Permissions) -> Grant:
    """Return the permissions by the code under test, after checking that they have no duplicates."""
    lists = (permissions.pub.allow, permissions.sub.allow, permissions.pub.deny, permissions.sub.deny)
    for subjects in lists:
        assert len(set(subjects)) == len(subjects)
    return Grant(*map(frozenset, lists))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A request, its time, the count of its token, and the expected decision.

    ``code`` is for a denial, the other fields for an admission.
    """

    request: AuthorizationRequest
    policy: Policy
    now: float = NOW
    counted: Counted | None = None
    rule: Rule
    code: Code | None = None
    account: str = ""
    name: str = ""
    grant: Grant = Grant()
    expires: float | None = None
    token_id: str = ""
    signer: str = ""
    verified: bool = False

    def check(self) -> None:
        """Decide, and compare everything."""
        decision = decide(self.request, self.policy, self.now, counted=self.counted)
        code = decision.code if isinstance(decision, Deny) else ADMITTED
        assert (decision.rule, code) in outcomes(self.policy.serves)
        assert decision.rule is self.rule, decision
        if self.code is not None:
            assert isinstance(decision, Deny), decision
            assert decision.code is self.code, decision
            assert decision.detail
            assert decision.phrase in {*PHRASES.values(), "token not accepted"}
            return
        assert isinstance(decision, Admit), decision
        assert decision.account == self.account
        assert decision.name == self.name
        assert granted(decision.permissions) == self.grant
        assert decision.expires == self.expires
        assert decision.token_id == self.token_id
        assert decision.signer == self.signer
        tags = [f"rule:{self.rule.value}"] + ([f"token:{self.token_id}"] if self.token_id else [])
        assert list(decision.tags) == tags
        assert decision.fingerprint == (self._fingerprint() if self.verified else "")
        assert decision.reason

    def _fingerprint(self) -> str:
        tls = self.request.client_tls
        assert tls
        assert tls.verified_chains
        leaf = x509.load_pem_x509_certificate(tls.verified_chains[0][0].encode())
        return hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()


Table = dict[str, Row]


def deny(
    request: AuthorizationRequest,
    rule: Rule,
    code: Code,
    policy: Policy = X509,
    now: float = NOW,
    counted: Counted | None = None,
) -> Row:
    """Return a row that expects a denial."""
    return Row(request=request, policy=policy, rule=rule, code=code, now=now, counted=counted)


def rows(*tables: Table) -> pytest.MarkDecorator:
    """Return a mark that parametrizes a test over tables."""
    named = [item for table in tables for item in table.items()]
    assert len({name for name, _ in named}) == len(named)
    return pytest.mark.parametrize("row", [row for _, row in named], ids=[name for name, _ in named])


def codes(tables: Iterable[Table]) -> set[Code]:
    """Return every code that some row expects."""
    return {row.code for table in tables for row in table.values() if row.code is not None}
