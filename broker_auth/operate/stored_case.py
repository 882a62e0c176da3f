"""Decides stored requests again (docs/policy.md#what-is-kept-of-a-decision); the service does not import this module.

A stored request lacks its password and its token's signature; its record may say how these checks ended
(:class:`broker_auth.policy.decision.Evidence`). A case relies on that, or skips the checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE
from broker_auth.operate.stored import NONCE, Stored
from broker_auth.operate.unsigned_tokens import UnsignedTokens
from broker_auth.policy.case import Case
from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide_case
from broker_auth.policy.decision import Decision, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.secret import Secret
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.verify import Rejected, Verified

PASSWORD_CHECK: Final = "password"
SIGNATURE_CHECK: Final = "token signature"
NONCE_CHECK: Final = "nonce"
BOUNDS_CHECK: Final = "node's name and address"
CONNECTIONS_CHECK: Final = "number of connections"
NODES_CHECK: Final = "number of nodes"  # that waited by the token
_RULES_WITH_NONCE: Final = frozenset({Rule.CLIENT.value, Rule.SERVER.value})
_COUNTED: Final = frozenset(Counted)
_NO_KEY: Final = "none"  # stands for the key of a token that no configured key signed


def decide_stored(
    stored: Stored,
    policy: Policy,
    moment: float,
    *,
    tokens: UnsignedTokens | None = None,
    recorded_under: Policy | None = None,
) -> tuple[Decision, StoredCase]:
    """Decide a stored request for ``moment`` (Unix seconds) by the rules that the service applies.

    Args:
        stored: the request.
        policy: what to decide by.
        moment: Unix seconds.
        tokens: a cache for several requests with the same policy.
        recorded_under: the policy of the time of the record, by whose passwords its evidence is understood.

    Returns:
        The decision, and the case as it was decided: ``skipped`` names the checks whose input the record does not hold.
    """
    tokens = tokens or UnsignedTokens(policy.tokens.keys)
    case = StoredCase(stored.request, policy, moment, stored=stored, unsigned=tokens, recorded_under=recorded_under)
    return decide_case(case), case


class StoredCase(Case, kw_only=True):
    """A case that relies on the evidence of a record, or skips the check, where the input of a check was removed.

    A skipped check counts as passed: a denial is certain all the same, an admission is not.

    Attributes:
        stored: the request and what its record says of it.
        unsigned: examines tokens that lack their signature.
        recorded_under: the policy of the time of the record, if known.
        skipped: the checks that were skipped.
    """

    stored: Stored
    unsigned: UnsignedTokens
    recorded_under: Policy | None = None
    skipped: dict[str, None] = msgspec.field(default_factory=dict)

    def require_password(self, accepted: Iterable[Secret], code: DenyCode) -> None:
        """Check the password, if the record holds it or the policy of its time is known."""
        if PASSWORD not in self.stored.redacted:
            super().require_password(accepted, code)
            return
        matches = self._password_matches(tuple(accepted), code)
        if matches is None:
            self.skipped[PASSWORD_CHECK] = None
        elif not matches:
            self.refuse(code, "wrong password")

    def _password_matches(self, accepted: tuple[Secret, ...], code: DenyCode) -> bool | None:
        """Return whether the password is one of ``accepted``; None if that is not known."""
        if self.recorded_under is None or self.stored.rule != self.rule:
            return None
        then = _passwords(self.recorded_under, code)
        if self.stored.recorded == ("deny", code):
            return False if set(accepted) <= set(then) else None
        place = ("current", "previous").index(self.stored.evidence.password) if self.stored.evidence.password else -1
        if 0 <= place < len(then):
            return then[place] in accepted
        if self.stored.was_admitted and then and set(then) <= set(accepted):
            return True
        return None

    def examine_token(self) -> Verified | Rejected:
        """Examine the token; without its signature, if that was removed."""
        if TOKEN_SIGNATURE not in self.stored.redacted:
            return super().examine_token()
        signer_key = self.stored.evidence.signer_key
        if not signer_key:
            holds = self._signature_holds()
            if holds is None:
                self.skipped[SIGNATURE_CHECK] = None
            elif not holds:
                signer_key = _NO_KEY
        self.token = self.unsigned.examine(self.request.connect_opts.auth_token, signer_key)
        return self.token

    def _signature_holds(self) -> bool | None:
        """Return whether a key of the policy signed the token; None if that is not known."""
        if self.recorded_under is None:
            return None
        then, now = _signers(self.recorded_under), _signers(self.policy)
        if self.stored.recorded == ("deny", TokenFault.SIGNATURE):
            return False if now <= then else None
        return True if self.stored.signed and then <= now else None

    def require_nonce(self, token: Verified) -> None:
        """Check the nonce, unless this token was admitted with it, or the request comes from a file."""
        if NONCE in self.stored.redacted:
            self.skipped[NONCE_CHECK] = None
        elif not (self.stored.was_admitted and self.stored.rule in _RULES_WITH_NONCE):
            super().require_nonce(token)

    def require_within(self, bounds: Bounds) -> None:
        """Check the node's name and address, unless the request comes from a file, which holds neither."""
        if NONCE in self.stored.redacted:
            self.skipped[BOUNDS_CHECK] = None
        else:
            super().require_within(bounds)

    def require_place(self) -> None:
        """Compare the connections of the record's time with the limit; skip it where the record does not say."""
        self.connections = self.stored.evidence.connections
        if self.connections is not None:
            self.require_below_limit(self.connections)
        elif self.stored.recorded == ("deny", DenyCode.PROVISIONING_FULL):
            self.skipped[CONNECTIONS_CHECK] = None

    def require_counted(self, most: int) -> None:
        """Require that the node was counted at the record's time; skip it where the record does not say."""
        if self.stored.evidence.counted in _COUNTED:
            self.counted = Counted(self.stored.evidence.counted)
            super().require_counted(most)
        else:
            self.skipped[NODES_CHECK] = None


def _signers(policy: Policy) -> set[tuple[str, str]]:
    """Return the keys of a policy, each with what it may sign."""
    keys = policy.tokens.keys
    kinds = {"provisioning": keys.provisioning, "client": keys.client, "server": keys.server}
    signers = {(kind, key.fingerprint) for kind, trusted in kinds.items() for key in trusted}
    return signers | {(f"issuer {name}", key.fingerprint) for name, key in keys.issuers.items()}


def _passwords(policy: Policy, code: DenyCode) -> tuple[Secret, ...]:
    if code is DenyCode.PROVISIONER_PASSWORD:
        return policy.provisioning.passwords
    return policy.system.passwords if policy.system else ()
