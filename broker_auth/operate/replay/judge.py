"""Decides stored requests by a configuration, and says whether the decision is certain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from broker_auth.operate.stored import NONCE, Stored
from broker_auth.operate.stored_case import BOUNDS_CHECK, NODES_CHECK, NONCE_CHECK, decide_stored
from broker_auth.operate.unsigned_tokens import UnsignedTokens
from broker_auth.policy.decision import Admit, Decision, DenyCode
from broker_auth.policy.model import Policy
from broker_auth.settings.model import FLEET_ZONE, Settings
from broker_auth.settings.policy import build_policy

CACHED: Final = 32_768  # tokens of each signer, and peers: a fleet comes back in the same order every time
ZONE_CHECK: Final = "zone"  # the record's zone is not configured
_OF_FILES: Final = frozenset({NONCE_CHECK, BOUNDS_CHECK, NODES_CHECK})  # end alike under every configuration


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A decision about a stored request.

    Attributes:
        decision: None if the request's zone is not configured, or if deciding failed.
        skipped: the checks that could not be repeated.
        unknown: the checks that could make the decision another one; empty if it is certain.
    """

    decision: Decision | None
    skipped: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _ZonePolicy:
    """The policy of a zone, with a cache of tokens that lack their signatures."""

    policy: Policy
    tokens: UnsignedTokens


class Judge:
    """A configuration, ready to decide stored requests of each of its zones."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the policies of all zones.

        Raises:
            InputError: a key or certificate file has become unusable since the settings were loaded.
        """
        self._zones: dict[str, _ZonePolicy] = {}
        for name in {FLEET_ZONE, *(zone.name for zone in settings.zones)}:
            policy = build_policy(settings, name, cached_peers=CACHED)
            self._zones[name] = _ZonePolicy(policy, UnsignedTokens(policy.tokens.keys, CACHED))

    def policy(self, zone: str) -> Policy | None:
        """Return the policy of a zone; None if it is not configured."""
        known = self._zones.get(zone or FLEET_ZONE)
        return known.policy if known else None

    def decide(self, stored: Stored, moment: float, recorded_under: Judge | None = None) -> Judgement:
        """Decide a request.

        Args:
            stored: the request.
            moment: Unix seconds.
            recorded_under: the configuration that the request was recorded under, if known.
        """
        zone = self._zones.get(stored.zone or FLEET_ZONE)
        if zone is None:
            return Judgement(decision=None, unknown=(ZONE_CHECK,))
        then = recorded_under.policy(stored.zone) if recorded_under else None
        try:
            decision, case = decide_stored(stored, zone.policy, moment, tokens=zone.tokens, recorded_under=then)
        except Exception:  # a record that nobody foresaw must not end the replay of the others
            return Judgement(decision=None, unknown=(DenyCode.INTERNAL_ERROR.value,))
        skipped = tuple(case.skipped)
        return Judgement(decision=decision, skipped=skipped, unknown=_unknown(stored, decision, skipped))


def _unknown(stored: Stored, decision: Decision, skipped: tuple[str, ...]) -> tuple[str, ...]:
    """Return the checks that could make the decision another one.

    A skipped check counts as passed, so a denial is certain. A part that is missing from the request counts as
    unacceptable, so a denial is certain only if it repeats the recorded one.
    """
    if isinstance(decision, Admit):
        return tuple([check for check in skipped if check not in _OF_FILES]) if NONCE in stored.redacted else skipped
    incomplete = stored.incomplete
    return incomplete if incomplete and stored.recorded != ("deny", decision.code.value) else ()
