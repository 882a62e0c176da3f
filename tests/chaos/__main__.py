"""What happens to logins while hosts fail: ``python -m tests.chaos [NAME…]``, as root, some five minutes.

Prints the table of docs/availability.md. Names choose disturbances, ``--rate N`` the logins a second in all (40).
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


async def nothing(site: Site, load: Load) -> None:
    await asyncio.sleep(6)


async def cut(site: Site, load: Load) -> None:
    site.network.cable(ONE, plugged=False)
    await asyncio.sleep(20)
    site.network.cable(ONE, plugged=True)
    await site.ready(ONE)


async def frozen(site: Site, load: Load) -> None:
    site.signal(ONE, signal.SIGSTOP)
    await asyncio.sleep(10)
    site.signal(ONE, signal.SIGCONT)
    await site.ready(ONE)


async def frozen_for_good(site: Site, load: Load) -> None:
    site.signal(OTHER, signal.SIGSTOP)
    await asyncio.sleep(15)
    site.signal(OTHER, signal.SIGKILL)
    await asyncio.to_thread(site.processes[OTHER].wait)
    site.start(OTHER)
    await site.ready(OTHER)


async def clock(site: Site, load: Load) -> None:
    site.set_clock(ONE, 30)
    await asyncio.sleep(12)
    site.set_clock(ONE, 0)
    await site.ready(ONE)


async def supervisor_killed(site: Site, load: Load) -> None:
    await site.stop(ONE, signal.SIGKILL)
    await asyncio.sleep(3)
    site.start(ONE)
    await site.ready(ONE)


async def worker_stopped(site: Site, load: Load) -> None:
    os.kill(site.children(ONE)[-1], signal.SIGSTOP)
    await asyncio.sleep(6)
    await site.ready(ONE)


async def worker_killed(site: Site, load: Load) -> None:
    os.kill(site.children(ONE)[-1], signal.SIGKILL)
    await asyncio.sleep(2)
    await site.ready(ONE)


async def services_restarted(site: Site, load: Load) -> None:
    for host in SERVICES:
        await site.stop(host)
        site.start(host)
        await site.ready(host)


async def reloaded(site: Site, load: Load) -> None:
    for host in SERVICES:
        site.processes[host].send_signal(signal.SIGHUP)
        await asyncio.sleep(3)
        await site.ready(host)


async def broken_reload(site: Site, load: Load) -> None:
    site.write_config("plugin.broker_auth.workers = none")
    for host in SERVICES:
        site.processes[host].send_signal(signal.SIGHUP)
    await asyncio.sleep(4)
    site.write_config()


async def edge_killed(site: Site, load: Load) -> None:
    await _down(site, load, EDGES[0])


async def fleet_server_killed(site: Site, load: Load) -> None:
    await _down(site, load, FLEET[0])


async def fleet_server_stopped(site: Site, load: Load) -> None:
    load.down.add(FLEET[1])
    site.signal(FLEET[1], signal.SIGSTOP)
    await asyncio.sleep(6)
    site.signal(FLEET[1], signal.SIGCONT)
    await asyncio.sleep(3)
    load.down.discard(FLEET[1])
    await asyncio.sleep(3)


async def loose_cable(site: Site, load: Load) -> None:
    for _ in range(10):
        site.network.cable(ONE, plugged=False)
        await asyncio.sleep(0.3)
        site.network.cable(ONE, plugged=True)
        await asyncio.sleep(0.7)
    await site.ready(ONE)


async def no_descriptors(site: Site, load: Load) -> None:
    pids = site.children(ONE)
    for pid in pids:
        limit_files(pid, exhausted=True)
    await asyncio.sleep(6)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            limit_files(pid, exhausted=False)
    await site.ready(ONE)


async def _down(site: Site, load: Load, name: str) -> None:
    load.down.add(name)
    await site.stop(name, signal.SIGKILL)
    await asyncio.sleep(4)
    site.start(name)
    for host in SERVICES:
        await asyncio.sleep(3)
        await site.ready(host)
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


async def _watch(site: Site, load: Load) -> None:
    """Note what the health endpoints say, each change once."""
    while True:
        for host in SERVICES:
            status = await asyncio.to_thread(site.network.status, host, "/readyz")
            seen = load.rows[-1].readiness.setdefault(host, [])
            if not seen or seen[-1] != status:
                seen.append(status)
        await asyncio.sleep(0.5)


async def _run(site: Site, names: list[str], rate: float) -> None:
    for host in (*FLEET, *EDGES, *SERVICES):
        site.start(host)
    for host in SERVICES:
        await site.ready(host)
    await asyncio.to_thread(site.apply_streams)
    load = Load(
        {name: f"tls://{name}:4222" for name in FLEET},
        {name: f"tls://{name}:4223" for name in EDGES},
        site.tls,
        site.token,
    )
    load.rows.append(Row("warming up"))
    await load.hold_sessions(4)
    work = [asyncio.create_task(load.run(rate * 3 / 4, rate / 4)), asyncio.create_task(_watch(site, load))]
    await asyncio.sleep(2)
    print(await asyncio.to_thread(site.doctor))
    print(HEAD, flush=True)
    for name in names:
        title, disturb = DISTURBANCES[name]
        row = Row(title)
        load.rows.append(row)
        try:
            await disturb(site, load)
        except TimeoutError:
            row.readiness["not ready again"] = ["within 40 s"]
        await asyncio.sleep(2)
        load.rows.append(Row("between"))
        await load.settle()
        print(row, flush=True)
    print(await asyncio.to_thread(site.doctor))
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
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each connection that is not closed in order
    keep = os.environ.get("CHAOS_DIRECTORY")
    with contextlib.ExitStack() as stack:
        directory = Path(keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="broker-auth-chaos-")))
        directory.mkdir(exist_ok=True)
        site = Site(directory)
        stack.callback(site.end)
        asyncio.run(_run(site, arguments or list(DISTURBANCES), rate))


if __name__ == "__main__":
    main()
