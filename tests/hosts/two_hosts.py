"""Two hosts of the service at one fleet server: the same configuration, each with its own file of revocations."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from broker_auth.audit.reader import read_recent_decisions
from broker_auth.audit.record import AuditRecord
from broker_auth.operate.access import Access
from broker_auth.operate.streams.change import change_buckets
from broker_auth.sandbox.natsserver import free_port
from broker_auth.sandbox.service import ServiceProcess
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.settings.revocation_store import create
from broker_auth.settings.revocations import RevocationList, read_revocations
from tests.callout.deployment import FleetDeployment
from tests.cli.running import Run, run

KEYS = (
    "plugin.broker_auth.revocations = revoked.json",
    "plugin.broker_auth.revocations_bucket = true",
    "plugin.broker_auth.pid_file = pid",
)


class Host:
    """A host of the service, which differs from others in four files and an address."""

    def __init__(self, config: Path, name: str, *options: str) -> None:
        self._config = config
        self.directory = config.parent / name
        self.directory.mkdir()
        self.file = self.directory / "revoked.json"
        self.address = f"127.0.0.1:{free_port()}"
        self.environ = {
            "BROKER_AUTH_REVOCATIONS": str(self.file),
            "BROKER_AUTH_PID_FILE": str(self.directory / "pid"),
            "BROKER_AUTH_AUDIT_OUTPUT": f"file:{self.directory / 'audit.json'}",
        }
        create(self.file)
        environ = {"BROKER_AUTH_METRICS_LISTEN": self.address, **self.environ}
        self.service = ServiceProcess(
            config, config.with_name(f"{name}.log"), ("--workers", "1", *options), environ=environ
        )

    async def command(self, name: str, *args: object) -> Run:
        """Run a command on this host, beside the event loop of the test."""
        return await asyncio.to_thread(run, name, *args, "--config", self._config, env=self.environ)

    def settings(self) -> Settings:
        return load(self._config, self.environ, serving=True)

    def admissions(self, client: str) -> list[AuditRecord]:
        """Return the records of this host's admissions of clients of a name, in every zone."""
        return [one for one in self.decisions(client) if one.decision == "admit"]

    def decisions(self, client: str) -> list[AuditRecord]:
        """Return the records of this host's decisions about clients of a name, in every zone."""
        files = [file for file in self.directory.glob("audit*.json") if file.is_file()]
        records = [record for file in files for record in read_recent_decisions(file)]
        return [one for one in records if client in (one.client, one.name)]

    @property
    def held(self) -> RevocationList:
        return read_revocations(self.file)

    def troubles(self) -> list[str]:
        lines: list[str] = json.loads(self.page("/healthz"))["troubles"]
        return lines

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text


async def apply_buckets(settings: Settings, peers: int) -> None:
    """Create the bucket on that number of servers, like ``broker-auth streams apply``."""
    assert settings.main_broker
    service = await Access(settings=settings).callout(settings.main_broker)
    await change_buckets(service, settings, peers, dry_run=False)
    await service.close()


class TwoHosts:
    """A fleet server with a bucket, and two hosts that are not started."""

    def __init__(self, directory: Path, deployment: type[FleetDeployment] = FleetDeployment, *keys: str) -> None:
        """Write the configuration, with more keys at its end."""
        self.deployment = deployment(directory)
        self.deployment.write_config(*KEYS, *keys)
        create(directory / "revoked.json")  # of no host: that of commands that are about none
        self.first, self.second = [Host(self.deployment.config, name) for name in ("first", "second")]
        self.deployment.render_again()

    async def apply(self) -> None:
        """Create the bucket."""
        await apply_buckets(self.deployment.settings(), 1)

    @contextlib.contextmanager
    def running(self) -> Iterator[TwoHosts]:
        """Run the server and both services; the bucket exists."""
        with self.deployment.running():
            asyncio.run(self.apply())
            with self.first.service, self.second.service:
                yield self
