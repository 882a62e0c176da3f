"""The part of commands: asking every host in the bucket what let sessions in, and collecting the answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from broker_auth.audit.admissions import Credential
from broker_auth.hosts.questions import (
    SECONDS,
    HostAnswer,
    Known,
    Part,
    Place,
    is_askable,
    parts_of,
    question_key,
    read_answer,
)
from broker_auth.hosts.registration import PREFIX as HOSTS
from broker_auth.hosts.registration import read_host
from broker_auth.natsio.bucket import CREATE, Bucket
from broker_auth.printable import printable

ANSWER_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.1
_AT_ONCE: Final = 64  # parts on their way to the bucket
_SHOWN: Final = 64  # characters of a host's name


@dataclass(slots=True)
class AskedHost:
    """A host that was asked.

    Attributes:
        name: for people.
        silent: whether it did not answer in time.
        since: how far back its records go, in Unix seconds; 0 if it has not read any.
        troubles: why it did not read all its records.
    """

    name: str
    silent: bool = False
    since: int = 0
    troubles: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, as far as hosts have answered it."""

    parts: dict[int, tuple[Place, ...]]
    answered: set[tuple[str, int]] = field(default_factory=set)

    def has_answered(self, host: str) -> bool:
        """Return whether a host has answered all of it."""
        return all((host, number) in self.answered for number in self.parts)


class Asking:
    """Questions about sessions to every host that is registered in the bucket and has not left.

    Attributes:
        matches: for each session that a host has a record of, whether one of the credentials let it in.
        hosts: the hosts that were asked last, by id.
        left_out: the number of sessions that did not fit into the last question.
    """

    def __init__(self, bucket: Bucket, matches: dict[Place, bool]) -> None:
        """Ask nothing yet.

        Args:
            bucket: the bucket of revocations.
            matches: what is known already; answers are added.
        """
        self.matches = matches
        self.hosts: dict[str, AskedHost] = {}
        self.left_out = 0
        self._bucket = bucket
        self._asked: dict[str, _Asked] = {}
        self._read_to = 0

    async def ask(self, credentials: Sequence[Credential], places: Iterable[Place]) -> None:
        """Ask about sessions, until each is known or every host has answered, or for :data:`ANSWER_SECONDS`.

        A host that did not answer in time before is asked again, but not waited for.

        Raises:
            BucketError: the bucket cannot be reached, or is full.
        """
        parts, left = parts_of(credentials, filter(is_askable, places))
        self.left_out = len(left)
        if not self._asked:
            self._read_to = (await self._bucket.state()).last
        question = secrets.token_hex(8)
        asked = self._asked[question] = _Asked({number: part.places for number, part in enumerate(parts)})
        for number in [number for number, places_of in asked.parts.items() if not places_of]:
            del asked.parts[number]
        if not asked.parts:
            return
        deadline = time.monotonic() + ANSWER_SECONDS
        await self._write(question, parts)
        late = {key for key, host in self.hosts.items() if host.silent}
        self.hosts = await self._registered()
        while True:
            await self._read()
            waiting = {key for key in self.hosts if not asked.has_answered(key)}
            if all(place in self.matches for some in asked.parts.values() for place in some):
                return
            if waiting <= late or time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL_SECONDS)
        for key in waiting:
            self.hosts[key].silent = True

    async def _write(self, question: str, parts: Sequence[Part]) -> None:
        values = [(question_key(question, number), msgspec.json.encode(part)) for number, part in enumerate(parts)]
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            await asyncio.gather(*(self._bucket.put(key, value, CREATE, SECONDS) for key, value in some))

    async def _registered(self) -> dict[str, AskedHost]:
        """Return the hosts in the bucket that have not left."""
        hosts = {entry.key.removeprefix(f"{HOSTS}."): read_host(entry) for entry in await self._bucket.entries(HOSTS)}
        return {key: AskedHost(printable(host.name, _SHOWN)) for key, host in hosts.items() if not host.left}

    async def _read(self) -> None:
        """Read the answers that were written since the last time."""
        last = (await self._bucket.state()).last
        while self._read_to < last:
            entries, read_to = await self._bucket.read(self._read_to, last)
            for entry in entries:
                if (read := read_answer(entry)) is not None and read.question in self._asked:
                    self._take(self._asked[read.question], read.host, read.number, read.answer)
            if read_to <= self._read_to:  # a replica lags behind
                return
            self._read_to = read_to

    def _take(self, asked: _Asked, host: str, number: int, answer: HostAnswer) -> None:
        """Take an answer, if it is about what was asked."""
        places = asked.parts.get(number)
        if places is None or len(answer.known) != len(places) or host not in self.hosts:
            return
        asked.answered.add((host, number))
        known = self.hosts[host]
        known.since = min(filter(None, (known.since, answer.since)), default=0)
        if answer.trouble:
            known.troubles.add(printable(answer.trouble, len(answer.trouble)))
        for place, letter in zip(places, answer.known, strict=True):
            if letter != Known.UNKNOWN:
                self.matches[place] = letter == Known.MATCHES or self.matches.get(place, False)
