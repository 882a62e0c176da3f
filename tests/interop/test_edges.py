"""Edge cases of tokens in both implementations: where they agree, and where exactly they differ."""

from __future__ import annotations

import time

import pytest

from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, check_times
from tests.builders.tokens import ORG, ORGANIZATION
from tests.interop.edges import EDGES, Edge
from tests.interop.golang import Go, GoRefused
from tests.interop.keyfiles import KeyFiles

each = pytest.mark.parametrize("edge", EDGES, ids=[edge.name for edge in EDGES])


@each
def test_result_here(edge: Edge) -> None:
    now = int(time.time())
    assert verdict(edge.make(now), now) == edge.ours


@each
def test_result_in_go(edge: Edge, go: Go, keys: KeyFiles) -> None:
    # Go uses its own clock; rows are at least a second from their limits, most an hour.
    token = edge.make(int(time.time()))
    try:
        go.ask("check", kind=edge.kind, token=token, key=str(keys.org.public))
        accepted, reason = True, "accepted"
    except GoRefused as refused:
        accepted, reason = False, str(refused)
    assert accepted == edge.go, reason


def verdict(token: str, now: float) -> TokenFault | None:
    """Return why this project rejects a token of the organization; None if it accepts it."""
    examined = TokenVerifier(TrustedKeys(issuers={ORGANIZATION: ORG.verifies})).examine(token)
    if isinstance(examined, Rejected):
        return examined.fault
    try:
        check_times(examined, now)
    except TokenRejected as rejected:
        return rejected.fault
    return None
