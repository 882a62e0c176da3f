"""Draining answers everything that was received: by requests of our own, sent before the service is told to end.

nats-server lets nobody publish requests where it calls out itself (NATS_FACTS 24), so here it has the
same account without the callout, and the test plays its part.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from broker_auth.callout.request import XKEY_HEADER
from broker_auth.deploy.natsserver import NatsServer
from broker_auth.nkey import Kind, decode_public, public_nkey
from tests.builders.requests import Server, fleet
from tests.callout.deployment import Deployment, Service

pytestmark = pytest.mark.e2e
REQUESTS = 2000  # half a second of work for two workers, less than they let anybody wait
CONFIG = """
listen: 127.0.0.1:{port}
tls {{ cert_file: "{path}/server.pem", key_file: "{path}/server.key", ca_file: "{path}/ca.pem", verify: true }}
accounts {{ AUTH {{ users: [
  {{ nkey: {observer} }}
  {{ nkey: {service}, permissions: {{ publish: {{ deny: ">" }}, allow_responses: {{ max: 1, expires: "10s" }} }} }}
] }} }}
"""


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    site = Deployment(tmp_path)
    settings = site.settings()
    assert settings.nkey_seed
    text = CONFIG.format(
        port=site.ports["east"],
        path=tmp_path,
        observer=public_nkey(site.observer),
        service=public_nkey(settings.nkey_seed.reveal()),
    )
    (tmp_path / "plain.conf").write_text(text)
    site.servers["east"] = NatsServer(tmp_path / "plain.conf")
    return site


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["stop", "reload"])
async def test_everything_received_is_answered(deployment: Deployment, number: signal.Signals) -> None:
    settings = deployment.settings()
    assert settings.xkey_seed
    xkey = decode_public(public_nkey(settings.xkey_seed.reveal()), Kind.CURVE)
    server, now = Server(), int(time.time()) + 30  # none of them may become late before it is sent
    requests = [server.sealed(fleet(name=f"node{count}"), xkey, now=now) for count in range(REQUESTS)]
    with deployment.running(), Service(deployment, "--workers", "2") as service:
        asking = await deployment.watch()
        answers, first, complete = [], asyncio.Event(), asyncio.Event()

        async def on_answer(message: Msg) -> None:
            answers.append(message.data)
            first.set()
            if len(answers) == REQUESTS:
                complete.set()

        inbox = asking.new_inbox()
        await asking.subscribe(f"{inbox}.*", cb=on_answer)
        await asking.flush()
        for count, (data, header) in enumerate(requests):
            reply = f"{inbox}.{count}"
            await asking.publish("$SYS.REQ.USER.AUTH", data, reply=reply, headers={XKEY_HEADER: header})
        await asking.flush()
        await first.wait()
        service.signal(number)
        if number is signal.SIGTERM:
            assert await asyncio.to_thread(service.wait) == 0
        else:
            await asyncio.to_thread(service.wait_for_log, "reloaded")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(complete.wait(), 5)
        assert len(answers) == REQUESTS
        assert all(server.open(answer, xkey) for answer in answers)
        await asking.close()
