"""Answering for silent workers: several workers and a simulated broker with a simulated clock."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.callout.hedging import HOLD_SECONDS, KEEP_SECONDS, TICK_SECONDS, Duty, Peers

_numbers = count()


class Broker:
    """A simulated broker that delivers messages and copies of requests to every connected worker.

    Attributes:
        cut: workers that are cut off, although the broker does not know.
    """

    def __init__(self, *hosts: str) -> None:
        self.now = 1000.0
        self.workers = [Peers(host) for host in hosts]
        for worker in self.workers:
            worker.id = f"{next(_numbers):020x}"
        self.cut: set[Peers] = set()
        self.answers: list[tuple[Peers, str]] = []

    def run(self, seconds: float) -> None:
        """Let ``seconds`` pass on the simulated clock."""
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            for worker in self.workers:
                if worker not in self.cut:
                    self.tick(worker)

    def tick(self, worker: Peers) -> None:
        for message in worker.tick(self.now):
            self.say(message)
        for held in worker.due(self.now, 8):
            self.answer(worker, held.reply)

    def say(self, message: bytes) -> None:
        for worker in self.workers:
            if worker not in self.cut:
                worker.receive(message, self.now)

    def ask(self, name: str) -> str:
        """Deliver copies of a request; return its reply subject."""
        reply = f"$SYS._INBOX.x.{name}"
        for worker in self.workers:
            if worker.watching and worker not in self.cut:
                worker.hold(reply.encode(), b"request", None, self.now)
        return reply

    def answer(self, worker: Peers, reply: str) -> None:
        self.answers.append((worker, reply))
        worker.settle(reply)

    def duties(self) -> list[Duty]:
        return [worker.duty for worker in self.workers]


@pytest.fixture
def two() -> Broker:
    broker = Broker("aaaaaaaa", "bbbbbbbb")
    broker.run(2)
    return broker


def test_single_worker_watches_nothing() -> None:
    broker = Broker("aaaaaaaa")
    broker.run(5)
    assert broker.duties() == [Duty.NONE]
    assert not broker.workers[0].watching


def test_oldest_worker_guards_and_its_deputy_is_on_another_host() -> None:
    broker = Broker("aaaaaaaa", "aaaaaaaa", "bbbbbbbb", "bbbbbbbb")
    broker.run(2)
    assert broker.duties() == [Duty.GUARD, Duty.NONE, Duty.DEPUTY, Duty.NONE]


def test_deputy_is_connected_to_another_server_than_the_guard() -> None:
    broker = Broker("aaaaaaaa", "bbbbbbbb", "bbbbbbbb")
    broker.workers[2]._server = "ffffffff"
    broker.run(2)
    assert broker.duties() == [Duty.GUARD, Duty.NONE, Duty.DEPUTY]


def test_two_workers_of_a_host_watch_each_other() -> None:
    broker = Broker("aaaaaaaa", "aaaaaaaa")
    broker.run(2)
    assert broker.duties() == [Duty.GUARD, Duty.DEPUTY]


def test_answered_request_is_not_answered_again(two: Broker) -> None:
    reply = two.ask("one")
    two.answer(two.workers[1], reply)
    two.run(2)
    assert two.answers == [(two.workers[1], reply)]
    assert [worker.held for worker in two.workers] == [0, 0]


def test_guard_alone_answers_unanswered_requests_in_time(two: Broker) -> None:
    asked = two.now
    reply = two.ask("one")
    while not two.answers:
        two.run(TICK_SECONDS)
    assert two.answers == [(two.workers[0], reply)]
    assert HOLD_SECONDS <= two.now - asked < HOLD_SECONDS + 2 * TICK_SECONDS
    two.run(2)
    assert len(two.answers) == 1


def test_deputy_answers_within_a_second_after_the_guard_is_cut_off(two: Broker) -> None:
    guard, deputy = two.workers
    two.cut.add(guard)
    replies = []
    for number in range(20):
        replies.append(two.ask(str(number)))
        two.run(TICK_SECONDS)
    two.run(1)
    assert two.answers == [(deputy, reply) for reply in replies]
    assert deputy.duty is Duty.GUARD


@pytest.mark.parametrize(
    "hosts", [("aaaaaaaa", "aaaaaaaa", "bbbbbbbb"), ("aaaaaaaa", "aaaaaaaa", "bbbbbbbb", "bbbbbbbb")]
)
def test_deputy_answers_after_the_whole_host_of_the_guard_is_cut_off(hosts: tuple[str, ...]) -> None:
    broker = Broker(*hosts)
    broker.run(2)
    guard, idle, deputy, *_ = broker.workers
    broker.cut |= {guard, idle}
    reply = broker.ask("one")
    broker.run(1)
    assert broker.answers == [(deputy, reply)]
    broker.cut.clear()
    broker.run(5)
    assert sorted(broker.duties()) == sorted([Duty.GUARD, Duty.DEPUTY, *[Duty.NONE] * (len(hosts) - 2)])


def test_returning_guard_answers_nothing_stale_and_guards_again(two: Broker) -> None:
    guard, deputy = two.workers
    stale = two.ask("before")
    two.cut.add(guard)
    two.run(10)
    two.cut.clear()
    guard.hold(b"$SYS._INBOX.x.waited", b"request", None, two.now)  # received before its first tick
    messages = guard.tick(two.now)
    guard.hold(b"$SYS._INBOX.x.waited-too", b"request", None, two.now)  # and before its own message is delivered back
    for message in messages:
        two.say(message)
    two.run(1)
    assert [who for who, reply in two.answers if reply == stale] == [deputy]
    assert guard not in [who for who, _ in two.answers]
    assert two.duties() == [Duty.GUARD, Duty.DEPUTY]
    reply = two.ask("after")
    two.run(1)
    assert two.answers[-1] == (guard, reply)


def test_hanging_broker_triggers_no_answers_for_others(two: Broker) -> None:
    """It delays messages and answers alike, so silence proves nothing; a third answer could block it."""
    reply = two.ask("one")
    delayed = []
    for _ in range(12):
        two.now += TICK_SECONDS
        for worker in two.workers:
            delayed += worker.tick(two.now)
            for held in worker.due(two.now, 8):
                two.answer(worker, held.reply)
    assert {who for who, _ in two.answers} <= {two.workers[0]}
    for message in delayed:
        two.say(message)
    two.run(0.2)
    assert len(two.answers) <= 1, reply
    assert two.duties() == [Duty.GUARD, Duty.DEPUTY]


def test_guard_that_cannot_answer_yields_immediately(two: Broker) -> None:
    guard, deputy = two.workers
    reply = two.ask("one")
    two.run(2 * TICK_SECONDS)
    guard.able = False
    two.run(0.3)
    assert guard.duty is Duty.UNABLE
    assert two.answers == [(deputy, reply)]
    guard.able = True
    two.run(0.5)
    assert two.duties() == [Duty.DEPUTY, Duty.GUARD]


def test_leaving_worker_hands_over_its_duty(two: Broker) -> None:
    guard, deputy = two.workers
    reply = two.ask("one")
    guard.settle(reply)
    messages = guard.leave(two.now)
    two.workers.remove(guard)
    for message in messages:
        two.say(message)
    two.run(0.5)
    assert deputy.duty is Duty.NONE
    assert not two.answers, "its last answers are reported"


def test_copies_are_bounded_and_expire(two: Broker) -> None:
    deputy = two.workers[1]
    for number in range(5000):
        deputy.hold(b"$SYS._INBOX.x.%d" % number, b"r" * 4096, None, two.now)
    assert 1000 < deputy.held < 1024, "4 MiB, reply subjects included"
    deputy.hold(b"$SYS._INBOX.x.odd" + b"x" * 2000, b"r", None, two.now)
    deputy.hold(b"$SYS._INBOX.x.header", b"r", b"h" * 100_000, two.now)
    assert deputy.held < 1024, "not a request of a nats-server"
    two.cut.add(two.workers[0])
    two.answers.clear()
    two.now += KEEP_SECONDS + TICK_SECONDS
    deputy.tick(two.now)
    assert deputy.held == 0


def test_copy_of_an_already_answered_request_is_not_stored(two: Broker) -> None:
    guard = two.workers[0]
    guard.settle("$SYS._INBOX.x.mine")
    guard.hold(b"$SYS._INBOX.x.mine", b"request", None, two.now)
    assert guard.held == 0


@given(st.lists(st.binary(max_size=200) | st.just(b"1 " + b"0" * 20 + b" aaaaaaaa 00000000 g 5\nx y z")))
def test_invalid_messages_are_ignored(messages: list[bytes]) -> None:
    worker = Peers("aaaaaaaa")
    for number, message in enumerate(messages):
        worker.receive(message, float(number))
        worker.tick(float(number))
    assert worker.held == 0


def test_members_are_bounded() -> None:
    worker = Peers("aaaaaaaa")
    for number in range(2000):
        worker.receive(b"1 %020x bbbbbbbb 00000000 n 1\n" % number, 0.0)
    assert len(worker._members) == 256


def test_long_tokens_in_a_message_are_not_stored() -> None:
    worker = Peers("aaaaaaaa")
    long, short = "x" * 61, "x" * 60
    worker.receive(b"1 %020x bbbbbbbb 00000000 n 1\n%b %b" % (1, long.encode(), short.encode()), 0.0)
    assert (worker.is_answered(long), worker.is_answered(short)) == (False, True)
