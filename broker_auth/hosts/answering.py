"""Answers questions of commands by the audit records of this host, beside the synchronization of revocations."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from broker_auth.audit.admissions import Admissions, find_admissions
from broker_auth.hosts.questions import MAX_TROUBLE, SECONDS, HostAnswer, Known, Part, ReadPart, answer_key, read_part
from broker_auth.natsio.bucket import CREATE, Bucket, BucketError, ConflictError, KeyValue
from broker_auth.printable import printable

SEARCH_SECONDS: Final = 2.0  # for one question; the command waits for 3
MAX_QUESTIONS: Final = 16  # that are not answered yet
MAX_BYTES: Final = 2 * 1024 * 1024  # of their parts: that of the largest question is half of it
_RETRY_SECONDS: Final = 5.0  # for the answers, after which no command waits for them
_AT_ONCE: Final = 64  # answers on their way to the bucket
_REMEMBERED: Final = 64  # questions that were answered
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Question:
    """A question, of which some parts may not have arrived yet."""

    parts: int
    taken: float
    bytes: int = 0
    known: dict[int, Part] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.known) == self.parts


class _Written(NamedTuple):
    """An answer on its way to the bucket."""

    key: str
    value: bytes


class Answering:
    """The questions that this host has to answer; one is searched at a time, in a thread that delays nothing else."""

    def __init__(self, host: str, audit_file: Callable[[str], Path | None]) -> None:
        """Search nothing yet.

        Args:
            host: the id of this host.
            audit_file: returns the audit file of a zone, None if records are not written to files.
        """
        self._host = host
        self._audit_file = audit_file
        self._open: dict[str, _Question] = {}
        self._answered: deque[str] = deque(maxlen=_REMEMBERED)
        self._search: threading.Thread | None = None
        self._answers: list[_Written] = []
        self._answer_until = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether there is something to do soon."""
        return self._search is not None or any(one.is_complete for one in self._open.values())

    def take(self, entries: Iterable[KeyValue]) -> None:
        """Take the parts of questions; ignore everything else, and questions beyond the limits."""
        self._forget_late(time.monotonic())
        for entry in entries:
            if (read := read_part(entry)) is not None and read.question not in self._answered:
                self._take(read, len(entry.value))

    def _take(self, read: ReadPart, size: int) -> None:
        known = self._open.get(read.question)
        if known is None and len(self._open) < MAX_QUESTIONS:
            known = self._open[read.question] = _Question(read.part.parts, time.monotonic())
        if known is None or known.parts != read.part.parts or read.number in known.known:
            return
        if sum(one.bytes for one in self._open.values()) + size <= MAX_BYTES:
            known.known[read.number] = read.part
            known.bytes += size

    async def step(self, bucket: Bucket) -> None:
        """Write what was found, and begin the next search; a bucket that refuses is up to the synchronization."""
        if self._search is not None and self._search.is_alive():
            return
        self._search = None
        while self._answers:
            written = [self._put(bucket, one) for one in self._answers[:_AT_ONCE]]
            if not all(await asyncio.gather(*written)):
                break
            del self._answers[:_AT_ONCE]
        if self._answers and time.monotonic() < self._answer_until:
            return
        self._answers = []
        self._forget_late(time.monotonic())
        complete = next((name for name, one in self._open.items() if one.is_complete), None)
        if complete is not None:
            self._begin(complete, self._open.pop(complete))

    def _begin(self, name: str, question: _Question) -> None:
        self._answered.append(name)
        thread = threading.Thread(target=self._run, args=(name, question), name="question", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system is out of threads: the command names this host as silent
            _log.warning("a question of a command is not answered: %s", error)
        else:
            self._search = thread

    def _run(self, name: str, question: _Question) -> None:
        """Search; in a thread."""
        try:
            self._answers = [
                _Written(answer_key(name, self._host, number), msgspec.json.encode(answer))
                for number, answer in self._answers_to(question)
            ]
            self._answer_until = time.monotonic() + _RETRY_SECONDS
        except Exception:  # the process synchronizes revocations, which matters more
            _log.exception("a question of a command is not answered")

    def _answers_to(self, question: _Question) -> Iterator[tuple[int, HostAnswer]]:
        """Yield the answer to each part with sessions, with an equal share of the time for each zone."""
        parts = {number: part for number, part in sorted(question.known.items()) if part.sessions}
        credentials = {one for part in question.known.values() for one in part.credentials}
        end = time.monotonic() + SEARCH_SECONDS
        zones = list(dict.fromkeys(part.zone for part in parts.values()))
        for place, zone in enumerate(zones):
            own = {number: part for number, part in parts.items() if part.zone == zone}
            sessions = {(one.server, one.cid) for part in own.values() for one in part.places}
            path = self._audit_file(zone)
            if path is None:
                result = Admissions(trouble="plugin.broker_auth.audit.output names no file")
            else:
                now = time.monotonic()
                deadline = now + max(0.0, end - now) / (len(zones) - place)
                result = find_admissions(path, zone, sessions, credentials, deadline)
            yield from ((number, _answer(part, result)) for number, part in own.items())

    async def _put(self, bucket: Bucket, one: _Written) -> bool:
        """Write an answer; return whether it is in the bucket."""
        try:
            await bucket.put(one.key, one.value, CREATE, SECONDS)
        except ConflictError:  # it was written, and the answer of JetStream was lost
            return True
        except BucketError as error:
            _log.debug("a question of a command cannot be answered yet: %s", error)
            return False
        return True

    def _forget_late(self, now: float) -> None:
        """Forget questions that nobody waits for any more."""
        for name in [name for name, one in self._open.items() if now - one.taken > SECONDS]:
            del self._open[name]


def _answer(part: Part, result: Admissions) -> HostAnswer:
    letters = {None: Known.UNKNOWN, True: Known.MATCHES, False: Known.OTHER}
    known = "".join(letters[result.matches.get((one.server, one.cid))] for one in part.places)
    return HostAnswer(known=known, since=result.since, trouble=printable(result.trouble, MAX_TROUBLE))
