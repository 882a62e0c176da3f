"""Reads stored authorization requests and decides them again (docs/policy.md#what-is-kept-of-a-decision).

A stored request lacks its password and its token's signature; its record may say how these checks ended
(:class:`broker_auth.policy.decision.Evidence`). The case and the verifier that rely on that, or skip the checks, are
defined here; the service does not import this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from broker_auth.audit.record import AuditRecord
from broker_auth.audit.redact import PASSWORD, TOKEN_SIGNATURE, UNREADABLE
from broker_auth.audit.unsigned import with_placeholder
from broker_auth.cache import BoundedCache
from broker_auth.errors import InputError
from broker_auth.policy.case import Case
from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide_case
from broker_auth.policy.decision import NO_EVIDENCE, Decision, DenyCode, Evidence, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.times import MAX_TIME
from broker_auth.tokens.bounds import Bounds
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.jws import Jws, show
from broker_auth.tokens.keys import VerificationKey
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, wrong_signature

MAX_BYTES: Final = 1024 * 1024  # twice the maximum on the wire, for indentation and the rest of the record
NONCE: Final = "nonce"  # what a request lacks that was made of a token in a file
PASSWORD_CHECK: Final = "password"
SIGNATURE_CHECK: Final = "token signature"
NONCE_CHECK: Final = "nonce"
BOUNDS_CHECK: Final = "node's name and address"
CONNECTIONS_CHECK: Final = "number of connections"
NODES_CHECK: Final = "number of nodes"  # that waited by the token
_REDACTABLE: Final = frozenset({PASSWORD, TOKEN_SIGNATURE})
_RULES_WITH_NONCE: Final = frozenset({Rule.CLIENT.value, Rule.SERVER.value})
_COUNTED: Final = frozenset(Counted)
_NO_KEY: Final = "none"  # stands for the key of a token that no configured key signed
_SIGNERS: Final = 8  # keys whose tokens' results are cached


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored request.

    Attributes:
        redacted: names of the parts that were removed.
        time: when it was decided (Unix seconds), if recorded.
        recorded: the recorded decision and code.
        zone: the zone that decided; empty if not recorded.
        rule: the rule that decided; empty if not recorded.
        signed: whether it was admitted by a token that was verified.
        evidence: the recorded results of the checks that the request cannot repeat.
    """

    request: AuthorizationRequest
    redacted: frozenset[str] = frozenset()
    time: float | None = None
    recorded: tuple[str, str] | None = None
    zone: str = ""
    rule: str = ""
    signed: bool = False
    evidence: Evidence = NO_EVIDENCE

    @property
    def was_admitted(self) -> bool:
        """Whether the record says that it was admitted."""
        return self.recorded is not None and self.recorded[0] == "admit"

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Parts of the request that were too large to be stored."""
        tls, missing = self.request.client_tls, []
        if self.request.connect_opts.auth_token == UNREADABLE:
            missing.append("token")
        if tls is not None and tls.verified_chains == ((UNREADABLE,),):
            missing.append("certificates")
        return tuple(missing)


def read_stored(data: bytes) -> Stored:
    """Read the request in an audit record, in decoded request claims, or alone (a ``nats`` object).

    Raises:
        InputError: ``data`` has another format.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"the request is larger than {MAX_BYTES} bytes")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise InputError("the request is not one JSON document; give one audit record or one request") from error
    if not isinstance(value, dict):
        raise InputError("the request is not a JSON object")
    if value.get("event") == "server_error":
        raise InputError(
            "this is nats-server's report of a refused connection, not a decision; give the record with "
            '"event":"decision" of the same connection (`broker-auth why` finds both)'
        )
    if "redacted" in value or "decision" in value or "request" in value:
        return _record(value)
    return Stored(request=_request(value))


def stored_of(record: AuditRecord) -> Stored | None:
    """Return the request of an audit record; None if it cannot be decided again."""
    if record.request is None or not _REDACTABLE.issuperset(record.redacted):
        return None
    return Stored(
        request=record.request,
        redacted=frozenset(record.redacted),
        time=record.time.timestamp(),
        recorded=(record.decision, record.code),
        zone=record.zone,
        rule=record.rule,
        signed=bool(record.signer),
        evidence=record.evidence or NO_EVIDENCE,
    )


class UnsignedTokens:
    """Verifiers of tokens without signatures, by the key that is known to have signed them; they cache results."""

    def __init__(self, keys: TrustedKeys, cached: int | None = None) -> None:
        """Prepare to examine tokens, and to cache the results of ``cached`` tokens for each signer."""
        self._keys = keys
        self._cached = cached
        self._verifiers: BoundedCache[str, UnsignedTokenVerifier] = BoundedCache(_SIGNERS)

    def examine(self, raw: str, signer_key: str) -> Verified | Rejected:
        """Return the result of every check of a token but that of its signature.

        Args:
            raw: the token, without its signature.
            signer_key: fingerprint of the key that signed it; empty if not known: a key that may have signed it did.
        """
        verifier = self._verifiers.get(signer_key)
        if verifier is None:
            verifier = UnsignedTokenVerifier(self._keys, signer_key, self._cached)
            self._verifiers.put(signer_key, verifier)
        return verifier.examine(raw)


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


class UnsignedTokenVerifier(TokenVerifier):
    """A token verifier that makes every check except that of the signature."""

    def __init__(self, keys: TrustedKeys, signer_key: str = "", cached: int | None = None) -> None:
        """Prepare to treat every token as signed by one key.

        Args:
            keys: the keys that verify tokens.
            signer_key: fingerprint of the key that signed every token; empty if any of ``keys`` may have.
            cached: how many tokens' results are cached.
        """
        super().__init__(keys, cached)
        self._signer_key = signer_key

    def examine(self, raw: str) -> Verified | Rejected:
        """Return the result for a token as if the assumed key had signed it."""
        return super().examine(with_placeholder(raw))

    def _signer(self, jws: Jws, candidates: Sequence[VerificationKey]) -> VerificationKey:  # noqa: ARG002
        for key in candidates:
            if not self._signer_key or key.fingerprint == self._signer_key:
                return key
        raise wrong_signature(candidates)


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


class _Record(msgspec.Struct):
    """The parts of an audit record that explaining needs; see :class:`broker_auth.audit.record.AuditRecord`."""

    request: dict[str, Any] | None = None
    redacted: tuple[str, ...] = ()
    time: datetime | float | None = None
    decision: str = ""
    code: str = ""
    zone: str = ""
    rule: str = ""
    signer: str = ""
    evidence: Evidence = NO_EVIDENCE


def _record(value: dict[str, Any]) -> Stored:
    try:
        record = msgspec.convert(value, _Record)
    except msgspec.ValidationError as error:
        raise InputError(f"the audit record cannot be read: {error}") from error
    if record.request is None:
        raise InputError(
            "the audit record does not contain its request; set plugin.broker_auth.audit.requests to store requests"
        )
    unknown = [what for what in record.redacted if what not in _REDACTABLE]
    if unknown:
        raise InputError(
            f"the audit record has an unknown redaction, {show(unknown[0])}; use the version that the service runs"
        )
    return Stored(
        request=_request(record.request),
        redacted=frozenset(record.redacted),
        time=_seconds(record.time),
        recorded=(record.decision, record.code) if record.decision else None,
        zone=record.zone,
        rule=record.rule,
        signed=bool(record.signer),
        evidence=record.evidence,
    )


def _seconds(time: datetime | float | None) -> float | None:
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise InputError("the audit record's time has no time zone; give the record as it was written")
        return time.timestamp()
    if time is not None and not 0 <= time <= MAX_TIME:
        raise InputError("the audit record's time is not a valid time; give the record as it was written")
    return time


def _request(value: dict[str, Any]) -> AuthorizationRequest:
    if isinstance(value.get("nats"), dict):  # the whole claims, as they are on the wire
        value = value["nats"]
    try:
        return msgspec.convert(value, AuthorizationRequest)
    except msgspec.ValidationError as error:
        raise InputError(f"not an authorization request: {error}") from error
