"""Questions of commands about what let sessions in, and the answers of hosts, as keys of the bucket.

A question (docs/interface.md#the-bucket-of-revocations) names credentials, and sessions that its host has no record of.
A host answers about exactly these, so the question bounds the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from broker_auth.audit.admissions import BY_RECORD, Credential
from broker_auth.natsio.bucket import REVOCATIONS, KeyValue
from broker_auth.policy.revocations import MAX_VALUE, RevocationKind
from broker_auth.settings.model import FLEET_ZONE
from broker_auth.times import MAX_TIME

SECONDS: Final = 60.0  # after which the server removes a question or an answer
MAX_PARTS: Final = 128  # of a question: about 100,000 sessions
MAX_TROUBLE: Final = 256  # characters
_FILL: Final = REVOCATIONS.max_value - 1024  # bytes of a part, beside its headers and what surrounds its lists
_QUESTION: Final = re.compile(r"question\.([0-9a-f]{16})\.(0|[1-9][0-9]{0,2})")
_ANSWER: Final = re.compile(r"answer\.([0-9a-f]{16})\.([0-9a-f]{1,64})\.(0|[1-9][0-9]{0,2})")

_Zone = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_Server = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
_ConnectionId = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Place(NamedTuple):
    """A session, by the zone of its broker, the id of its server and its connection id there."""

    zone: str
    server: str
    cid: int


class Known(StrEnum):
    """The answer of a host about one session, a letter each."""

    MATCHES = "m"
    OTHER = "o"
    UNKNOWN = "-"


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A value of a question: one or more of its credentials, or sessions of one zone.

    Attributes:
        parts: the number of values of the question.
        credentials: kinds and values.
        sessions: the connection ids by server id.
    """

    parts: Annotated[int, Meta(ge=1, le=MAX_PARTS)]
    credentials: tuple[tuple[RevocationKind, Annotated[str, Meta(min_length=1, max_length=MAX_VALUE)]], ...] = ()
    zone: _Zone = ""
    sessions: dict[_Server, tuple[_ConnectionId, ...]] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        """The sessions, in the order in which they are answered."""
        return tuple(Place(self.zone, server, cid) for server, cids in self.sessions.items() for cid in cids)


class HostAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The answer of a host to a part.

    Attributes:
        known: a letter of :class:`Known` for each session.
        since: the time of the oldest record that the host read, in Unix seconds; 0 if it read none.
        trouble: why it did not read all records; empty if it did.
    """

    known: Annotated[str, Meta(pattern=r"^[mo-]*\Z")] = ""
    since: Annotated[int, Meta(ge=0, le=MAX_TIME)] = 0
    trouble: Annotated[str, Meta(max_length=MAX_TROUBLE)] = ""


@dataclass(frozen=True, slots=True)
class ReadPart:
    """A part as it was read, with the id of its question and its number there."""

    question: str
    number: int
    part: Part


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """An answer as it was read."""

    question: str
    host: str
    number: int
    answer: HostAnswer


_decode_part: Final = msgspec.json.Decoder(Part).decode
_decode_answer: Final = msgspec.json.Decoder(HostAnswer).decode


def question_key(question: str, number: int) -> str:
    """Return the key of a part."""
    return f"question.{question}.{number}"


def answer_key(question: str, host: str, number: int) -> str:
    """Return the key of a host's answer to a part."""
    return f"answer.{question}.{host}.{number}"


def read_part(entry: KeyValue) -> ReadPart | None:
    """Return the part of a question in an entry; None if there is not one, or this version does not understand it."""
    match = _QUESTION.fullmatch(entry.key)
    if match is None or len(entry.value) > REVOCATIONS.max_value:
        return None
    try:
        part = _decode_part(entry.value)
    except (ValueError, RecursionError):
        return None
    if any(kind not in BY_RECORD for kind, _ in part.credentials) or int(match[2]) >= part.parts:
        return None
    return None if part.sessions and not part.zone else ReadPart(match[1], int(match[2]), part)


def read_answer(entry: KeyValue) -> ReadAnswer | None:
    """Return the answer in an entry; None if there is not a usable one."""
    match = _ANSWER.fullmatch(entry.key)
    if match is None or len(entry.value) > REVOCATIONS.max_value:
        return None
    try:
        return ReadAnswer(match[1], match[2], int(match[3]), _decode_answer(entry.value))
    except (ValueError, RecursionError):
        return None


def is_askable(place: Place) -> bool:
    """Return whether a question may contain a session: servers name themselves, and a compromised one anyhow."""
    try:
        msgspec.convert({place.server: [place.cid]}, dict[_Server, tuple[_ConnectionId, ...]])
    except msgspec.ValidationError:
        return False
    return True


def parts_of(credentials: Sequence[Credential], places: Iterable[Place]) -> tuple[list[Part], list[Place]]:
    """Return the parts of a question, and the sessions that do not fit into it; those of the fleet come first.

    No part if the credentials leave no room for any session.
    """
    contents: list[Mapping[str, object]] = [{"credentials": one} for one in _filled(credentials)]
    if len(contents) >= MAX_PARTS:
        return [], list(places)
    contents, left = _with_sessions(contents, places)
    return [msgspec.convert({"parts": len(contents), **one}, Part) for one in contents], left


def _filled(credentials: Sequence[Credential]) -> Iterable[list[Credential]]:
    """Yield the credentials in lists that fit into a part."""
    some: list[Credential] = []
    for one in credentials:
        if some and len(msgspec.json.encode([*some, one])) > _FILL:
            yield some
            some = []
        some.append(one)
    yield some


def _with_sessions(
    contents: list[Mapping[str, object]], places: Iterable[Place]
) -> tuple[list[Mapping[str, object]], list[Place]]:
    """Return contents with sessions added, and the sessions for which there is no room."""
    result = list(contents)
    rest = sorted(places, key=lambda place: (place.zone != FLEET_ZONE, place))
    while rest and len(result) < MAX_PARTS:
        zone, sessions, size, taken = rest[0].zone, dict[str, list[int]](), 0, 0
        for place in rest:
            size += len(str(place.cid)) + 1 + (0 if place.server in sessions else len(place.server) + 6)
            if place.zone != zone or size > _FILL:
                break
            sessions.setdefault(place.server, []).append(place.cid)
            taken += 1
        result.append({"zone": zone, "sessions": sessions})
        rest = rest[taken:]
    return result, rest
