"""Tapped messages come whole and in order, however the bytes are cut."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from broker_auth.callout.client import BrokerClient
from broker_auth.callout.parser import TappingParser

MESSAGES = st.lists(
    st.tuples(st.sampled_from([b"7", b"8"]), st.binary(max_size=60), st.none() | st.binary(min_size=1, max_size=20)),
    max_size=8,
)

Taken = tuple[bytes, bytes, bytes, bytes | None]


def pieces(wire: bytes, size: int) -> list[bytes]:
    return [wire[begin : begin + size] for begin in range(0, len(wire), size)]


def frame(sid: bytes, reply: bytes, data: bytes, headers: bytes | None) -> bytes:
    if headers is None:
        return b"MSG a.b %b %b%d\r\n%b\r\n" % (sid, reply and reply + b" ", len(data), data)
    sizes = b"%d %d" % (len(headers), len(headers) + len(data))
    return b"HMSG a.b %b %b%b\r\n%b%b\r\n" % (sid, reply and reply + b" ", sizes, headers, data)


async def parsed(*chunks: bytes, taken: list[Taken] | None = None) -> list[Taken]:
    """Return, and append to ``taken``, what two taps are given, each with the number of its subscription."""
    client = BrokerClient()
    taken = [] if taken is None else taken

    def tap(sid: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        taken.append((sid, reply, data, headers))

    for sid in (b"7", b"8"):
        client.taps[sid] = functools.partial(tap, sid)
    for chunk in chunks:
        await client._ps.parse(chunk)
    return taken


@given(
    MESSAGES,
    st.sampled_from([b"", b"inbox.1"]),
    st.lists(st.integers(0, 800), max_size=6),
    st.sampled_from([b"", b"+OK\r\n", b"PONG\r\n+OK\r\n", b"MSG a.b 9 4\r\nMSG \r\n"]),
)
@example([(b"7", b"", None), (b"7", b"", b"0")], b"", [], b"+OK\r\n")  # nats-py reads an empty message
async def test_messages_come_whole_and_in_order(
    messages: list[tuple[bytes, bytes, bytes | None]], reply: bytes, cuts: list[int], between: bytes
) -> None:
    wire = between.join(frame(sid, reply, data, headers) for sid, data, headers in messages)
    places = [0, *sorted(cuts), len(wire)]
    chunks = [wire[begin:end] for begin, end in itertools.pairwise(places)]
    assert await parsed(*chunks) == [(sid, reply, data, headers) for sid, data, headers in messages]


async def test_a_message_of_no_bytes_and_no_headers_is_handed_over() -> None:
    assert await parsed(b"HMSG a 7 r 0 0\r\n\r\nMSG a 8 0\r\n\r\n") == [(b"7", b"r", b"", None), (b"8", b"", b"", None)]


async def test_a_large_message_is_handed_over() -> None:
    data = b"x" * (2 * 1024 * 1024)
    wire = frame(b"7", b"r", data, b"NATS/1.0\r\n\r\n")
    assert await parsed(*pieces(wire, 30_000)) == [(b"7", b"r", data, b"NATS/1.0\r\n\r\n")]


@pytest.mark.parametrize(
    "line",
    [
        b"HMSG a 7 -5 10",
        b"HMSG a 7 11 10",
        b"HMSG a 7 1\n1 10",
        b"HMSG a 7\x0b1 10",
        b"HMSG a 7 10",
        b"MSG a 7 1_0",
        b"MSG a 7 +10",
        b"MSG a 7 b\rc 10",
        b"MSG a\n7 10",
        b"MXX a 7 10",
        b"MSG a 7 b c 10",
        b"MSG a 7 0000000010",
        b"MSG a 7 9999999999",
        b"MSG a 7 9000000",
        b"MSG a " + b"7" * 5000 + b" 10",
        b"MSG",
        b"H",
        b"",
    ],
)
@pytest.mark.parametrize("before", [b"", b"+OK\r\n", b"MSG a 7 1\r\n \r\n"], ids=["first", "later", "after a message"])
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
async def test_malformed_line_ends_the_connection_and_reaches_no_tap(line: bytes, before: bytes, cut: bool) -> None:
    wire = before + line + b"\r\n1234567890\r\n"
    taken: list[Taken] = []
    with pytest.raises(ProtocolError):
        await parsed(*pieces(wire, 1 if cut else len(wire)), taken=taken)
    assert [data for _, _, data, _ in taken] == [b" "] * before.startswith(b"MSG")


async def test_control_lines_without_end_are_bounded() -> None:
    with pytest.raises(ProtocolError):
        await parsed(*[b"INFO " + b"x" * 30_000] * 10)


async def test_received_bytes_are_not_examined_again_while_the_rest_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    examined: list[int] = []
    take = TappingParser.take

    def counting(self: TappingParser, data: bytes, position: int) -> int:
        examined.append(len(data))
        return take(self, data, position)

    monkeypatch.setattr(TappingParser, "take", counting)
    message = frame(b"7", b"r", b"x" * 1000, None)
    assert len(await parsed(*pieces(message, 1))) == 1
    line = message.index(b"\n") + 1
    assert examined == [1, line, len(message)]  # the first byte, the complete line, the complete message


@pytest.mark.parametrize("sid", [b"7", b"9"], ids=["tapped", "not tapped"])
async def test_large_headers_end_the_connection_before_nats_py_parses_them(sid: bytes) -> None:
    headers = b"NATS/1.0\r\n" + b"a:\r\n" * 300_000 + b"\r\n"
    with pytest.raises(ProtocolError):
        await parsed(*pieces(frame(sid, b"r", b"", headers), 30_000))
