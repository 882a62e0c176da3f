"""The demo's course: start everything, let everybody try, show who hears whom and how a node joins, stop everything."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker_auth.demo.attempts import attempts, try_all
from broker_auth.demo.isolation import show_isolation
from broker_auth.demo.last_mile import LastMile
from broker_auth.demo.outcome import Outcome
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything the demo saw."""

    admission: list[Outcome]
    isolation: list[Outcome]
    onboarding: list[Outcome]

    @property
    def ok(self) -> bool:
        """Whether every row did what it should."""
        return all(outcome.as_expected for outcome in (*self.admission, *self.isolation, *self.onboarding))


async def run_demo(topology: Topology, show: Callable[[Site, Result], None], *, keep: bool) -> Result:
    """Run the demo in a temporary directory.

    Args:
        topology: the shape of the deployment.
        show: told the result while everything still runs.
        keep: go on running until interrupted.

    Raises:
        BrokerAuthError: something could not be started.
    """
    # asyncio warns of what nats-py does when TLS refuses a client, which is what is tried here.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="broker-auth-demo-") as directory:
        async with Site(Path(directory) / "site", topology) as site:
            admission = await try_all(site, attempts(site))
            await site.apply_streams()
            async with LastMile(site) as last_mile:
                isolation = await show_isolation(site)
                result = Result(admission=admission, isolation=isolation, onboarding=await last_mile.show())
                show(site, result)
                if keep:
                    await asyncio.Event().wait()
        return result
