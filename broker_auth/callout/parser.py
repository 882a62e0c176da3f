"""Takes tapped messages off what was read, many at once; everything else is nats-py's parser's.

nats-py takes 8 µs for a message, 40 until its handler has it, of the 150 that a decision takes. The copies of
requests (:mod:`.copies`) would cost too much that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker_auth.natsio.framing import CRLF, FramedParser, message_line

if TYPE_CHECKING:
    from broker_auth.callout.client import BrokerClient

_MAX_MESSAGE_BYTES: Final = 1024 * 1024  # larger ones are left to nats-py's parser, which has the limit


class TappingParser(FramedParser):
    """A parser that hands over tapped messages as they are read."""

    def __init__(self, client: BrokerClient) -> None:
        super().__init__(client)
        self._client = client

    async def parse(self, data: bytes = b"") -> None:
        """Count that something was received, and process it."""
        self._client.reads += 1
        await super().parse(data)

    def take(self, data: bytes, position: int) -> int:
        """Hand over tapped messages, up to the first line of another kind."""
        taps, size = self._client.taps, len(data)
        while position < size and data[position] in b"HM" and (line := message_line(data, position)):
            sid, reply, headers_size, message_size = line.groups()
            tap = taps.get(sid)
            body = line.end()
            headers_end, end = body + int(headers_size or 0), body + int(message_size)
            if tap is None or headers_end > end or end - position > _MAX_MESSAGE_BYTES:
                break
            if end + len(CRLF) > size:
                self.keep(data[position:], end + len(CRLF) - position)
                return size
            tap(reply or b"", data[headers_end:end], data[body:headers_end] or None)
            position = end + len(CRLF)
        return position
