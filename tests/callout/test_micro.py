"""Answers of the NATS micro protocol (ADR-32); test_service.py requests them on a real server."""

from __future__ import annotations

import json

import pytest

from broker_auth.callout.micro import MicroService
from broker_auth.callout.stats import Snapshot

SERVICE = MicroService("$SYS.REQ.USER.AUTH", "broker-auth", "one")
COUNTED = Snapshot(latency=[3, 1, *[0] * 11], latency_sum=0.002, unanswered={"late": 2}, reply_failures=1)


def test_subjects_cover_every_verb_name_and_instance() -> None:
    verbs = ("PING", "INFO", "STATS")
    assert set(SERVICE.subjects) == {
        f"$SRV.{verb}{rest}" for verb in verbs for rest in ("", ".broker-auth", ".broker-auth.one")
    }


@pytest.mark.parametrize("subject", SERVICE.subjects)
def test_answer_has_the_type_of_the_request(subject: str) -> None:
    answer = SERVICE.answer(subject, COUNTED)
    assert answer
    document = json.loads(answer)
    assert document["type"] == f"io.nats.micro.v1.{subject.split('.')[1].lower()}_response"
    assert (document["name"], document["id"], document["metadata"]) == ("broker-auth", "one", {})


@pytest.mark.parametrize("subject", ["$SRV.PING.other", "$SRV.PING.broker-auth.two", "$SRV.EVIL", "PING", ""])
def test_other_subjects_are_not_answered(subject: str) -> None:
    assert SERVICE.answer(subject, COUNTED) is None


def test_statistics_are_complete_and_in_nanoseconds() -> None:
    answer = SERVICE.answer("$SRV.STATS", COUNTED)
    assert answer
    (endpoint,) = json.loads(answer)["endpoints"]
    assert (endpoint["num_requests"], endpoint["num_errors"]) == (6, 3)
    assert (endpoint["processing_time"], endpoint["average_processing_time"]) == (2_000_000, 500_000)


def test_idle_service_has_average_zero() -> None:
    answer = SERVICE.answer("$SRV.STATS", Snapshot())
    assert answer
    assert json.loads(answer)["endpoints"][0]["average_processing_time"] == 0


def test_instance_ids_are_unique() -> None:
    assert MicroService("s", "q").id != MicroService("s", "q").id
