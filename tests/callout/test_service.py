"""The service with a real nats-server: decisions appear in audit outputs, metrics and commands."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.errors import Error as NatsError
from prometheus_client.parser import text_string_to_metric_families

from broker_auth.certificates.files import read_certificates
from broker_auth.cli import main
from broker_auth.natsio.client import round_trip
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.sandbox.natsserver import free_port
from tests.callout.deployment import FLEET_NAME, PASSWORD, FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
SUBJECT = "audit.broker-auth"
WRONG = "wrong"


class Live:
    """A broker and a service with every output enabled."""

    def __init__(self, directory: Path) -> None:
        self.deployment = FleetDeployment(directory)
        self.audit = directory / "audit.jsonl"
        self.metrics = f"127.0.0.1:{free_port()}"
        self.deployment.write_config(
            f"plugin.broker_auth.audit.output = log, stdout, file:{self.audit}, nats:{SUBJECT}",
            "plugin.broker_auth.audit.requests = true",
            f"plugin.broker_auth.metrics.listen = {self.metrics}",
            "plugin.broker_auth.workers = 2",
        )
        self.deployment.render_again()
        self.service = self.deployment.service()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit.read_text().split("\n")[:-1]]  # the last may be incomplete

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.metrics}{path}", timeout=HANG_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Return all samples, by name and by label values in the order of the label names."""
        families = text_string_to_metric_families(self.page("/metrics")[1])
        return {
            (s.name, tuple(v for _, v in sorted(s.labels.items()))): s.value
            for family in families
            for s in family.samples
        }


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    running = Live(tmp_path_factory.mktemp("live"))
    with running.deployment.running(), running.service:
        yield running


async def denied(live: Live, name: str, password: str = WRONG) -> None:
    with pytest.raises(NatsError, match="Authorization Violation"):
        await live.deployment.provisioner(password, name=name)


async def admitted(live: Live, name: str) -> int:
    """Connect as a fleet member; return the connection's id."""
    client: Client = await live.deployment.connect(name=name)
    cid = client.client_id
    await client.close()
    assert cid is not None
    return cid


async def test_decision_is_recorded_in_the_file(live: Live) -> None:
    cid = await admitted(live, "recorded")
    record = await eventually(lambda: next((r for r in live.records() if r.get("cid") == cid), None))
    assert record["event"] == "decision"
    assert record["v"] == 1
    assert (record["decision"], record["code"], record["rule_number"]) == ("admit", "admitted", 4)
    assert (record["name"], record["host"], record["server"]) == (FLEET_NAME, "127.0.0.1", "east")
    assert record["micros"] > 0


async def test_stored_request_can_be_explained_and_contains_no_password(live: Live, tmp_path: Path) -> None:
    await denied(live, "explained", password="not-the-password")
    record = await eventually(lambda: next((r for r in live.records() if r.get("name") == "explained"), None))
    stored = tmp_path / "record.json"
    stored.write_text(json.dumps(record))
    assert record["redacted"] == ["pass"]
    everything = live.audit.read_text() + live.service.log_file.read_text() + live.service.out_file.read_text()
    assert "not-the-password" not in everything
    assert PASSWORD not in everything
    done = CliRunner().invoke(main, ["explain", str(stored), "--config", str(live.deployment.config), "--json"])
    # The password was removed, so its check is skipped.
    assert json.loads(done.stdout)["rule"] == "provisioner"


async def test_log_and_standard_output_contain_the_records(live: Live) -> None:
    await denied(live, "everywhere")
    await eventually(lambda: '"name":"everywhere"' in live.service.out_file.read_text())
    live.service.wait_for_log(r'INFO \d+ broker_auth.audit: \{"event":"decision".*"name":"everywhere"')


async def test_records_are_published_with_the_rendered_permissions(live: Live) -> None:
    fleet = await live.deployment.connect(name="subscriber")
    received = await fleet.subscribe(SUBJECT)
    await round_trip(fleet)
    await denied(live, "published")
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            record = json.loads((await received.next_msg(timeout=HANG_SECONDS)).data)
            if record.get("name") == "published":
                break
    assert record["code"] == "provisioner_password"
    await fleet.close()


async def test_denial_is_one_short_record(live: Live) -> None:
    await denied(live, "refused")
    record = await eventually(lambda: next((r for r in live.records() if r.get("name") == "refused"), None))
    await denied(live, "refused later")
    await eventually(lambda: any(r.get("name") == "refused later" for r in live.records()))
    assert [r["event"] for r in live.records() if r["cid"] == record["cid"]] == ["decision"]
    assert record["broker"] == "east"
    assert len(json.dumps({name: value for name, value in record.items() if name != "request"})) < 700


async def test_why_shows_the_decision_and_a_remedy(live: Live) -> None:
    await denied(live, "asked-about")
    await eventually(lambda: next((r for r in live.records() if r.get("name") == "asked-about"), None))
    done = CliRunner().invoke(main, ["why", "asked-about", "--config", str(live.deployment.config)])
    assert done.exit_code == 0
    assert "DENIED  asked-about as user provisioner from 127.0.0.1" in done.stdout
    assert "rule 1 (provisioner): provisioner_password" in done.stdout
    assert "what to do: Compare it with" in done.stdout


async def test_metrics_count_each_decision_over_all_workers(live: Live) -> None:
    key = ("broker_auth_decisions_total", ("provisioner_password", "provisioner", "fleet"))
    names = {f"counted{number}" for number in range(6)}
    for name in names:
        await denied(live, name)
    await eventually(lambda: names <= {r.get("name") for r in live.records()})
    recorded = sum(r.get("code") == "provisioner_password" for r in live.records())
    await eventually(lambda: live.samples().get(key, 0) == recorded)


async def test_metrics_show_the_state_of_the_service(live: Live) -> None:
    await admitted(live, "measured")
    samples = await eventually(lambda: _with(live, "broker_auth_decision_seconds_count"))
    assert samples["broker_auth_workers", ("fleet",)] == 2
    assert samples["broker_auth_workers_wanted", ("fleet",)] == 2
    assert samples["broker_auth_broker_subscribed_workers", ("east", "fleet")] == 2
    assert samples["broker_auth_in_flight", ("fleet",)] == 0
    decided = sum(value for (name, _), value in samples.items() if name == "broker_auth_decisions_total")
    assert samples["broker_auth_decision_seconds_count", ("fleet",)] == decided
    own = str(live.deployment.directory / "client.pem")
    expiry = "broker_auth_certificate_expiry_timestamp_seconds"
    assert 300 < (samples[expiry, (own, "own")] - time.time()) / 86400 < 400
    assert {labels[-1] for name, labels in samples if name == expiry} == {"signer", "ca", "own", "broker"}
    (server,) = read_certificates(live.deployment.directory / "server.pem")
    assert samples[expiry, ("east", "broker")] == server.not_after


def _with(live: Live, name: str) -> dict[tuple[str, tuple[str, ...]], float] | None:
    samples = live.samples()
    return samples if samples.get((name, ("fleet",)), 0) > 0 else None


async def test_workers_stay_small(live: Live) -> None:
    await admitted(live, "weighed")
    samples = live.samples()
    sizes = [value for (name, _), value in samples.items() if name == "broker_auth_worker_resident_bytes"]
    assert len(sizes) == 2
    assert max(sizes) < 60 * 1024 * 1024


def test_supervisor_has_no_threads(live: Live) -> None:
    """It forks, which is safe only without threads."""
    assert live.page("/metrics")[0] == 200
    assert len(list(Path(f"/proc/{live.service.pid}/task").iterdir())) == 1


async def test_health_and_readiness_are_ok_while_serving(live: Live) -> None:
    for path in ("/healthz", "/readyz"):
        status, body = live.page(path)
        assert status == 200
        assert json.loads(body) == {
            "ok": True,
            "zone": "fleet",
            "workers": 2,
            "wanted": 2,
            "brokers": {"east": 2},
            "zones": {"fleet": {"alive": True, "ready": True}},
            "troubles": [],
        }
    assert live.page("/secrets")[0] == 404


async def test_every_worker_answers_the_micro_protocol(live: Live) -> None:
    watcher = await live.deployment.watch()
    answers = await _ask_all(watcher, "$SRV.PING", 2)
    assert {answer["name"] for answer in answers} == {"broker-auth"}
    assert len({answer["id"] for answer in answers}) == 2
    one = answers[0]["id"]
    info = json.loads((await watcher.request(f"$SRV.INFO.broker-auth.{one}", timeout=HANG_SECONDS)).data)
    assert info["id"] == one
    assert info["type"] == "io.nats.micro.v1.info_response"
    assert info["endpoints"] == [{"name": "auth", "subject": "$SYS.REQ.USER.AUTH", "queue_group": "broker-auth"}]
    before = sum(a["endpoints"][0]["num_requests"] for a in await _ask_all(watcher, "$SRV.STATS.broker-auth", 2))
    await admitted(live, "asked")
    after = sum(a["endpoints"][0]["num_requests"] for a in await _ask_all(watcher, "$SRV.STATS.broker-auth", 2))
    assert after == before + 1
    await watcher.close()


async def _ask_all(client: Client, subject: str, count: int) -> list[dict[str, Any]]:
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    await client.publish(subject, b"", reply=inbox)
    results = [json.loads((await answers.next_msg(timeout=HANG_SECONDS)).data) for _ in range(count)]
    await answers.unsubscribe()
    return results


async def test_unanswered_connection_is_recorded(tmp_path: Path) -> None:
    """The service cannot open the request, so it must not answer, and only the server can report the connection."""
    deployment = FleetDeployment(tmp_path)
    conf = tmp_path / "east.conf"
    # The server gives up after a second, before its early PING, after which nats-py reports a connection.
    conf.write_text(conf.read_text().replace("\n  timeout: 10\n  auth_callout", "\n  timeout: 1\n  auth_callout", 1))
    audit = tmp_path / "audit.jsonl"
    deployment.write_config(f"plugin.broker_auth.audit.output = file:{audit}")
    deployment.write_secret("curve.seed", generate_seed(NkeyKind.CURVE))
    with deployment.running(), deployment.service() as service:
        with pytest.raises(NatsError):
            await deployment.connect(name="unlucky")
        service.wait_for_log("request not answered: seal")
        record = json.loads(await eventually(audit.read_text))
        assert (record["event"], record["host"]) == ("server_error", "127.0.0.1")
        assert record.get("reason", "") == ""
        done = CliRunner().invoke(main, ["why", str(record["cid"]), "--audit", str(audit)])
        assert "REFUSED" in done.stdout
        assert "no decision is recorded" in done.stdout
