"""A reload applies the whole configuration or nothing, and logs the result."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nats.errors import Error as NatsError

from broker_auth.audit.reader import read_records
from broker_auth.audit.record import AuditRecord
from broker_auth.cli import main
from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.natsio.nkey import NkeyKind, generate_seed
from broker_auth.sandbox.service import ServiceProcess
from tests.callout.deployment import PASSWORD, FleetDeployment, eventually
from tests.deadlines import HANG_SECONDS

pytestmark = pytest.mark.e2e
NEW = "hunter2-changed"


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[FleetDeployment]:
    with FleetDeployment(tmp_path).running() as running:
        yield running


@pytest.fixture
def service(deployment: FleetDeployment) -> Iterator[ServiceProcess]:
    with deployment.service() as running:
        yield running


def reload(service: ServiceProcess, outcome: str = "reloaded") -> list[str]:
    """Send SIGHUP; return the lines logged until the outcome."""
    mark = service.mark()
    service.signal(signal.SIGHUP)
    service.wait_for_log(outcome, since=mark)
    return service.log(mark)


async def gets_in(deployment: FleetDeployment, password: str) -> bool:
    try:
        client = await deployment.provisioner(password)
    except NatsError:
        return False
    await client.close()
    return True


async def test_denials_hide_neither_a_reload_nor_anything_else(deployment: FleetDeployment) -> None:
    """By default records go to standard output, and the log has one line for each denial."""
    with deployment.service("--log-format", "json") as service:
        for _ in range(3):
            assert not await gets_in(deployment, "wrong")
        reload(service)
    lines = [json.loads(line) for line in service.log()]
    records = [record for record in read_records(service.out_file) if isinstance(record, AuditRecord)]
    denials = [line for line in lines if line.get("code") == "provisioner_password"]
    denied = [record for record in records if record.code == "provisioner_password"]
    assert [line["level"] for line in denials] == ["info"] * len(denied)
    assert len(denied) >= 3  # a client may try again
    assert [line["level"] for line in lines if line["message"].startswith("reloaded ")] == ["info"]
    assert not [line for line in lines if "event" in line]


async def test_changed_password_applies_after_the_reload(deployment: FleetDeployment, service: ServiceProcess) -> None:
    deployment.write_config(password=NEW)
    assert await gets_in(deployment, PASSWORD)
    assert not await gets_in(deployment, NEW)
    reload(service)
    assert await gets_in(deployment, NEW)
    assert not await gets_in(deployment, PASSWORD)


async def test_two_passwords_overlap_while_one_is_rotated(deployment: FleetDeployment, service: ServiceProcess) -> None:
    key = "plugin.broker_auth.provisioning.previous_client_password"
    deployment.write_config(f"{key} = {PASSWORD}", password=NEW)
    reload(service)
    assert await gets_in(deployment, NEW)
    assert await gets_in(deployment, PASSWORD)


async def test_changed_ca_applies_after_the_reload(deployment: FleetDeployment, service: ServiceProcess) -> None:
    other = deployment.directory / "other.pem"
    other.write_bytes(CertificateAuthority.create().certificate_pem)
    deployment.write_config()
    text = deployment.config.read_text().replace("client_ca = ca.pem", "client_ca = other.pem")
    deployment.write_secret("broker.conf", text)
    await (await deployment.connect()).close()
    reload(service)
    # nats-server verified the certificate, but it was not issued by the new CA.
    with pytest.raises(NatsError, match="Authorization Violation"):
        await deployment.connect()


async def test_broken_configuration_is_refused_with_every_problem(
    deployment: FleetDeployment, service: ServiceProcess
) -> None:
    deployment.write_config("plugin.broker_auth.tokn_leeway = 5s", "plugin.broker_auth.workers = 0", password=NEW)
    (deployment.directory / "signer.pem").write_text("garbage")
    workers = service.workers
    lines = reload(service, "workers: ")
    refused = [line for line in lines if "not reloaded: " in line]
    assert len(refused) == 3
    assert all(" ERROR " in line for line in refused)
    assert service.workers == workers
    assert await gets_in(deployment, PASSWORD)
    assert not await gets_in(deployment, NEW)


async def test_worker_replaced_after_a_refused_reload_uses_the_accepted_configuration(
    deployment: FleetDeployment, service: ServiceProcess
) -> None:
    deployment.write_config("plugin.broker_auth.workers = 0", password=NEW)
    (deployment.directory / "signer.pem").write_text("garbage")
    (deployment.directory / "user.seed").unlink()
    (deployment.directory / "client.pem").write_text("garbage")
    (deployment.directory / "client.key").unlink()
    reload(service, "not reloaded")
    mark = service.mark()
    os.kill(service.workers[0], signal.SIGKILL)
    service.wait_for_log("subscribed at", since=mark)
    assert await gets_in(deployment, PASSWORD)


async def test_the_number_of_workers_changes(deployment: FleetDeployment, service: ServiceProcess) -> None:
    (old,) = service.workers
    deployment.write_config("plugin.broker_auth.workers = 3")
    reload(service)
    assert len(service.workers) == 3
    assert old not in service.workers


async def test_many_reload_requests_are_served(deployment: FleetDeployment, service: ServiceProcess) -> None:
    for _ in range(5):
        service.signal(signal.SIGHUP)
    service.wait_for_log("reloaded")
    deployment.write_config(password=NEW)
    service.signal(signal.SIGHUP)
    async with asyncio.timeout(HANG_SECONDS):  # a reload requested before may be served first
        while not await gets_in(deployment, NEW):
            pass


def test_stopping_during_a_reload_ends_every_worker(deployment: FleetDeployment, service: ServiceProcess) -> None:
    deployment.write_secret("user.seed", generate_seed(NkeyKind.USER))  # the new workers cannot log in
    old = service.workers
    service.signal(signal.SIGHUP)
    service.wait_for_log("authenticated this service as an ordinary client")
    both = service.workers
    assert len(both) == 2
    assert service.terminate() == 0
    assert not [pid for pid in {*old, *both} if Path(f"/proc/{pid}").exists()]


def test_reload_logs_changes_that_need_a_restart(deployment: FleetDeployment, service: ServiceProcess) -> None:
    deployment.write_config("plugin.broker_auth.metrics.listen = 127.0.0.1:1")
    lines = reload(service)
    assert any("plugin.broker_auth.metrics.listen has changed; restart the service" in line for line in lines)


async def test_rotated_audit_files_are_released(deployment: FleetDeployment, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    deployment.write_config(f"plugin.broker_auth.audit.output = file:{audit}")
    with deployment.service("--workers", "2") as service:
        await (await deployment.connect()).close()
        before = await eventually(audit.read_bytes)
        rotated = audit.rename(tmp_path / "audit.jsonl.1")
        service.signal(signal.SIGUSR1)
        await eventually(audit.exists)
        # Both workers must have released the file before the next record; their open files show it.
        await eventually(lambda: not any(str(rotated) in held for pid in service.workers for held in _files(pid)))
        await (await deployment.connect()).close()
        await eventually(audit.read_bytes)
        assert rotated.read_bytes() == before
        assert audit.stat().st_mode & 0o777 == 0o640


def _files(pid: int) -> list[str]:
    return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]


# -- broker-auth reload ----------------------------------------------------------------------------


@pytest.fixture
def command(deployment: FleetDeployment) -> Callable[[], Result]:
    return lambda: CliRunner().invoke(main, ["reload", "--config", str(deployment.config)])


def with_pid_file(deployment: FleetDeployment, *extra: str, password: str = PASSWORD) -> None:
    deployment.write_config("plugin.broker_auth.pid_file = service.pid", *extra, password=password)


async def test_command_reloads(deployment: FleetDeployment, command: Callable[[], Result]) -> None:
    with_pid_file(deployment)
    with deployment.service() as service:
        assert int((deployment.directory / "service.pid").read_text().splitlines()[0]) == service.pid
        with_pid_file(deployment, password=NEW)
        done = command()
        assert (done.exit_code, done.stderr) == (0, "")
        assert await gets_in(deployment, NEW)
    assert not (deployment.directory / "service.pid").exists()


async def test_command_reports_problems_without_signalling(
    deployment: FleetDeployment, command: Callable[[], Result]
) -> None:
    with_pid_file(deployment)
    with deployment.service() as service:
        with_pid_file(deployment, "plugin.broker_auth.workers = 0", "plugin.broker_auth.token_leeway = 2m")
        mark = service.mark()
        done = command()
        assert done.exit_code == 1
        assert len(done.stderr.splitlines()) == 2
        assert not service.log(mark)


def test_command_reports_a_refused_reload(
    deployment: FleetDeployment, command: Callable[[], Result], tmp_path: Path
) -> None:
    """The command cannot check the environment variables of the service."""
    with_pid_file(deployment)
    audit = tmp_path / "audit" / "records.jsonl"
    audit.parent.mkdir()
    with deployment.service(BROKER_AUTH_AUDIT_OUTPUT=f"file:{audit}") as service:
        audit.unlink()
        audit.parent.rmdir()
        done = command()
        assert done.exit_code == 1
        assert "keeps the old one" in done.stderr
        service.wait_for_log("not reloaded: audit file")


def test_command_reports_a_missing_service(deployment: FleetDeployment, command: Callable[[], Result]) -> None:
    with_pid_file(deployment)
    done = command()
    assert done.exit_code == 1
    assert "no service runs with the pid file" in done.stderr


def test_command_needs_a_pid_file(deployment: FleetDeployment, command: Callable[[], Result]) -> None:
    done = command()
    assert done.exit_code == 1
    assert "plugin.broker_auth.pid_file is not set" in done.stderr
