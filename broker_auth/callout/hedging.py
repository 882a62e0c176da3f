"""Coordination of workers at one broker, so that a request is answered even if the worker that received it hangs.

A member of a queue group that does not answer keeps its share of the requests (docs/nats-server.md fact 12).
Therefore two workers, if possible on two hosts, receive a copy of each request: the *guard* and the *deputy*. Workers
report the requests they answered, many in one message. The guard answers requests that no worker answered in time.
The deputy does not answer while it receives messages of the guard: nats-server tolerates two answers to a request, but
more may make it stop reading from a service forever (fact 4). If the guard times out, the deputy takes over within
:data:`GUARD_TIMEOUT` and still has the copies of the requests received meanwhile.

This module only decides, without clock or NATS. All its input comes from one broker, and affects requests of that
broker only.
"""

from __future__ import annotations

import re
import secrets
import time
import zlib
from collections import deque
from enum import StrEnum
from typing import Final

import msgspec

TICK_SECONDS: Final = 0.1  # between two ticks
HOLD_SECONDS: Final = 0.3  # until the guard answers; most requests are answered and reported within 0.15
KEEP_SECONDS: Final = 1.3  # until a copy is dropped: clients give up at 2 s (fact 10)
GUARD_TIMEOUT: Final = 0.7  # seconds without a message from a guard or deputy
_HEARTBEAT_SECONDS: Final = 0.2  # between messages of guard and deputy
_IDLE_HEARTBEAT_SECONDS: Final = 1.0  # between messages of all other workers
_IDLE_TIMEOUT: Final = 3.5  # seconds without a message from one of these
_PROOF_SECONDS: Final = 0.4  # in which the broker delivered our own messages but none of the silent worker
_SYNCED_SECONDS: Final = 0.6  # maximum age of the latest own message that was delivered back
_LINGER_SECONDS: Final = 600.0  # nats-server may send a dead member its share for this long
_MAX_HELD: Final = 2048
_MAX_HELD_BYTES: Final = 4 * 1024 * 1024
_MAX_REPLY_BYTES: Final = 1024
_MAX_HEADERS_BYTES: Final = 1024  # of a request; longer headers are ignored (request.py)
_MAX_MEMBERS: Final = 256
_MAX_MESSAGE_BYTES: Final = 64 * 1024
_MAX_RECENT: Final = 20_000  # answered requests of a second
_MAX_TOKENS: Final = 1000  # answered requests in a message, each by its reply subject
_MAX_TOKEN_BYTES: Final = 60  # nats-server's have 30
_HEAD: Final = re.compile(rb"1 ([0-9a-f]{20}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([nogdl]) (\d{1,12})")

HOST: Final = secrets.token_hex(4)
"""Identifies this process and its forks: workers with the same value may fail together."""


class Duty(StrEnum):
    """The duty of a worker regarding requests that others received; the letter is used in messages."""

    NONE = "n"
    UNABLE = "o"  # currently cannot answer
    GUARD = "g"
    DEPUTY = "d"
    LEFT = "l"  # is shutting down


_RANKS: Final = dict.fromkeys(Duty, 2) | {Duty.GUARD: 0}
_RANKS_AFTER_TIMEOUT: Final = _RANKS | {Duty.DEPUTY: 1}


class Held(msgspec.Struct, frozen=True):
    """A copy of a request that another worker received."""

    reply: str
    data: bytes
    headers: bytes | None


_Kept = tuple[bytes, "bytes | None", float]
"""A stored copy and its arrival time; kept minimal, because most copies are never used."""


class _Member(msgspec.Struct):
    """Another worker, as of its last message.

    Attributes:
        echoes: when the first and the last of our messages were delivered back to us since then.
    """

    id: str
    host: str
    server: str
    duty: Duty
    last_seen: float
    echoes: tuple[float, float] | None = None

    def is_silent(self, now: float) -> bool:
        """Return whether this worker is silent although the broker delivers messages of others."""
        limit = GUARD_TIMEOUT if self.duty in (Duty.GUARD, Duty.DEPUTY) else _IDLE_TIMEOUT
        if now - self.last_seen <= limit or self.echoes is None:
            return False
        return self.echoes[1] - self.echoes[0] >= _PROOF_SECONDS


class Peers:
    """The view of a worker on the other workers at one broker.

    Attributes:
        duty: the current duty of this worker.
        able: whether this worker can answer; set by its owner.
        id: the id of this worker.
    """

    def __init__(self, host: str = HOST, server: str = "") -> None:
        """Create a view without other workers.

        Args:
            host: identical for workers that may fail together.
            server: the id of the server that this worker is connected to; one server of a cluster may hang.
        """
        self.duty = Duty.NONE
        self.able = True
        # Sorted by age: the oldest worker is the guard, so that a new one does not displace it.
        self.id = f"{int(time.time() * 1000):012x}{secrets.token_hex(4)}"
        self._host = host
        self._server = f"{zlib.crc32(server.encode()):08x}"
        self._members: dict[str, _Member] = {}
        self._held: dict[bytes, _Kept] = {}
        self._held_bytes = 0
        self._answered: list[bytes] = []
        self._recent: tuple[set[bytes], set[bytes]] = (set(), set())
        self._recent_since = 0.0
        self._number = 0
        self._sent: deque[tuple[int, float]] = deque(maxlen=64)
        self._synced = float("-inf")  # when the latest message that was delivered back had been sent
        self._barrier = 0  # until this message is delivered back, copies are of unknown age
        self._last_sent = float("-inf")
        self._last_duty = Duty.NONE
        self._ticked: float | None = None
        self._linger = float("-inf")

    @property
    def watching(self) -> bool:
        """Whether this worker needs copies of requests."""
        return self.duty in (Duty.GUARD, Duty.DEPUTY)

    @property
    def held(self) -> int:
        """Number of stored copies."""
        return len(self._held)

    # -- input --------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Process a message of any worker, including this one; ignore invalid messages."""
        if len(data) > _MAX_MESSAGE_BYTES:
            return
        head, _, tokens = data.partition(b"\n")
        match = _HEAD.fullmatch(head)
        if match is None:
            return
        name, host, server, letter = [part.decode() for part in match.groups()[:4]]
        if name == self.id:
            self._receive_own(int(match[5]), now)
            return
        duty = Duty(letter)
        answered = [token for token in tokens.split() if len(token) <= _MAX_TOKEN_BYTES]
        for token in answered:
            self._drop(token)
        if len(self._recent[0]) < _MAX_RECENT:
            self._recent[0].update(answered)
        known = self._members.get(name)
        if duty is Duty.LEFT:
            self._members.pop(name, None)
        elif known is not None:
            known.duty, known.last_seen, known.echoes = duty, now, None
        elif len(self._members) < _MAX_MEMBERS:
            self._members[name] = _Member(name, host, server, duty, now)
            self._last_sent = float("-inf")  # introduce this worker to it

    def _receive_own(self, number: int, now: float) -> None:
        while self._sent and self._sent[0][0] <= number:
            self._synced = self._sent.popleft()[1]
        for member in self._members.values():
            first = now if member.echoes is None else member.echoes[0]
            member.echoes = (first, now)
        if number >= self._barrier:
            self._barrier = 0

    def hold(self, reply: bytes, data: bytes, headers: bytes | None, now: float) -> None:
        """Store a copy of a request, unless it has been answered or there is no room."""
        held = self._held
        if reply in held or reply in self._recent[0] or reply in self._recent[1] or self._barrier:
            return
        if len(reply) > _MAX_REPLY_BYTES or (headers is not None and len(headers) > _MAX_HEADERS_BYTES):
            return  # not a request of a nats-server
        size = self._held_bytes + len(reply) + len(data) + len(headers or b"")
        if size <= _MAX_HELD_BYTES and len(held) < _MAX_HELD:
            held[reply] = (data, headers, now)
            self._held_bytes = size

    def is_answered(self, reply: str) -> bool:
        """Return whether another worker has answered a request of the last second or so."""
        token = reply.encode()
        return token in self._recent[0] or token in self._recent[1]

    def settle(self, reply: str) -> None:
        """Note that a request needs no other answer: it has been answered, or cannot be."""
        if not self._members and not self.watching:
            return
        token = reply.encode()
        if self.watching and not self._drop(token):
            self._recent[0].add(token)  # its copy has not arrived yet
        if self._members and len(token) <= _MAX_TOKEN_BYTES and len(self._answered) < 8 * _MAX_TOKENS:
            self._answered.append(token)

    def _drop(self, token: bytes) -> bool:
        held = self._held.pop(token, None)
        if held is not None:
            self._held_bytes -= len(token) + len(held[0]) + len(held[1] or b"")
        return held is not None

    def shed(self) -> None:
        """Drop every copy, under load."""
        self._held.clear()
        self._held_bytes = 0

    # -- output -------------------------------------------------------------------------------

    def tick(self, now: float) -> list[bytes]:
        """Update the duty of this worker, and return the messages to send; called every tick."""
        if self._ticked is not None and now - self._ticked > _SYNCED_SECONDS:
            # This process was suspended. Others have answered the stored copies, and new ones may be as old.
            self.shed()
            self._barrier = self._number + 1
            for member in self._members.values():
                member.echoes = None
        self._ticked = now
        self._forget(now)
        self.duty = self._duty(now)
        if not self.watching and self._held:
            self.shed()
        messages = []
        while len(self._answered) > _MAX_TOKENS:
            messages.append(self._message(now, self._answered[:_MAX_TOKENS]))
            del self._answered[:_MAX_TOKENS]
        every = _HEARTBEAT_SECONDS if self.watching else _IDLE_HEARTBEAT_SECONDS
        if self._answered or self.duty is not self._last_duty or now - self._last_sent >= every - TICK_SECONDS / 2:
            messages.append(self._message(now, self._answered))
            self._answered.clear()
        return messages

    def leave(self, now: float) -> list[bytes]:
        """Return the final messages: the last answers, and that this worker leaves."""
        self.duty = Duty.LEFT
        self.shed()
        places = range(0, max(1, len(self._answered)), _MAX_TOKENS)
        messages = [self._message(now, self._answered[place : place + _MAX_TOKENS]) for place in places]
        self._answered.clear()
        return messages

    def due(self, now: float, count: int) -> list[Held]:
        """Remove and return at most ``count`` copies that no worker answered in time, oldest first."""
        if self.duty is not Duty.GUARD or now - self._synced > _SYNCED_SECONDS:
            return []
        due: list[bytes] = []
        for token, held in self._held.items():
            if len(due) == count or now - held[2] < HOLD_SECONDS:
                break
            due.append(token)
        if due:
            self._linger = now + _LINGER_SECONDS
        taken = [Held(token.decode("utf-8", "replace"), *self._held[token][:2]) for token in due]
        for token in due:
            self._drop(token)
        return taken

    def _message(self, now: float, tokens: list[bytes]) -> bytes:
        self._number += 1
        self._sent.append((self._number, now))
        self._last_sent, self._last_duty = now, self.duty
        head = f"1 {self.id} {self._host} {self._server} {self.duty.value} {self._number}\n"
        return head.encode() + b" ".join(tokens)

    def _duty(self, now: float) -> Duty:
        if not self.able:
            return Duty.UNABLE
        others = [member for member in self._members.values() if member.duty is not Duty.UNABLE]
        responsive = [member for member in others if not member.is_silent(now)]
        # The guard stays. If a worker is silent, its whole host may have failed, which is noticed late for workers
        # without a duty; so the deputy is preferred, which sends messages often.
        ranks = _RANKS if len(responsive) == len(others) else _RANKS_AFTER_TIMEOUT
        live = [(ranks[member.duty], member.id, member.host, member.server) for member in responsive]
        me = (ranks[self.duty], self.id, self._host, self._server)
        if not live:
            # No other worker responds. The broker may still send requests to silent ones, and copies only to us.
            return Duty.GUARD if self._members or now < self._linger else Duty.NONE
        guard = min(*live, me)
        if guard == me:
            return Duty.GUARD
        rest = [member for member in (*live, me) if member != guard]
        deputy = min(rest, key=lambda member: (member[2] == guard[2], member[3] == guard[3], member))
        return Duty.DEPUTY if deputy == me else Duty.NONE

    def _forget(self, now: float) -> None:
        """Forget copies that are too old to be answered, and workers that have been silent for long."""
        while self._held:
            token, held = next(iter(self._held.items()))
            if now - held[2] <= KEEP_SECONDS:
                break
            self._drop(token)
        if now - self._recent_since > 1:
            self._recent, self._recent_since = (set(), self._recent[0]), now
        for member in list(self._members.values()):
            if now - member.last_seen > _LINGER_SECONDS:
                del self._members[member.id]
