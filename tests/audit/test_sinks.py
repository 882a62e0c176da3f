"""Records reach their outputs, survive what happens to those, and hold no secret."""

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
from broker_auth.audit.nats_sink import MAX_WAITING, NatsAudit
from broker_auth.audit.record import make_record
from broker_auth.audit.sinks import Audit, LogAudit
from broker_auth.errors import OperationError
from broker_auth.policy.decide import decide
from broker_auth.policy.request import AuthorizationRequest
from tests.audit.records import admitted, denied, refused
from tests.builders.clock import NOW
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, x509_policy
from tests.builders.requests import fleet, node, provisioner, request, system


def test_every_record_says_its_version_and_kind() -> None:
    assert json.loads(msgspec.json.encode(denied()))["v"] == 1
    assert json.loads(msgspec.json.encode(denied()))["event"] == "decision"
    assert json.loads(msgspec.json.encode(refused()))["v"] == 1
    assert json.loads(msgspec.json.encode(refused()))["event"] == "server_error"


@pytest.mark.parametrize("asked", [fleet(), provisioner(), system(), node(), provisioner(password="wr0ng-word")])
def test_a_stored_request_holds_no_secret(asked: object) -> None:
    assert isinstance(asked, type(fleet()))
    decision = decide(asked, x509_policy(), NOW)
    text = msgspec.json.encode(make_record(asked, decision, NOW, 100, with_request=True)).decode()
    for secret in (PASSWORD, SYSTEM_PASSWORD, "wr0ng-word"):
        assert secret not in text
    token = asked.connect_opts.auth_token
    assert not token or token.rsplit(".", 1)[1] not in text


def test_what_is_no_token_is_not_stored_at_all() -> None:
    asked = request(auth_token="a password in the wrong place")
    record = make_record(asked, decide(asked, x509_policy(), NOW), NOW, 100, with_request=True)
    assert "wrong place" not in msgspec.json.encode(record).decode()


def _long(value: object) -> object:
    """The request with each text in it made long, chains and tokens too."""
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
def test_whatever_a_broker_sends_a_record_is_short(asked: AuthorizationRequest, with_request: bool) -> None:
    """A broker in strange hands chooses every field, the server's own included."""
    long = msgspec.convert(_long(msgspec.to_builtins(asked)), AuthorizationRequest)
    record = make_record(long, decide(long, x509_policy(), NOW), NOW, 100, with_request=with_request)
    assert len(msgspec.json.encode(record)) < 12_000


def test_a_file_is_appended_to_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for record in (denied(), admitted()):
        sink = StreamAudit(path)
        sink.write(record)
        sink.close()
    assert [json.loads(line)["decision"] for line in path.read_text().splitlines()] == ["deny", "admit"]
    assert path.stat().st_mode & 0o007 == 0


def test_a_rotated_file_is_let_go(tmp_path: Path) -> None:
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


def test_a_file_that_cannot_be_opened_again_stays_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OperationError, match=r"audit file .* cannot be opened"):
        StreamAudit(tmp_path / "missing" / "audit.jsonl")


def test_a_full_disk_stops_nothing_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    sink = StreamAudit(Path("/dev/full"))
    for _ in range(1001):
        sink.write(denied())
    sink.close()
    assert sink.lost == 1001
    assert len(caplog.records) == 1


def test_records_written_together_are_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = StreamAudit(path)
    sink.write(denied(cid=1), refused(), admitted(cid=2))
    sink.write()
    sink.close()
    assert [json.loads(line)["cid"] for line in path.read_text().splitlines()] == [1, refused().cid, 2]


def test_records_go_into_a_pipe_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share it, and it keeps together what is written at once for a few kilobytes only."""
    reading, writing = os.pipe2(os.O_DIRECT)  # gives back each write by itself
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(writing, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        StreamAudit("-").write(denied(cid=1), denied(cid=2))
        assert [json.loads(pipe.read(4096))["cid"] for _ in range(2)] == [1, 2]


def _lost_by(write: Callable[[Path], None], path: Path) -> int | None:
    """How many records were lost by ``write``, in a process of its own: it limits what that may write."""
    process = multiprocessing.get_context("spawn").Process(target=write, args=(path,))
    process.start()
    process.join()
    return process.exitcode


def _fill_together(path: Path) -> None:
    """Write three records of which the second fits in part, then another."""
    sink = StreamAudit(path)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(msgspec.json.encode(denied(cid=1))) + 100, hard))
    sink.write(denied(cid=1), denied(cid=2), denied(cid=3))
    sink.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sink.write(denied(cid=4), denied(cid=5))
    sink.close()
    sys.exit(sink.lost)


def test_of_records_written_together_those_that_fit_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    assert _lost_by(_fill_together, path) == 2
    first, half, fourth, fifth = path.read_text().splitlines()
    assert len(half) == 99
    assert [json.loads(line)["cid"] for line in (first, fourth, fifth)] == [1, 4, 5]


def _fill(path: Path) -> None:
    """Write a record that fits in part only, one that does not fit, and one after there is room again."""
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


def test_half_a_record_does_not_spoil_the_next(tmp_path: Path) -> None:
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


def test_processes_that_share_a_file_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(path, cid)) for cid in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = [json.loads(line)["cid"] for line in path.read_text().splitlines()]
    assert sorted(found) == [1] * 600 + [2] * 600


def test_the_log_gets_denials_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for record in (admitted(), denied(), refused()):
        LogAudit().write(record)
    assert [entry.levelname for entry in caplog.records] == ["INFO", "WARNING", "WARNING"]


def test_every_output_gets_every_record_and_their_losses_add_up(tmp_path: Path) -> None:
    good, full = StreamAudit(tmp_path / "audit.jsonl"), StreamAudit(Path("/dev/full"))
    audit = Audit([full, good])
    audit.write(denied())
    audit.close()
    assert audit.lost == 1
    assert (tmp_path / "audit.jsonl").read_bytes().count(b"\n") == 1


async def test_records_wait_for_a_broker_that_is_away() -> None:
    sink, sent = NatsAudit("audit"), []
    away = True

    async def publish(subject: str, data: bytes) -> None:
        if away:
            raise ConnectionError("away")
        sent.append((subject, json.loads(data)["cid"]))

    pump = asyncio.create_task(sink.pump(publish))
    for cid in (1, 2):
        sink.write(denied(cid=cid))
    await asyncio.sleep(0)  # the pump tries once, in vain
    away = False
    await sink.drain()
    assert sent == [("audit", 1), ("audit", 2)]
    assert sink.lost == 0
    pump.cancel()


async def test_what_cannot_wait_is_counted() -> None:
    sink = NatsAudit("audit")
    for _ in range(MAX_WAITING + 3):
        sink.write(denied())
    assert sink.lost == 3
