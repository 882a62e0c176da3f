"""Questions and answers in the bucket: what is written can be read, everything else is ignored, and all is bounded."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from broker_auth.hosts.questions import (
    MAX_PARTS,
    Part,
    Place,
    answer_key,
    is_askable,
    parts_of,
    question_key,
    read_answer,
    read_part,
)
from broker_auth.natsio.bucket import REVOCATIONS, KeyValue
from broker_auth.policy.revocations import MAX_VALUE, RevocationKind

ID = "0123456789abcdef"
REVOKED = [(RevocationKind.TOKEN_ID, "t1"), (RevocationKind.SIGNER, "plugin.key")]
SESSION = Place("fleet", "N1", 7)


def stored(part: Part, number: int = 0) -> KeyValue:
    return KeyValue(question_key(ID, number), msgspec.json.encode(part), 1)


def test_question_is_read_as_it_was_written() -> None:
    places = [Place("edge", "N2", 5), Place("fleet", "N1", 7), Place("fleet", "N0", 2**63 - 1)]
    parts, left = parts_of(REVOKED, places)
    assert not left
    read = [read_part(stored(part, number)) for number, part in enumerate(parts)]
    assert [one.part for one in read if one] == parts
    assert [one.number for one in read if one] == list(range(len(parts)))
    assert list(itertools.chain(*(part.credentials for part in parts))) == REVOKED
    assert list(itertools.chain(*(part.places for part in parts))) == [places[2], places[1], places[0]]


def test_no_value_is_too_long_and_the_sessions_of_the_fleet_come_first() -> None:
    credentials = [(RevocationKind.SIGNER, "é" * MAX_VALUE) for _ in range(10)]
    many = [Place(zone, "N" * 56, 10**15 + cid) for zone in ("edge", "fleet") for cid in range(60_000)]
    parts, left = parts_of(credentials, many)
    assert len(parts) == MAX_PARTS
    for number, part in enumerate(parts):
        assert read_part(stored(part, number))
        assert len(msgspec.json.encode(part)) <= REVOCATIONS.max_value - 512  # and its headers
    asked = [place for part in parts for place in part.places]
    assert sorted(asked + left) == sorted(many)
    assert {place.zone for place in left} == {"edge", "fleet"}
    assert {place.zone for place in asked} == {"fleet"}


def test_credentials_that_leave_no_room_for_a_session_are_not_asked_about() -> None:
    credentials = [(RevocationKind.TOKEN_ID, f"{number:036}") for number in range(20_000)]
    assert parts_of(credentials, iter([SESSION])) == ([], [SESSION])


@pytest.mark.parametrize(
    ("place", "askable"),
    [
        (SESSION, True),
        (SESSION._replace(cid=-1), False),
        (SESSION._replace(cid=2**63), False),
        (SESSION._replace(server=""), False),
        (SESSION._replace(server="N\n"), False),
        (SESSION._replace(server="N" * 65), False),
        (SESSION._replace(server='N"'), False),
    ],
)
def test_session_as_a_server_claims_it_may_not_be_askable(place: Place, askable: bool) -> None:
    assert is_askable(place) == askable


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[" * 8000,
        b"{}",
        b'{"parts":0}',
        b'{"parts":129}',
        b'{"parts":1,"credentials":[["identity","up=jo"]]}',  # records do not tell
        b'{"parts":1,"credentials":[["token-id",""]]}',
        b'{"parts":1,"credentials":[["planet","t1"]]}',
        b'{"parts":1,"sessions":{"N1":[7]}}',
        b'{"parts":1,"zone":"../../etc/passwd","sessions":{"N1":[7]}}',
        b'{"parts":1,"zone":"fleet\\n","sessions":{"N1":[7]}}',
        b'{"parts":1,"zone":"fleet","sessions":{"N1":[-7]}}',
        b'{"parts":1,"zone":"fleet","sessions":{"N1":[99999999999999999999999999]}}',
        b'{"parts":1,"zone":"fleet","sessions":{"N1":["7"]}}',
        b'{"parts":1,"zone":"fleet","sessions":{"":[7]}}',
        b'{"parts":1,"later":1}',
        b'{"parts":1,"zone":"' + b"a" * REVOCATIONS.max_value + b'"}',
    ],
)
def test_other_values_are_not_questions(value: bytes) -> None:
    assert read_part(KeyValue(question_key(ID, 0), value, 1)) is None
    assert read_answer(KeyValue(answer_key(ID, "a1", 0), value, 1)) is None or value == b"{}"


@pytest.mark.parametrize(
    "key",
    [
        "question",
        f"question.{ID}",
        f"question.{ID}.1",  # of one part
        f"question.{ID}.00",
        f"question.{ID}.0.0",
        "question.x.0",
        f"question.{ID.upper()}.0",
        f"answer.{ID}.0",
        f"answer.{ID}.*.0",
        f"answer.{ID}.a1.0\n",
        f"record.{ID}",
    ],
)
def test_other_keys_are_not_questions_or_answers(key: str) -> None:
    (part, *_), _ = parts_of(REVOKED, [])
    assert read_part(KeyValue(key, msgspec.json.encode(part), 1)) is None
    assert read_answer(KeyValue(key, b'{"known":"m"}', 1)) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b'{"known":"x"}',
        b'{"known":1}',
        b'{"trouble":"' + b"a" * 300 + b'"}',
        b'{"since":"now"}',
        b'{"since":-1}',
        b'{"since":1e300}',
    ],
)
def test_other_values_are_not_answers(value: bytes) -> None:
    assert read_answer(KeyValue(answer_key(ID, "a1", 0), value, 1)) is None
