"""Records reach their outputs, survive failures of those, and contain no secret."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from broker_auth.audit.file import StreamAudit
from broker_auth.audit.nats_sink import MAX_PENDING, NatsAudit
from broker_auth.audit.record import make_record
from broker_auth.audit.sinks import Audit, DenialLog, LogAudit
from broker_auth.errors import OperationError
from broker_auth.policy.decide import decide
from broker_auth.policy.request import AuthorizationRequest
from tests.audit.records import admitted, denied, refused
from tests.builders.clock import NOW
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, x509_policy
from tests.builders.requests import fleet, node, provisioner, request, system


def test_record_contains_version_and_event() -> None:
    assert json.loads(msgspec.json.encode(denied()))["v"] == 1
    assert json.loads(msgspec.json.encode(denied()))["event"] == "decision"
    assert json.loads(msgspec.json.encode(refused()))["v"] == 1
    assert json.loads(msgspec.json.encode(refused()))["event"] == "server_error"


@pytest.mark.parametrize("asked", [fleet(), provisioner(), system(), node(), provisioner(password="wr0ng-word")])
def test_stored_request_contains_no_secret(asked: object) -> None:
    assert isinstance(asked, type(fleet()))
    decision = decide(asked, x509_policy(), NOW)
    text = msgspec.json.encode(make_record(asked, decision, NOW, 100, with_request=True)).decode()
    for secret in (PASSWORD, SYSTEM_PASSWORD, "wr0ng-word"):
        assert secret not in text
    token = asked.connect_opts.auth_token
    assert not token or token.rsplit(".", 1)[1] not in text


def test_malformed_token_is_not_stored() -> None:
    asked = request(auth_token="a password in the wrong place")
    record = make_record(asked, decide(asked, x509_policy(), NOW), NOW, 100, with_request=True)
    assert "wrong place" not in msgspec.json.encode(record).decode()


def _long(value: object) -> object:
    """Return the request with every text made long, including chains and tokens."""
    match value:
        case str():
            return value + "n" * 20_000
        case dict():
            return {name: _long(item) for name, item in value.items()}
        case list():
            return [_long(item) for item in value]
        case int():
            return 2**64
        case _:
            return value


@pytest.mark.parametrize("with_request", [False, True])
@pytest.mark.parametrize("asked", [fleet(), provisioner(), node(), node(jwt="x", sig="y", nkey="z")])
def test_record_is_short_whatever_a_broker_sends(asked: AuthorizationRequest, with_request: bool) -> None:
    """A compromised broker controls every field, including the server's own."""
    long = msgspec.convert(_long(msgspec.to_builtins(asked)), AuthorizationRequest)
    record = make_record(long, decide(long, x509_policy(), NOW), NOW, 100, with_request=with_request)
    assert len(msgspec.json.encode(record)) < 12_000


def test_file_is_appended_to_and_not_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for record in (denied(), admitted()):
        sink = StreamAudit(path)
        sink.write(record)
        sink.close()
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["deny", "admit"]
    assert path.stat().st_mode & 0o007 == 0


def test_rotated_file_is_released(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = StreamAudit(path)
    sink.write(denied(cid=1))
    sink.flush()
    path.rename(tmp_path / "audit.jsonl.1")
    sink.write(denied(cid=2))
    sink.reopen()
    sink.write(denied(cid=3))
    sink.close()
    assert [json.loads(line)["cid"] for line in (tmp_path / "audit.jsonl.1").read_text().splitlines()] == [1, 2]
    assert [json.loads(line)["cid"] for line in path.read_text().splitlines()] == [3]


def test_failed_reopen_keeps_the_old_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dir" / "audit.jsonl"
    path.parent.mkdir()
    sink = StreamAudit(path)
    moved = path.rename(tmp_path / "moved.jsonl")
    path.parent.rmdir()
    sink.reopen()
    sink.write(denied())
    sink.close()
    assert "cannot be opened" in caplog.text
    assert moved.read_bytes().count(b"\n") == 1


def test_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match=r"audit file .* cannot be opened"):
        StreamAudit(tmp_path / "missing" / "audit.jsonl")


def test_full_disk_blocks_nothing_and_losses_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    sink = StreamAudit(Path("/dev/full"))
    for _ in range(1001):
        sink.write(denied())
    sink.close()
    assert sink.lost == 1001
    assert len(caplog.records) == 1


def test_records_of_one_write_are_separate_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = StreamAudit(path)
    sink.write(denied(cid=1), refused(), admitted(cid=2))
    sink.write()
    sink.close()
    assert [json.loads(line)["cid"] for line in path.read_text().splitlines()] == [1, refused().cid, 2]


def test_records_are_written_to_a_pipe_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share the pipe, which keeps only writes of a few kilobytes contiguous."""
    reading, writing = os.pipe2(os.O_DIRECT)  # preserves write boundaries
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        StreamAudit("-").write(denied(cid=1), denied(cid=2))
        assert [json.loads(pipe.read(4096))["cid"] for _ in range(2)] == [1, 2]


def _lost_by(write: Callable[[Path], None], path: Path) -> int | None:
    """Return how many records ``write`` lost; run it in a separate process, because it sets a resource limit."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(path,))
    process.start()
    process.join()
    return process.exitcode


def _fill_together(path: Path) -> None:
    """Write three records of which the second fits only partly, then two more."""
    sink = StreamAudit(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(msgspec.json.encode(denied(cid=1))) + 100, hard))
    sink.write(denied(cid=1), denied(cid=2), denied(cid=3))
    sink.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sink.write(denied(cid=4), denied(cid=5))
    sink.close()
    sys.exit(sink.lost)


def test_partial_write_keeps_the_records_that_fit(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert _lost_by(_fill_together, path) == 2
    first, half, fourth, fifth = path.read_text().splitlines()
    assert len(half) == 99
    assert [json.loads(line)["cid"] for line in (first, fourth, fifth)] == [1, 4, 5]


def _fill(path: Path) -> None:
    """Write a record that fits only partly, a second that does not fit, and two more once there is room."""
    sink = StreamAudit(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    sink.write(denied(cid=1))
    sink.flush()
    sink.write(denied(cid=2))
    sink.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sink.write(denied(cid=3))
    sink.write(denied(cid=4))
    sink.close()
    sys.exit(sink.lost)


def test_partial_record_does_not_corrupt_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert _lost_by(_fill, path) == 2
    half, third, fourth = path.read_text().splitlines()
    assert len(half) == 100
    assert [json.loads(line)["cid"] for line in (third, fourth)] == [3, 4]


def _append(path: Path, cid: int) -> None:
    sink = StreamAudit(path)
    for _ in range(300):
        sink.write(denied(cid=cid, reason="r" * 6000), denied(cid=cid, reason="r" * 6000))
    sink.close()


def test_processes_sharing_a_file_do_not_interleave_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(path, cid)) for cid in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    written = [json.loads(line)["cid"] for line in path.read_text().splitlines()]
    assert sorted(written) == [1] * 600 + [2] * 600


def test_records_in_the_log_have_the_info_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for record in (admitted(), denied(), refused()):
        LogAudit().write(record)
    assert [entry.levelname for entry in caplog.records] == ["INFO", "INFO", "INFO"]


def test_each_denial_is_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    DenialLog().write(admitted(), denied(name="node1", broker="edge"), refused(name="", reason="timed out"))
    assert [entry.levelname for entry in caplog.records] == ["INFO", "INFO"]
    ours, servers = caplog.messages
    assert ours.startswith("denied node1 from ")
    assert " at broker edge: " in ours
    assert servers.startswith("fleet-1 refused an unnamed connection from 192.0.2.7")
    assert servers.endswith(": timed out")


def test_flood_of_denials_leaves_other_lines_visible(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    sink = DenialLog(lambda: now)
    sink.write(*[denied()] * 1000)
    assert len(caplog.messages) == 20
    now = 1.0
    sink.write(denied(), denied())
    assert len(caplog.messages) == 21
    assert caplog.messages[-1].endswith(" (980 more denials were not logged)")


def test_every_output_gets_every_record_and_losses_are_summed(tmp_path: Path) -> None:
    good, full = StreamAudit(tmp_path / "audit.jsonl"), StreamAudit(Path("/dev/full"))
    audit = Audit([full, good])
    audit.write(denied())
    audit.close()
    assert audit.lost == 1
    assert (tmp_path / "audit.jsonl").read_bytes().count(b"\n") == 1


async def test_records_are_queued_while_the_broker_is_unreachable() -> None:
    sink, sent = NatsAudit("audit"), []
    away = True

    async def publish(subject: str, data: bytes) -> None:
        if away:
            raise ConnectionError("away")
        sent.append((subject, json.loads(data)["cid"]))

    pump = asyncio.create_task(sink.pump(publish))
    for cid in (1, 2):
        sink.write(denied(cid=cid))
    await asyncio.sleep(0)  # the pump fails once
    away = False
    await sink.drain()
    assert sent == [("audit", 1), ("audit", 2)]
    assert sink.lost == 0
    pump.cancel()


async def test_unpublished_records_are_counted_when_there_is_no_time() -> None:
    sink = NatsAudit("audit")
    await sink.drain(0)
    assert sink.lost == 0
    sink.write(denied(), denied())
    await sink.drain(0)
    assert sink.lost == 2


async def test_records_beyond_the_queue_are_counted_as_lost() -> None:
    sink = NatsAudit("audit")
    for _ in range(MAX_PENDING + 3):
        sink.write(denied())
    assert sink.lost == 3
