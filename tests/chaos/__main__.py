"""Measure logins during failures of hosts: ``python -m tests.chaos [NAME…]``, as root; takes about five minutes.

Prints the table of docs/availability.md. Names select disturbances; ``--rate N`` sets the total logins per second (40).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.chaos.load import Load, Row
from tests.chaos.network import INSIDE, enter
from tests.chaos.site import EDGES, FLEET, SERVICES, Site, limit_files

HEAD: Final = (
    "| what | logins | lost | late | at a server that was down | sessions cut | slowest | normal after | readiness |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
)
ONE, OTHER = SERVICES
Disturbance = Callable[[Site, Load], Awaitable[None]]


async def nothing(deployment: Site, load: Load) -> None:
    await asyncio.sleep(6)


async def cut(deployment: Site, load: Load) -> None:
    deployment.network.cable(ONE, plugged=False)
    await asyncio.sleep(20)
    deployment.network.cable(ONE, plugged=True)
    await deployment.ready(ONE)


async def frozen(deployment: Site, load: Load) -> None:
    deployment.signal(ONE, signal.SIGSTOP)
    await asyncio.sleep(10)
    deployment.signal(ONE, signal.SIGCONT)
    await deployment.ready(ONE)


async def frozen_for_good(deployment: Site, load: Load) -> None:
    deployment.signal(OTHER, signal.SIGSTOP)
    await asyncio.sleep(15)
    deployment.signal(OTHER, signal.SIGKILL)
    await asyncio.to_thread(deployment.processes[OTHER].wait)
    deployment.start(OTHER)
    await deployment.ready(OTHER)


async def clock(deployment: Site, load: Load) -> None:
    deployment.set_clock(ONE, 30)
    await asyncio.sleep(12)
    deployment.set_clock(ONE, 0)
    await deployment.ready(ONE)


async def supervisor_killed(deployment: Site, load: Load) -> None:
    await deployment.stop(ONE, signal.SIGKILL)
    await asyncio.sleep(3)
    deployment.start(ONE)
    await deployment.ready(ONE)


async def worker_stopped(deployment: Site, load: Load) -> None:
    os.kill(deployment.children(ONE)[-1], signal.SIGSTOP)
    await asyncio.sleep(6)
    await deployment.ready(ONE)


async def worker_killed(deployment: Site, load: Load) -> None:
    os.kill(deployment.children(ONE)[-1], signal.SIGKILL)
    await asyncio.sleep(2)
    await deployment.ready(ONE)


async def services_restarted(deployment: Site, load: Load) -> None:
    for host in SERVICES:
        await deployment.stop(host)
        deployment.start(host)
        await deployment.ready(host)


async def reloaded(deployment: Site, load: Load) -> None:
    for host in SERVICES:
        deployment.processes[host].send_signal(signal.SIGHUP)
        await asyncio.sleep(3)
        await deployment.ready(host)


async def broken_reload(deployment: Site, load: Load) -> None:
    deployment.write_config("plugin.broker_auth.workers = none")
    for host in SERVICES:
        deployment.processes[host].send_signal(signal.SIGHUP)
    await asyncio.sleep(4)
    deployment.write_config()


async def edge_killed(deployment: Site, load: Load) -> None:
    await _down(deployment, load, EDGES[0])


async def fleet_server_killed(deployment: Site, load: Load) -> None:
    await _down(deployment, load, FLEET[0])


async def fleet_server_stopped(deployment: Site, load: Load) -> None:
    load.down.add(FLEET[1])
    deployment.signal(FLEET[1], signal.SIGSTOP)
    await asyncio.sleep(6)
    deployment.signal(FLEET[1], signal.SIGCONT)
    await asyncio.sleep(3)
    load.down.discard(FLEET[1])
    await asyncio.sleep(3)


async def loose_cable(deployment: Site, load: Load) -> None:
    for _ in range(10):
        deployment.network.cable(ONE, plugged=False)
        await asyncio.sleep(0.3)
        deployment.network.cable(ONE, plugged=True)
        await asyncio.sleep(0.7)
    await deployment.ready(ONE)


async def no_descriptors(deployment: Site, load: Load) -> None:
    pids = deployment.children(ONE)
    for pid in pids:
        limit_files(pid, exhausted=True)
    await asyncio.sleep(6)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            limit_files(pid, exhausted=False)
    await deployment.ready(ONE)


async def _down(deployment: Site, load: Load, name: str) -> None:
    load.down.add(name)
    await deployment.stop(name, signal.SIGKILL)
    await asyncio.sleep(4)
    deployment.start(name)
    for host in SERVICES:
        await asyncio.sleep(3)
        await deployment.ready(host)
    load.down.discard(name)


DISTURBANCES: Final[dict[str, tuple[str, Disturbance]]] = {
    "nothing": ("nothing", nothing),
    "cut": ("one of two service hosts is cut off for 20 s", cut),
    "frozen": ("one stands still for 10 s", frozen),
    "frozen-for-good": ("one stands still for good, and is replaced after 15 s", frozen_for_good),
    "clock": ("the clock of one is 30 s ahead, for 12 s", clock),
    "supervisor": ("the supervisor of one is killed, and started again after 3 s", supervisor_killed),
    "worker-stopped": ("a worker is stopped", worker_stopped),
    "worker-killed": ("a worker is killed", worker_killed),
    "restart": ("both are restarted, one after the other", services_restarted),
    "reload": ("both reload", reloaded),
    "broken-reload": ("both reload a broken configuration", broken_reload),
    "edge": ("an edge is killed and started again", edge_killed),
    "server": ("a fleet server is killed and started again", fleet_server_killed),
    "server-stopped": ("a fleet server stands still for 6 s", fleet_server_stopped),
    "cable": ("the cable of one is loose: 0.3 s of each second without", loose_cable),
    "descriptors": ("the processes of one can open no more files, for 6 s", no_descriptors),
}


async def _watch(deployment: Site, load: Load) -> None:
    """Record each change of a health endpoint's status."""
    while True:
        for host in SERVICES:
            status = await asyncio.to_thread(deployment.network.status, host, "/readyz")
            seen = load.rows[-1].readiness.setdefault(host, [])
            if not seen or seen[-1] != status:
                seen.append(status)
        await asyncio.sleep(0.5)


async def _run(deployment: Site, names: list[str], rate: float) -> None:
    for host in (*FLEET, *EDGES, *SERVICES):
        deployment.start(host)
    for host in SERVICES:
        await deployment.ready(host)
    await asyncio.to_thread(deployment.apply_streams)
    load = Load(
        {name: f"tls://{name}:4222" for name in FLEET},
        {name: f"tls://{name}:4223" for name in EDGES},
        deployment.tls,
        deployment.token,
    )
    load.rows.append(Row("warming up"))
    await load.hold_sessions(4)
    work = [asyncio.create_task(load.run(rate * 3 / 4, rate / 4)), asyncio.create_task(_watch(deployment, load))]
    await asyncio.sleep(2)
    print(await asyncio.to_thread(deployment.doctor))
    print(HEAD, flush=True)
    for name in names:
        title, disturb = DISTURBANCES[name]
        row = Row(title)
        load.rows.append(row)
        try:
            await disturb(deployment, load)
        except TimeoutError:
            row.readiness["not ready again"] = ["within 40 s"]
        await asyncio.sleep(2)
        load.rows.append(Row("between"))
        await load.settle()
        print(row, flush=True)
    print(await asyncio.to_thread(deployment.doctor))
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await load.settle()
    await load.end_sessions()


def main() -> None:
    arguments = [word for word in sys.argv[1:] if word != INSIDE]
    enter(arguments)
    rate = 40.0
    if "--rate" in arguments:
        place = arguments.index("--rate")
        rate = float(arguments[place + 1])
        del arguments[place : place + 2]
    logging.getLogger("asyncio").setLevel(
        logging.ERROR
    )  # asyncio warns about each connection that is not closed properly
    keep = os.environ.get("CHAOS_DIRECTORY")
    with contextlib.ExitStack() as stack:
        directory = Path(keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-auth-chaos-")))
        directory.mkdir(exist_ok=True)
        deployment = Site(directory)
        stack.callback(deployment.end)
        asyncio.run(_run(deployment, arguments or list(DISTURBANCES), rate))


if __name__ == "__main__":
    main()
