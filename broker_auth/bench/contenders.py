"""The brokers that parts ``connects`` and ``storm`` compare: each decides about the same clients in another way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from broker_auth.bench.choria import ChoriaBroker
from broker_auth.bench.connector import ConnectTask
from broker_auth.bench.floor import Floor, floor_by_policy
from broker_auth.bench.kinds import Maker
from broker_auth.bench.materials import PlayedServer, Trust
from broker_auth.bench.measure import process_cpu_seconds
from broker_auth.bench.processes import Worker
from broker_auth.bench.site import BenchDeployment, Broker

STATIC: Final = "static"
CHORIA: Final = "choria"
MODES: Final = (STATIC, "callout", "callout_xkey")
"""nats-server by itself, and nats-server with this service."""


class Clients(StrEnum):
    """The kind of clients: unprovisioned nodes with a token, or members of the fleet with a certificate."""

    NODES = "nodes"
    MEMBERS = "members"


@dataclass(frozen=True, slots=True)
class Contender:
    """A broker that is running, with its service if it has one.

    Attributes:
        server: process id of the broker.
        service: process id of the service; None where the broker decides by itself.
        task: how its clients log in.
    """

    server: int
    service: int | None
    task: ConnectTask

    @property
    def cpu_seconds(self) -> tuple[float, float]:
        """CPU that the broker and its service have used."""
        return process_cpu_seconds(self.server), process_cpu_seconds(self.service) if self.service else 0.0


@contextmanager
def contender(
    mode: str, clients: Clients, trust: Trust, directory: Path, choria: Path | None = None
) -> Iterator[Contender]:
    """Run a contender in an empty directory.

    Args:
        mode: of :data:`MODES`, or :data:`CHORIA`.
        clients: who is to be admitted.
        trust: whom it trusts.
        directory: holds its keys, configuration and logs.
        choria: the program, for :data:`CHORIA`.
    """
    members = clients is Clients.MEMBERS
    broker = Broker("default", "fleet" if members else "single")
    deployment = BenchDeployment(directory, trust, xkey=mode == "callout_xkey", tls=True, brokers=(broker,))
    task = ConnectTask(port=broker.port, ca=str(directory / "ca.pem"))
    if members:
        task.certificate, task.key = map(str, trust.authority.client("member.example.net").write(directory, "member"))
    else:
        task.token = trust.provisioning_token(time.time())
    with ExitStack() as stack:
        service = None
        if mode == CHORIA:
            assert choria is not None  # else this mode is left out
            server = stack.enter_context(ChoriaBroker(choria, deployment)).pid
        elif mode == STATIC:
            server = stack.enter_context(deployment.static_server(task.token)).pid
        else:
            server = stack.enter_context(deployment.callout_server()).pid
            service = stack.enter_context(Worker(deployment)).pid
        yield Contender(server, service, task)


def floor_for(clients: Clients, trust: Trust) -> Floor:
    """Return the crypto floor of one callout about such a client."""
    now, server = time.time(), PlayedServer()
    maker = Maker(trust, server, now)
    member = clients is Clients.MEMBERS
    sent = (maker.mtls(0) if member else maker.node(0, trust.provisioning_token(now))).request
    return floor_by_policy(sent, server.public, trust.policy(issuer_mode=False), now)
