"""The size of a deployment for the return of many devices, computed from measured costs: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

RESERVED_FILES: Final = 500  # descriptors of a nats-server for other things than clients


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCost:
    """The cost of one login through the callout, and of the connection that stays.

    Attributes:
        server: CPU seconds of nats-server.
        service: CPU seconds of this service.
        client: CPU seconds of the client, for storms whose clients share the machine.
        memory: bytes of nats-server for a connection, its TLS included.
    """

    server: float
    service: float
    client: float
    memory: float

    @property
    def together(self) -> float:
        """CPU seconds of everything that takes part."""
        return self.server + self.service + self.client


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSize:
    """A host that runs one nats-server and the workers of its zone.

    Attributes:
        cores: processors.
        memory: bytes.
        open_files: descriptors that nats-server may have.
    """

    cores: int
    memory: int
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The assumptions of a plan.

    Attributes:
        utilization: share of each core that logins may use.
        memory_share: share of a host's memory that connections may use.
        timeout: seconds after which a client gives a connection up and tries again.
    """

    utilization: float = 0.5
    memory_share: float = 0.5
    timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """The hosts of one kind, edges or fleet servers.

    Attributes:
        hosts: how many.
        limit: what decides that: ``cores``, ``memory`` or ``open files``.
        server_cores: cores that nats-servers need together.
        service_cores: cores that workers need together.
        workers: for the zone of each edge, or for the fleet's zone on each host.
        connections: on each host.
        at_once: logins that each host can begin at the same moment, so that all end before the timeout.
        seconds: until all devices are back.
    """

    hosts: int
    limit: str
    server_cores: float
    service_cores: float
    workers: int
    connections: int
    at_once: int
    seconds: float


def plan_tier(
    devices: int, within: float, cost: LoginCost, host: HostSize, assumptions: Assumptions | None = None
) -> TierPlan:
    """Return the smallest number of hosts that admits all devices in time and has room for them.

    Args:
        devices: how many return, their logins spread evenly over the time.
        within: seconds.
        cost: of one login.
        host: the size of each host.
        assumptions: the defaults, if not given.
    """
    assumed = assumptions or Assumptions()
    rate = devices / within
    per_host = host.cores * assumed.utilization / (cost.server + cost.service)  # logins per second
    needed = {
        "cores": rate / per_host,
        "memory": devices / max(1.0, host.memory * assumed.memory_share // cost.memory),
        "open files": devices / max(1, host.open_files - RESERVED_FILES),
    }
    limit = max(needed, key=lambda name: needed[name])
    hosts = max(1, _up(needed[limit]))
    return TierPlan(
        hosts=hosts,
        limit=limit,
        server_cores=rate * cost.server / assumed.utilization,
        service_cores=rate * cost.service / assumed.utilization,
        workers=max(1, _up(rate / hosts * cost.service / assumed.utilization)),
        connections=_up(devices / hosts),
        at_once=int(per_host * assumed.timeout),
        seconds=devices / hosts / per_host,
    )


def storm_seconds(devices: int, cost: LoginCost, cores: int) -> float:
    """Return the seconds that a storm takes on one machine whose cores servers, service and clients use fully."""
    return devices * cost.together / cores


def _up(value: float) -> int:
    """Round up, but ignore what floating point adds to a whole number."""
    return ceil(round(value, 9))
