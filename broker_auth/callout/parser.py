"""Takes tapped messages off what was read, many at once; everything else is nats-py's parser's.

nats-py takes 8 µs for a message, 40 until its handler has it, of the 150 that a decision takes. The copies of
requests (:mod:`.peers`) would cost too much that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nats.protocol.parser import AWAITING_CONTROL_LINE

from broker_auth.natsio.client import BoundedParser

if TYPE_CHECKING:
    from broker_auth.callout.client import BrokerClient

_MAX_LINE_BYTES: Final = 4096
_MAX_MESSAGE_BYTES: Final = 1024 * 1024  # larger ones are left to nats-py's parser, which has the limit


class TappingParser(BoundedParser):
    """Hands over tapped messages as they are read."""

    def __init__(self, client: BrokerClient) -> None:
        super().__init__(client)
        self._client = client
        self._rest = b""  # the beginning of a tapped message

    async def parse(self, data: bytes = b"") -> None:
        if self.state == AWAITING_CONTROL_LINE and not self.buf:
            data = self._take(self._rest + data if self._rest else data)
        if data:
            await super().parse(data)

    def _take(self, data: bytes) -> bytes:
        """Hand over the tapped messages at the beginning; return what follows, if nats-py is to have it."""
        taps, position, size, self._rest = self._client.taps, 0, len(data), b""
        while position < size and data[position] in b"HM":
            end = data.find(b"\r\n", position, position + _MAX_LINE_BYTES)
            if end < 0:
                break
            words = data[position:end].split(b" ")
            tap = taps.get(words[2]) if len(words) > 3 else None
            if tap is None or not words[-1].isdigit():
                break
            with_headers = words[0] == b"HMSG"
            if len(words) - with_headers not in (4, 5) or (words[0] != b"MSG" and not with_headers):
                break
            body = headers_end = end + 2
            if with_headers:
                if not words[-2].isdigit():
                    break
                headers_end += int(words[-2])
            following = body + int(words[-1])
            if headers_end > following or following - position > _MAX_MESSAGE_BYTES:
                break
            if following + 2 > size:
                self._rest = data[position:]
                return b""
            reply = words[3] if len(words) == 5 + with_headers else b""
            tap(reply, data[headers_end:following], data[body:headers_end] if with_headers else None)
            position = following + 2
        return data[position:]
