"""Workers that hear one another through one broker, so that a request is answered although one of them is silent.

A member of a queue group that does not answer keeps its share of the requests (docs/nats-server.md fact 12).
So two workers, on two hosts where there are two, hear a copy of each request: the *guard* and the *deputy*. The
worker that answers says so in a message, for many requests at once; what nobody answered in time the guard
answers. The deputy answers nothing as long as it hears the guard: nats-server bears two answers to a request,
and more may make it never read from a service again (fact 4). When the guard falls silent the deputy
takes its place within :data:`SILENT_SECONDS` and still has the copies of what came meanwhile.

This module decides; it knows no clock and no NATS. Everything that it hears comes from one broker, whose word
counts for that broker's requests only.
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

TICK_SECONDS: Final = 0.1  # between two looks
HOLD_SECONDS: Final = 0.3  # until the guard answers; most requests are answered, and said to be, within 0.15
KEEP_SECONDS: Final = 1.3  # until a copy is dropped: clients give up at 2 s (fact 10)
SILENT_SECONDS: Final = 0.7  # without a word from a guard or deputy
_BEAT_SECONDS: Final = 0.2  # between words of guard and deputy
_IDLE_BEAT_SECONDS: Final = 1.0  # of all others, and without others
_GONE_SECONDS: Final = 3.5  # without a word from one of these
_PROOF_SECONDS: Final = 0.4  # in which the broker gave us our own words back and none of the silent one
_SYNCED_SECONDS: Final = 0.6  # how old the youngest word may be that came back
_LINGER_SECONDS: Final = 600.0  # nats-server may give a dead member its share for that long
_MAX_HELD: Final = 2048
_MAX_HELD_BYTES: Final = 4 * 1024 * 1024
_MAX_REPLY_BYTES: Final = 1024
_MAX_HEADERS_BYTES: Final = 1024  # of a request; longer ones are not looked at (request.py)
_MAX_MEMBERS: Final = 256
_MAX_WORD_BYTES: Final = 64 * 1024
_MAX_RECENT: Final = 20_000  # answered requests of a second
_MAX_TOKENS: Final = 1000  # answered requests in a word, each by its reply subject
_MAX_TOKEN_BYTES: Final = 60  # nats-server's have 30
_HEAD: Final = re.compile(rb"1 ([0-9a-f]{20}) ([0-9a-f]{8}) ([0-9a-f]{8}) ([nogdl]) (\d{1,12})")

HOST: Final = secrets.token_hex(4)
"""Names this process and those that it forks: a host, as far as one can fail alone."""


class Duty(StrEnum):
    """What a worker does about requests that others were asked to answer; the letter stands in its words."""

    NONE = "n"
    UNABLE = "o"  # cannot answer just now
    GUARD = "g"
    DEPUTY = "d"
    LEFT = "l"  # ends in order


_RANKS: Final = dict.fromkeys(Duty, 2) | {Duty.GUARD: 0}
_RANKS_IN_SILENCE: Final = _RANKS | {Duty.DEPUTY: 1}


class Held(msgspec.Struct, frozen=True):
    """A copy of a request that somebody else should answer, as it came."""

    reply: str
    data: bytes
    headers: bytes | None


_Kept = tuple[bytes, "bytes | None", float]
"""A copy as it is kept, and since when; no more work than this for what is answered in time."""


class _Member(msgspec.Struct):
    """Another worker, as it was last heard.

    Attributes:
        echoes: when the first and the last of our own words came back since.
    """

    id: str
    host: str
    server: str
    duty: Duty
    heard: float
    echoes: tuple[float, float] | None = None

    def is_silent(self, now: float) -> bool:
        """Return whether this worker says nothing although the broker passes on what others say."""
        limit = SILENT_SECONDS if self.duty in (Duty.GUARD, Duty.DEPUTY) else _GONE_SECONDS
        if now - self.heard <= limit or self.echoes is None:
            return False
        return self.echoes[1] - self.echoes[0] >= _PROOF_SECONDS


class Peers:
    """What one worker knows of the others at one broker.

    Attributes:
        duty: what it does now.
        able: whether it can answer; set by its owner.
        id: of this worker among the others.
    """

    def __init__(self, host: str = HOST, server: str = "") -> None:
        """Know nobody yet.

        Args:
            host: the same for workers that fail together.
            server: the id of the broker's server that this worker is connected to; one of a cluster may stand still.
        """
        self.duty = Duty.NONE
        self.able = True
        # The one that has been here longest guards: a new one displaces nobody.
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
        self._synced = float("-inf")  # when the last word was sent that came back
        self._barrier = 0  # copies before the echo of this word are of unknown age
        self._told = float("-inf")
        self._told_duty = Duty.NONE
        self._ticked: float | None = None
        self._linger = float("-inf")

    @property
    def watching(self) -> bool:
        """Whether copies of requests are wanted."""
        return self.duty in (Duty.GUARD, Duty.DEPUTY)

    @property
    def held(self) -> int:
        """Copies that are kept."""
        return len(self._held)

    # -- what is heard ------------------------------------------------------------------------

    def hear(self, data: bytes, now: float) -> None:
        """Take a word of any member, this one included; what is none is ignored."""
        if len(data) > _MAX_WORD_BYTES:
            return
        head, _, tokens = data.partition(b"\n")
        match = _HEAD.fullmatch(head)
        if match is None:
            return
        name, host, server, letter = [part.decode() for part in match.groups()[:4]]
        if name == self.id:
            self._hear_self(int(match[5]), now)
            return
        duty = Duty(letter)
        answered = tokens.split()
        for token in answered:
            self._drop(token)
        if len(self._recent[0]) < _MAX_RECENT:
            self._recent[0].update(answered)
        known = self._members.get(name)
        if duty is Duty.LEFT:
            self._members.pop(name, None)
        elif known is not None:
            known.duty, known.heard, known.echoes = duty, now, None
        elif len(self._members) < _MAX_MEMBERS:
            self._members[name] = _Member(name, host, server, duty, now)
            self._told = float("-inf")  # it should know of us, too

    def _hear_self(self, number: int, now: float) -> None:
        while self._sent and self._sent[0][0] <= number:
            self._synced = self._sent.popleft()[1]
        for member in self._members.values():
            first = now if member.echoes is None else member.echoes[0]
            member.echoes = (first, now)
        if number >= self._barrier:
            self._barrier = 0

    def hold(self, reply: bytes, data: bytes, headers: bytes | None, now: float) -> None:
        """Keep a copy of a request, unless it is answered already or there is no room."""
        held = self._held
        if reply in held or reply in self._recent[0] or reply in self._recent[1] or self._barrier:
            return
        if len(reply) > _MAX_REPLY_BYTES or (headers is not None and len(headers) > _MAX_HEADERS_BYTES):
            return  # no server asks so
        size = self._held_bytes + len(reply) + len(data) + len(headers or b"")
        if size <= _MAX_HELD_BYTES and len(held) < _MAX_HELD:
            held[reply] = (data, headers, now)
            self._held_bytes = size

    def is_answered(self, reply: str) -> bool:
        """Return whether another worker has answered a request of the last second or so."""
        token = reply.encode()
        return token in self._recent[0] or token in self._recent[1]

    def settle(self, reply: str) -> None:
        """Note that a request needs no other's answer: it is answered, or nobody could."""
        if not self._members and not self.watching:
            return
        token = reply.encode()
        if self.watching and not self._drop(token):
            self._recent[0].add(token)  # the copy comes yet
        if self._members and len(token) <= _MAX_TOKEN_BYTES and len(self._answered) < 8 * _MAX_TOKENS:
            self._answered.append(token)

    def _drop(self, token: bytes) -> bool:
        held = self._held.pop(token, None)
        if held is not None:
            self._held_bytes -= len(token) + len(held[0]) + len(held[1] or b"")
        return held is not None

    def shed(self) -> None:
        """Drop every copy: there is too much to do."""
        self._held.clear()
        self._held_bytes = 0

    # -- what is done -------------------------------------------------------------------------

    def tick(self, now: float) -> list[bytes]:
        """Take up the duty that is this worker's now, and return the words to be sent; called every tick."""
        if self._ticked is not None and now - self._ticked > _SYNCED_SECONDS:
            # We did not listen. What is held has been answered by others, what comes now may be as old.
            self.shed()
            self._barrier = self._number + 1
            for member in self._members.values():
                member.echoes = None
        self._ticked = now
        self._forget(now)
        self.duty = self._duty(now)
        if not self.watching and self._held:
            self.shed()
        words = []
        while len(self._answered) > _MAX_TOKENS:
            words.append(self._word(now, self._answered[:_MAX_TOKENS]))
            del self._answered[:_MAX_TOKENS]
        every = _BEAT_SECONDS if self.watching else _IDLE_BEAT_SECONDS
        if self._answered or self.duty is not self._told_duty or now - self._told >= every - TICK_SECONDS / 2:
            words.append(self._word(now, self._answered))
            self._answered.clear()
        return words

    def leave(self, now: float) -> list[bytes]:
        """Return the last words: what was answered, and that this worker is gone."""
        self.duty = Duty.LEFT
        self.shed()
        places = range(0, max(1, len(self._answered)), _MAX_TOKENS)
        words = [self._word(now, self._answered[place : place + _MAX_TOKENS]) for place in places]
        self._answered.clear()
        return words

    def due(self, now: float, count: int) -> list[Held]:
        """Remove and return the copies that nobody answered in time, oldest first, no more than ``count``."""
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

    def _word(self, now: float, tokens: list[bytes]) -> bytes:
        self._number += 1
        self._sent.append((self._number, now))
        self._told, self._told_duty = now, self.duty
        head = f"1 {self.id} {self._host} {self._server} {self.duty.value} {self._number}\n"
        return head.encode() + b" ".join(tokens)

    def _duty(self, now: float) -> Duty:
        if not self.able:
            return Duty.UNABLE
        others = [member for member in self._members.values() if member.duty is not Duty.UNABLE]
        heard = [member for member in others if not member.is_silent(now)]
        # Who guards goes on. Where somebody fell silent it may be a whole host, which shows late of those without a
        # duty: so the deputy is next, who is heard often.
        ranks = _RANKS if len(heard) == len(others) else _RANKS_IN_SILENCE
        live = [(ranks[member.duty], member.id, member.host, member.server) for member in heard]
        me = (ranks[self.duty], self.id, self._host, self._server)
        if not live:
            # Alone. The broker may still give requests to those that fell silent, and copies to nobody else.
            return Duty.GUARD if self._members or now < self._linger else Duty.NONE
        guard = min(*live, me)
        if guard == me:
            return Duty.GUARD
        rest = [member for member in (*live, me) if member != guard]
        deputy = min(rest, key=lambda member: (member[2] == guard[2], member[3] == guard[3], member))
        return Duty.DEPUTY if deputy == me else Duty.NONE

    def _forget(self, now: float) -> None:
        """Forget copies too old to be answered, and members that have been silent for long."""
        while self._held:
            token, held = next(iter(self._held.items()))
            if now - held[2] <= KEEP_SECONDS:
                break
            self._drop(token)
        if now - self._recent_since > 1:
            self._recent, self._recent_since = (set(), self._recent[0]), now
        for member in list(self._members.values()):
            if now - member.heard > _LINGER_SECONDS:
                del self._members[member.id]
