"""An unread log and an unread audit pipe do not block logins."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from broker_auth.sandbox.lifetime import dies_with_parent
from broker_auth.sandbox.natsserver import free_port
from tests.callout.deployment import FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
LOGINS = 40  # each writes more than the pipe holds


async def test_unread_log_delays_no_login(tmp_path: Path) -> None:
    deployment, metrics = FleetDeployment(tmp_path), f"127.0.0.1:{free_port()}"
    deployment.write_config(
        "plugin.broker_auth.audit.output = log, stdout", f"plugin.broker_auth.metrics.listen = {metrics}"
    )
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)

    def page(path: str) -> str:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://{metrics}{path}", timeout=HANG_SECONDS) as answer,
        ):
            text: str = answer.read().decode()
            return text
        return ""

    def lost(what: str) -> bool:
        values = [line.split() for line in page("/metrics").splitlines() if line.startswith(what)]
        return bool(values) and float(values[0][1]) > 0

    with deployment.running():
        command = [sys.executable, "-m", "broker_auth", "serve", "--config", str(deployment.config)]
        service = subprocess.Popen(  # noqa: ASYNC220 - its pipes are the test
            dies_with_parent([*command, "--log-level", "debug"]),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        try:
            await eventually(lambda: page("/readyz"))
            for number in range(LOGINS):
                async with asyncio.timeout(HANG_SECONDS):
                    await (await deployment.connect(name=f"member{number}")).close()
                    with pytest.raises(NatsError, match="Authorization Violation"):
                        await deployment.provisioner("wrong", name=f"stranger{number}")
            assert page("/healthz")
            # The workers' queues hold megabytes; the supervisor drops lines that it cannot write immediately.
            service.send_signal(signal.SIGHUP)
            assert await eventually(lambda: lost("broker_auth_log_lost_total"))
        finally:
            service.terminate()
            assert service.wait(HANG_SECONDS) == 0, "stopping does not wait for a reader"
            os.close(reading)
            os.close(writing)
