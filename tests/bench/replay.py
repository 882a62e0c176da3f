"""How fast ``broker-auth replay`` decides, how much memory it needs, and what stored requests cost on a disk.

``python -m tests.bench.replay [RECORDS] [IDENTITIES]`` (by default a million records of a thousand identities of each
kind) writes an audit file separate, replays it, and shows the figures of docs/performance.md#replay.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.audit.record import encode, make_record
from broker_auth.operate.replay.judge import Judge
from broker_auth.operate.replay.records import file_decisions
from broker_auth.operate.replay.run import Replay
from broker_auth.policy.decide import decide
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.settings.load import load
from broker_auth.settings.policy import build_policy
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.peers import authority, fleet_chain
from tests.builders.tokens import CLIENT_SIGNER, SERVER_SIGNER, provisioning_signer

CONFIG: Final = f"""\
plugin.choria.network.provisioning.signer_cert = signer.pem
plugin.choria.network.provisioning.client_password = file:password
plugin.choria.network.client_signer_cert = {CLIENT_SIGNER.hex}
plugin.choria.network.server_signer_cert = {SERVER_SIGNER.hex}
plugin.broker_auth.client_ca = ca.pem
"""
FLEET: Final = 10_000  # nodes, of which the days on a gigabyte are counted
GIGABYTE: Final = 1024**3


def main(records: int = 1_000_000, identities: int = 1000) -> None:
    """Measure, and print a line for each figure."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = write_config(directory)
        audit = directory / "audit.jsonl"
        kinds = {kind: lines(config, kind, identities) for kind in ("node", "server", "fleet")}
        for kind, made in kinds.items():
            size = sum(map(len, made)) / len(made)
            days = GIGABYTE / (size * FLEET)
            print(
                f"{kind}: {size:.0f} bytes a record with its request; {days:.1f} days of {FLEET} logins a day on 1 GiB"
            )
        write(audit, list(kinds.values()), records)
        settings = load(config, {}, serving=False)
        for against in (None, Judge(settings)):
            print("compared with the records:" if against is None else "compared with a configuration:")
            replay(Replay(Judge(settings), against), audit)


def replay(run: Replay, audit: Path) -> None:
    """Run a replay of an audit file, and print its speed and memory."""
    started, cpu = time.perf_counter(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run.records(file_decisions([audit]))
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{run.summary.decided} requests decided again, {run.summary.unchanged} unchanged, "
        f"file of {audit.stat().st_size} bytes"
    )
    print(f"{seconds:.1f} s ({used:.1f} s of CPU): {run.summary.decided / used:.0f} records a second of CPU")
    print(f"memory: {after / 1024:.0f} MiB at most, {(after - before) / 1024:.0f} MiB more than before")


def write_config(directory: Path) -> Path:
    """Write a configuration that admits every kind of request, and return its path."""
    files = {
        "ca.pem": authority().pair.certificate_pem,
        "signer.pem": provisioning_signer().public_pem,
        "password": b"a password",
        "broker.conf": CONFIG.encode(),
    }
    for name, data in files.items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o600)
    return directory / "broker.conf"


def asked(kind: str, identities: int) -> Iterator[AuthorizationRequest]:
    """Yield a request of each identity; nodes share a token, servers and members of the fleet have their own."""
    node = requests.node()
    for number in range(identities):
        name = f"node{number}.example.net"
        match kind:
            case "node":
                options = msgspec.structs.replace(node.connect_opts, name=name)
                yield msgspec.structs.replace(node, connect_opts=options)
            case "server":
                yield requests.server(SERVER_SIGNER, claims={"identity": name, "jti": f"token {number}"}, name=name)
            case _:
                yield requests.fleet(chains=(fleet_chain(name),), name=name)


def lines(config: Path, kind: str, identities: int) -> list[bytes]:
    """Return a record of each identity, with its request."""
    policy = build_policy(load(config, {}, serving=False))
    return [
        encode(
            make_record(
                request, decide(request, policy, NOW), NOW, 300, with_request=True, zone="fleet", broker="fleet"
            )
        )
        for request in asked(kind, identities)
    ]


def write(path: Path, kinds: list[list[bytes]], records: int) -> None:
    """Write records, kind by kind in turns, with times that go on for a day."""
    stamp = b'"time":"2027-01-15T08:00:00Z"'
    with path.open("wb") as file:
        for number in range(records):
            made = kinds[number % len(kinds)]
            line = made[number // len(kinds) % len(made)]
            second = int(NOW + number * 600 / records)
            new = b'"time":"%s"' % time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)).encode()
            file.write(line.replace(stamp, new, 1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
