"""Without client certificates commands log in with a client token and a signature of the nonce."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker_auth.sandbox.natsserver import NatsServer, free_port
from tests.operate.deployment import serving

pytestmark = pytest.mark.e2e


@dataclass(frozen=True, slots=True)
class Single:
    """A deployment of the single topology, as ``init`` writes it."""

    directory: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "broker_auth", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def on(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with this deployment's configuration."""
        return self.run(*arguments, "--config", str(self.directory / "broker.conf"))

    def proof(self, name: str, *permissions: str) -> list[str]:
        """Return the options for a token with these permissions and its seed."""
        token, seed, public = (self.directory / f"{name}.{end}" for end in ("jwt", "seed", "public"))
        assert self.run("token", "keys", str(seed), str(public)).returncode == 0
        issuer = str(self.directory / "pki" / "issuer.seed")
        made = self.run(
            *("token", "client", str(token), f"up={name}", issuer, "--public-key", str(public)),
            *("--no-fleet-management", *permissions),
        )
        assert made.returncode == 0, made.stderr
        return ["--token", str(token), "--seed", str(seed)]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    directory = tmp_path_factory.mktemp("single") / "deployment"
    deployment = Single(directory)
    made = deployment.run("init", str(directory), "--topology", "single", "--dev-pki", "--port", str(free_port()))
    assert made.returncode == 0, made.stderr
    with NatsServer(directory / "fleet.conf"), serving(directory / "broker.conf"):
        yield deployment


def test_token_with_system_user_logs_in_to_the_system_account(single: Single) -> None:
    proof = single.proof("operator", "--system")
    done = single.on("report", "conns", "--json", *proof)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert {row["identity"] for row in rows if row["account"] == "system"} == {"up=operator"}


def test_token_without_system_user_is_refused(single: Single) -> None:
    done = single.on("report", "conns", "--json", *single.proof("viewer"))
    assert done.returncode == 1
    assert "as the system user system" in done.stderr


def test_token_with_another_seed_is_refused(single: Single) -> None:
    token = single.proof("operator2", "--system")[1]
    stranger = single.proof("stranger")[3]
    assert single.on("report", "conns", "--json", "--token", token, "--seed", stranger).returncode == 1


def test_streams_without_a_token_are_refused_with_the_options_that_help(single: Single) -> None:
    done = single.on("streams", "apply")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "use --token FILE --seed FILE of a client with the permission streams_admin" in line


def test_streams_administrator_applies_streams(single: Single) -> None:
    config = single.directory / "broker.conf"
    keys = ("event_replicas", "machine_replicas", "advisory_replicas", "leader_election_replicas")
    config.write_text(config.read_text() + "".join(f"plugin.choria.network.stream.{key} = 1\n" for key in keys))
    proof = single.proof("streams", "--stream-admin")
    done = single.on("streams", "apply", "--json", *proof)
    assert (done.returncode, done.stderr) == (0, "")
    assert {row["action"] for row in json.loads(done.stdout)["streams"]} == {"create"}
    again = single.on("streams", "apply", "--json", *proof)
    assert {row["action"] for row in json.loads(again.stdout)["streams"]} == {"nothing"}


def test_doctor_names_the_needed_credentials_and_uses_them(single: Single) -> None:
    without = json.loads(single.on("doctor", "--json").stdout)["findings"]
    assert [item for item in without if item["severity"] == "error"] == []
    skipped = {item["code"]: item["remedy"] for item in without if item["severity"] == "skipped"}
    assert "--token" in skipped["system.closed"]
    assert "--token FILE --seed FILE" in skipped["isolation.crossing"]
    proof = single.proof("doctor", "--system", "--org-admin")
    done = single.on("doctor", "--json", *proof)
    findings = json.loads(done.stdout)["findings"]
    codes = {item["code"] for item in findings if item["severity"] == "ok"}
    assert {"callout.admits", "callout.account", "isolation.accounts", "timeouts"} <= codes


def test_token_without_seed_is_a_usage_error(single: Single) -> None:
    done = single.on("report", "conns", "--token", "x.jwt")
    assert done.returncode == 2
    assert "--token and --seed go together" in done.stderr
