"""Who gets in and who hears whom, in every topology, with requests encrypted and not."""

from __future__ import annotations

import pytest

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

ROWS = {Topology.EDGE: 21, Topology.WEBSOCKET: 21, Topology.SINGLE: 17}


async def test_everybody_gets_what_the_policy_says(any_site: Site) -> None:
    outcomes = await try_all(any_site, attempts(any_site))
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]
    assert len(outcomes) == ROWS[any_site.topology]


async def test_nodes_are_isolated(any_site: Site) -> None:
    outcomes = await show_isolation(any_site)
    assert [(row.what, row.happened) for row in outcomes] == [(row.what, row.expected) for row in outcomes]
    assert len(outcomes) == 8 + (any_site.topology is Topology.EDGE)
