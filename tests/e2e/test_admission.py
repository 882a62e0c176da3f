"""Admission and isolation in every topology, with and without encrypted requests."""

from __future__ import annotations

import pytest

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ROWS = {Topology.EDGE: 21, Topology.WEBSOCKET: 21, Topology.SINGLE: 17, Topology.MIXED: 21}


async def test_every_attempt_has_the_expected_result(any_sandbox: Sandbox) -> None:
    outcomes = await try_all(any_sandbox, attempts(any_sandbox))
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]
    assert len(outcomes) == ROWS[any_sandbox.topology]


async def test_nodes_are_isolated(any_sandbox: Sandbox) -> None:
    outcomes = await show_isolation(any_sandbox)
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]
    assert len(outcomes) == 8 + (any_sandbox.topology is Topology.EDGE)
