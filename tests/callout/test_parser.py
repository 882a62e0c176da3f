"""Tapped messages come whole and in order, however the bytes are cut."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import Error as NatsError

from broker_auth.callout.client import BrokerClient

MESSAGES = st.lists(
    st.tuples(st.sampled_from([b"7", b"8"]), st.binary(max_size=60), st.none() | st.binary(min_size=1, max_size=20)),
    max_size=8,
)


def frame(sid: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bytes:
    if headers is None:
        return b"MSG a.b %b %b%d\r\n%b\r\n" % (sid, reply and reply + b" ", len(data), data)
    sizes = b"%d %d" % (len(headers), len(headers) + len(data))
    return b"HMSG a.b %b %b%b\r\n%b%b\r\n" % (sid, reply and reply + b" ", sizes, headers, data)


async def parsed(*chunks: bytes) -> list[tuple[bytes, bytes, bytes, bytes | None]]:
    """What two taps are given, each with the number of its subscription."""
    client = BrokerClient()
    taken: list[tuple[bytes, bytes, bytes, bytes | None]] = []

    def tap(sid: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        taken.append((sid, reply, data, headers))

    for sid in (b"7", b"8"):
        client.taps[sid] = functools.partial(tap, sid)
    for chunk in chunks:
        await client._ps.parse(chunk)
    return taken


@given(MESSAGES, st.sampled_from([b"", b"inbox.1"]), st.lists(st.integers(0, 800), max_size=6))
async def test_messages_come_whole_and_in_order(
    messages: list[tuple[bytes, bytes, bytes | None]], reply: bytes, cuts: list[int]
) -> None:
    wire = b"+OK\r\n".join(frame(sid, reply, data, headers) for sid, data, headers in messages)
    places = [0, *sorted(cuts), len(wire)]
    chunks = [wire[begin:end] for begin, end in itertools.pairwise(places)]
    assert await parsed(*chunks) == [(sid, reply, data, headers) for sid, data, headers in messages]


@pytest.mark.parametrize(
    "wire",
    [
        b"HMSG a 7 -5 10\r\n1234567890\r\n",
        b"HMSG a 7 11 10\r\n1234567890\r\n",
        b"MSG a 7 1_0\r\n1234567890\r\n",
        b"MXX a 7 10\r\n1234567890\r\n",
        b"MSG a 7 b c 10\r\n1234567890\r\n",
    ],
)
async def test_nonsense_reaches_no_tap_as_a_message_of_another_size(wire: bytes) -> None:
    try:
        taken = await parsed(wire)
    except (NatsError, ValueError):
        taken = []
    assert all(len(data) + len(headers or b"") == 10 for _, _, data, headers in taken)
