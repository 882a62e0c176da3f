"""Log and audit output never blocks a process; lost lines are counted."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_auth.audit.file import AuditFile, StreamAudit, rotated
from broker_auth.logs import setup as logs
from broker_auth.logs.formats import LogFormat
from broker_auth.logs.outlet import DescriptorTarget, ThreadOutlet, TryingOutlet
from tests.audit.records import denied
from tests.deadlines import HANG_SECONDS

LINE = b"x" * 200 + b"\n"
SOON = 20.0  # seconds; waiting for the reader, however shortly, for each of thousands of lines would take longer


class Pipe:
    """A pipe whose reader reads only on request."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)

    def read(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            data += os.read(self.reading, 65536)
        return data

    def hang_up(self) -> None:
        """Close the pipe, so that a waiting thread fails and does not outlive its test."""
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        if self.reading >= 0:
            os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_only_the_writer_thread_waits_for_the_reader(pipe: Pipe) -> None:
    outlet = ThreadOutlet(DescriptorTarget(pipe.writing), max_bytes=100 * len(LINE))
    began = time.monotonic()
    for _ in range(5000):
        outlet.write(LINE)
    assert time.monotonic() - began < SOON
    assert 4000 < outlet.lost < 5000
    kept = 5000 - outlet.lost
    reader = threading.Thread(target=lambda: pipe.read(b"end"))
    reader.start()
    assert outlet.flush(HANG_SECONDS)
    outlet.write(b"end")
    reader.join(HANG_SECONDS)
    outlet.close()
    assert outlet.lost == 5000 - kept, "the queued lines were written"


def test_close_does_not_wait_for_a_reader(pipe: Pipe) -> None:
    outlet = ThreadOutlet(DescriptorTarget(pipe.writing))
    for _ in range(100):
        outlet.write(LINE)
    began = time.monotonic()
    outlet.close(0.2)
    assert time.monotonic() - began < SOON
    assert outlet.lost >= 100 - 4096 // len(LINE) - 1
    pipe.hang_up()
    assert outlet._thread
    outlet._thread.join(HANG_SECONDS)


@pytest.mark.parametrize("again", [True, False], ids=["opened once more", "asked for room"])
def test_process_without_threads_drops_lines_that_a_full_pipe_refuses(
    pipe: Pipe, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not again:
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError))
    outlet = TryingOutlet(pipe.writing)
    began = time.monotonic()
    for _ in range(1000):
        outlet.write(LINE)
    assert time.monotonic() - began < SOON
    assert outlet.lost >= 1000 - 4096 // len(LINE) - 1
    assert fcntl.fcntl(pipe.writing, fcntl.F_GETFL) & os.O_NONBLOCK == 0, "other processes share this descriptor"
    os.read(pipe.reading, 65536)
    lost = outlet.lost
    outlet.write(b"again\n")
    assert outlet.lost == lost
    assert os.read(pipe.reading, 100).endswith(b"again\n")


def test_process_without_threads_drops_lines_that_a_full_socket_refuses() -> None:
    ours, theirs = socket.socketpair()  # as a service manager uses for standard error
    with ours, theirs:
        outlet = TryingOutlet(ours.fileno())
        began = time.monotonic()
        for _ in range(20_000):
            outlet.write(LINE)
        assert time.monotonic() - began < SOON
        assert outlet.lost > 1000
        assert ours.getblocking()
        theirs.close()
        outlet.write(LINE)  # a closed peer does not end the process
        outlet.abandon()


def test_lost_lines_are_reported_once_the_reader_returns(pipe: Pipe) -> None:
    handler = logs._Handler(TryingOutlet(pipe.writing), LogFormat.TEXT)
    record = logging.makeLogRecord({"msg": "y" * 500})
    for _ in range(50):
        handler.emit(record)
    lost = handler.outlet.lost
    assert lost > 0
    os.read(pipe.reading, 65536)
    handler.emit(record)
    assert f"{lost} log lines were lost".encode() in os.read(pipe.reading, 65536)


def test_unread_audit_pipe_blocks_nothing(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(pipe.writing), "w") as out:
        monkeypatch.setattr("sys.stdout", out)
        sink = StreamAudit("-")
        began = time.monotonic()
        for _ in range(20_000):
            sink.write(denied())
        assert time.monotonic() - began < SOON
        assert sink.lost > 0
        pipe.hang_up()
        sink.close()


# --- Rotation


def _append(path: Path, first: int, records: int, max_bytes: int, keep: int) -> None:
    """Append records, in a separate process."""
    sink = StreamAudit(path, max_bytes, keep)
    for cid in range(first, first + records):
        sink.write(denied(cid=cid))
        if cid % 10 == 0:
            sink.flush()
    sink.close()
    sys.exit(sink.lost)


def _fill(path: Path, processes: int, records: int, max_bytes: int, keep: int) -> None:
    context = multiprocessing.get_context("spawn")
    children = [
        context.Process(target=_append, args=(path, 1 + number * records, records, max_bytes, keep))
        for number in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * processes


def _cids(path: Path) -> list[int]:
    return [json.loads(line)["cid"] for file in rotated(path) for line in file.read_bytes().splitlines()]


def test_concurrent_rotation_by_processes_loses_no_record(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    _fill(path, processes=3, records=400, max_bytes=30_000, keep=50)
    assert len(rotated(path)) > 5
    assert sorted(_cids(path)) == list(range(1, 1201))
    assert all(file.stat().st_mode & 0o777 == 0o640 for file in rotated(path))


def test_at_most_the_configured_number_of_files_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    _fill(path, processes=1, records=500, max_bytes=10_000, keep=2)
    assert [file.name for file in rotated(path)] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert sum(file.stat().st_size for file in rotated(path)) < 3 * 11_000
    cids = _cids(path)
    assert cids == sorted(cids)
    assert cids[-1] == 500


def test_file_moved_by_another_program_is_reopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker_auth.audit.file._LOOK_SECONDS", 0.0)
    path = tmp_path / "audit.jsonl"
    file = AuditFile(path)
    file.write(b"1\n", 1)
    path.rename(tmp_path / "moved")
    file.write(b"2\n", 1)
    file.close()
    assert path.read_bytes() == b"2\n"


def test_unwritable_directory_prevents_rotation_but_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Path:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "audit.jsonl"
    file = AuditFile(path, max_bytes=10)
    monkeypatch.setattr(Path, "replace", refuse)
    assert [file.write(b"12345678\n", 1) for _ in range(5)] == [0] * 5
    file.close()
    assert path.read_bytes().count(b"\n") == 5
    assert caplog.text.count("cannot be rotated") == 1
