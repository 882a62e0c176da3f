"""The hot path from messages to answers: requests are concluded together, and none depends on its neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec
import nacl.bindings
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_auth.audit.file import StreamAudit
from broker_auth.callout.callout import Callout, Exchange
from broker_auth.callout.reply import Decided, ReplyWriter
from broker_auth.callout.request import RequestReader, WireFault
from broker_auth.callout.stats import Stats
from broker_auth.natsio.nkey import NkeyKind, decode_seed, generate_seed, public_nkey
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified
from tests.builders.clock import NOW
from tests.builders.policies import changed, x509_policy
from tests.builders.requests import SERVER, fleet, gauge, node, provisioner
from tests.callout.test_reply import SEED, opened

ISSUER_SEED = decode_seed(SEED, NkeyKind.ACCOUNT)
SERVICE_SEED = bytes(range(32, 64))
SERVICE = nacl.bindings.crypto_scalarmult_base(SERVICE_SEED)
ODD = "odd.example.net"


def from_(asked: AuthorizationRequest, cid: int) -> AuthorizationRequest:
    """Return the same request by another connection."""
    return msgspec.structs.replace(
        asked,
        user_nkey=public_nkey(generate_seed(NkeyKind.USER)),
        client_info=msgspec.structs.replace(asked.client_info, id=cid),
    )


class AuditedCallout:
    """A callout with a new audit file."""

    def __init__(
        self, directory: Path, *, policy: Policy | None = None, writer: ReplyWriter | None = None, sealed: bool = False
    ) -> None:
        sealer = Sealer(SERVICE_SEED) if sealed else None
        self._file = directory / "audit.jsonl"
        self._file.unlink(missing_ok=True)
        self._audit = StreamAudit(self._file)
        writer = writer or ReplyWriter(ISSUER_SEED, sealer)
        self.callout = Callout(
            policy=policy or x509_policy(),
            reader=RequestReader(sealer),
            writer=writer,
            audit=self._audit,
            stats=Stats(),
            zone="fleet",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._audit.close()

    def answers(self, messages: Sequence[bytes], xkey: str | None = None, now: float = NOW) -> list[bytes | None]:
        """Return the answers to the messages that can be opened, as one batch."""
        requests = [self.callout.open(message, xkey) for message in messages]
        batch = [Exchange(request) for request in requests if request is not None]
        self.callout.conclude(batch, now)
        return [exchange.answer or None for exchange in batch]

    def exchange(self, message: bytes, broker: str) -> Exchange:
        """Return a message that came by the connection of ``broker``."""
        opened = self.callout.open(message, None)
        assert opened is not None
        return Exchange(opened, broker)

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the audit file."""
        self._audit.flush()
        return [json.loads(line) for line in self._file.read_text().splitlines()]


def claims(answer: bytes | None) -> dict[str, Any]:
    """Return the claims of an answer, after verifying its signature."""
    assert answer is not None
    return opened(answer)


def cut(message: bytes) -> bytes:
    """Return the message with another signature."""
    return message[:-4] + (b"AAAA" if message[-4:] != b"AAAA" else b"BBBB")


def test_nodes_of_one_batch_count_before_they_are_reported(tmp_path: Path) -> None:
    """The gauge has a limit of three, and one connection is reported."""
    asked = [from_(node(), cid) for cid in range(1, 6)] + [from_(provisioner(), 6), from_(fleet(), 7)]
    with AuditedCallout(tmp_path, policy=changed(x509_policy(), gauge=gauge(1))) as audited:
        audited.answers([SERVER.wire(one) for one in asked])
        codes = [record["code"] for record in audited.records()]
    assert codes == ["admitted"] * 2 + ["provisioning_full"] * 3 + ["admitted"] * 2


def test_failed_batch_counts_each_node_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch fails as a whole, then each request gets its own answer; one of three cannot be answered."""
    counts = gauge(0)
    with AuditedCallout(tmp_path, policy=changed(x509_policy(), gauge=counts)) as audited:
        write = ReplyWriter.write

        def fails(writer: ReplyWriter, decided: Sequence[Decided], now: float) -> None:
            if len(decided) > 1 or decided[0].request.client_info.id == 2:
                raise RuntimeError("cannot be signed")
            write(writer, decided, now)

        monkeypatch.setattr(ReplyWriter, "write", fails)
        answers = audited.answers([SERVER.wire(from_(node(), cid)) for cid in (1, 2, 3)])
    assert [bool(answer) for answer in answers] == [True, False, True]
    assert counts.connections("", SERVER.id, NOW) == 2


def test_each_request_gets_its_own_answer_and_record(tmp_path: Path) -> None:
    asked = [
        from_(one, cid)
        for cid, one in enumerate([fleet(), node(), node(name="a b"), provisioner(password="wrong"), fleet()], 1)
    ]
    with AuditedCallout(tmp_path) as audited:
        answers = [claims(answer) for answer in audited.answers([SERVER.wire(one) for one in asked])]
        assert [answer["sub"] for answer in answers] == [one.user_nkey for one in asked]
        errors = [answer["nats"].get("error") for answer in answers]
        assert errors == [None, None, "connection name not accepted", "wrong password", None]
        assert [(record["cid"], record["code"]) for record in audited.records()] == [
            (1, "admitted"),
            (2, "admitted"),
            (3, "node_name"),
            (4, "provisioner_password"),
            (5, "admitted"),
        ]
        assert audited.callout.stats.decisions == {
            ("verified_tls", "admitted"): 2,
            ("provisioning", "admitted"): 1,
            ("provisioning", "node_name"): 1,
            ("provisioner", "provisioner_password"): 1,
        }
        assert sum(audited.callout.stats.latency) == 5


def test_record_names_zone_and_broker(tmp_path: Path) -> None:
    with AuditedCallout(tmp_path) as audited:
        asked = [
            audited.exchange(SERVER.wire(from_(fleet(), cid)), broker) for cid, broker in ((1, "east"), (2, "west"))
        ]
        audited.callout.conclude(asked, NOW)
        assert [(r["cid"], r["zone"], r["broker"]) for r in audited.records()] == [
            (1, "fleet", "east"),
            (2, "fleet", "west"),
        ]


def test_unanswerable_requests_get_neither_answer_nor_record(tmp_path: Path) -> None:
    late = SERVER.wire(from_(fleet(), 2), now=NOW - 10)
    unsigned = cut(SERVER.wire(from_(fleet(), 3)))
    good = [SERVER.wire(from_(node(), cid)) for cid in (1, 4)]
    with AuditedCallout(tmp_path) as audited:
        first, second, third, fourth = audited.answers([good[0], late, unsigned, good[1]])
        assert second is third is None
        assert "jwt" in claims(first)["nats"]
        assert "jwt" in claims(fourth)["nats"]
        assert [record["cid"] for record in audited.records()] == [1, 4]
        assert audited.callout.stats.unanswered == {WireFault.LATE: 1, WireFault.SIGNATURE: 1}


def test_sealed_requests_get_sealed_answers_for_their_server(tmp_path: Path) -> None:
    with AuditedCallout(tmp_path, sealed=True) as audited:
        asked = [SERVER.sealed(from_(one, cid), SERVICE) for cid, one in enumerate([node(), fleet(), node(name="a b")])]
        answers = audited.answers([message for message, _ in asked], SERVER.xkey)
        errors = []
        for answer in answers:
            assert answer is not None
            errors.append(claims(SERVER.open(answer, SERVICE))["nats"].get("error"))
        assert errors == [None, None, "connection name not accepted"]


class Failing(ReplyWriter):
    """A writer that fails at one name; no known name does that."""

    def write(self, decided: Sequence[Decided], now: float) -> None:
        if any(one.request.connect_opts.name == ODD for one in decided):
            raise ValueError("odd")
        super().write(decided, now)


def test_failing_answer_does_not_affect_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with AuditedCallout(tmp_path, writer=Failing(ISSUER_SEED, None)) as audited:
        asked = [from_(node(name=name), cid) for cid, name in enumerate(["a", ODD, "c"], 1)]
        late = SERVER.wire(from_(fleet(), 4), now=NOW - 10)
        first, second, third, fourth = audited.answers([*(SERVER.wire(one) for one in asked), late])
        assert claims(first)["sub"] == asked[0].user_nkey
        assert second is fourth is None
        assert claims(third)["sub"] == asked[2].user_nkey
        assert [record["cid"] for record in audited.records()] == [1, 3]
        assert audited.callout.stats.reply_failures == 1
        assert audited.callout.stats.unanswered == {WireFault.LATE: 1}, "the batch is concluded again, and counted once"
        assert "no answer could be created" in caplog.text


class Broken(TokenVerifier):
    """A verifier that fails at one token; no known token does that."""

    def examine(self, raw: str) -> Verified | Rejected:
        if raw == ODD:
            raise RuntimeError("odd")
        return super().examine(raw)


def test_failing_decision_is_a_denial_and_does_not_affect_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with AuditedCallout(tmp_path, policy=replace(x509_policy(), tokens=Broken(TrustedKeys(issuers={})))) as audited:
        asked = [from_(one, cid) for cid, one in enumerate([fleet(), node(auth_token=ODD), fleet()])]
        answers = [claims(answer)["nats"] for answer in audited.answers([SERVER.wire(one) for one in asked])]
        assert [answer.get("error") for answer in answers] == [None, "internal error", None]
        assert [record["code"] for record in audited.records()] == ["admitted", "internal_error", "admitted"]
        assert "decision failed" in caplog.text


GOOD: dict[bool, tuple[bytes, str | None]] = {
    False: (SERVER.wire(fleet()), None),
    True: SERVER.sealed(fleet(), SERVICE),
}
FLIPS = st.tuples(st.integers(0, 3000), st.integers(1, 255))
MESSAGES = st.binary(max_size=300) | st.lists(FLIPS, min_size=1, max_size=4)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.lists(MESSAGES, max_size=4), st.lists(MESSAGES, max_size=4))
def test_good_request_is_answered_beside_any_others(
    tmp_path: Path, sealed: bool, before: list[Any], after: list[Any]
) -> None:
    good, xkey = GOOD[sealed]

    def message(chosen: bytes | list[tuple[int, int]]) -> bytes:
        """Return any bytes, or a good message with some of its bytes changed."""
        if isinstance(chosen, bytes):
            return chosen
        changed = bytearray(good)
        for at, bits in chosen:
            changed[at % len(changed)] ^= bits
        return bytes(changed)

    with AuditedCallout(tmp_path, sealed=sealed) as audited:
        messages = [*map(message, before), good, *map(message, after)]
        answered = [answer for answer in audited.answers(messages, xkey) if answer is not None]
        # Some changes have no effect: the same byte twice, or unused bits of the base64 of its signature.
        same, signed = sum(one == good for one in messages), good.rpartition(b".")[0]
        assert same <= len(answered) <= sum(one == good or one.rpartition(b".")[0] == signed for one in messages)
        assert len(audited.records()) == len(answered)
        assert audited.callout.stats.reply_failures == 0
