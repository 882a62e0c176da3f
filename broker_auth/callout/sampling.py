"""Which records store their request: all, none, or a sample (``plugin.broker_auth.audit.requests``)."""

from __future__ import annotations

from typing import Final

from broker_auth.cache import BoundedCache
from broker_auth.policy.decision import Admit, Decision
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.model import StoredRequests

SAMPLE_SECONDS: Final = 3600.0
MAX_SAMPLED: Final = 32_768  # admissions remembered; 150 bytes each. Evicting one only stores a request more.


class RequestSampler:
    """A choice of the requests that are stored; ``sample`` means every denial and one admission an hour.

    An admission is sampled by what it depends on: identity, rule, credential and address. Each worker samples by
    itself.
    """

    def __init__(self, stored: StoredRequests) -> None:
        self._stored = stored
        self._sampled: BoundedCache[int, float] = BoundedCache(MAX_SAMPLED)

    def stores(self, request: AuthorizationRequest, decision: Decision, now: float) -> bool:
        """Return whether the record of this decision stores its request.

        Args:
            request: what was decided.
            decision: how.
            now: Unix seconds.
        """
        if self._stored is not StoredRequests.SAMPLE:
            return self._stored is StoredRequests.ALL
        if not isinstance(decision, Admit):
            return True
        seen = (decision.name, decision.rule, decision.account, decision.token_id, decision.fingerprint)
        key = hash((*seen, request.client_info.host, decision.evidence.password))
        last = self._sampled.get(key)
        if last is not None and 0 <= now - last < SAMPLE_SECONDS:
            return False
        self._sampled.put(key, now)
        return True
