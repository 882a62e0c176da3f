"""Framing of the NATS protocol: passes nats-py's parser one control line, or bytes of one payload, at a time.

nats-py's patterns allow line ends between the words of a control line, so what follows a line can change how the
line is parsed: ``HMSG a 7 1 1`` with the message ``0`` and a line end becomes an empty message. nats-py also does
not limit the size of lines and messages, and accepts headers that are larger than their message.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

if TYPE_CHECKING:
    from broker_auth.natsio.client import SecuredClient

CRLF: Final = b"\r\n"
_MAX_LINE_BYTES: Final = 256 * 1024  # the longest is INFO, a few KB
_MAX_HEADERS_BYTES: Final = 64 * 1024  # nats-py parses 1 MB of headers in up to 0.4 s, during which all else waits
# Possessive quantifiers, because a long line that does not match would be tried at each of its bytes.
_HMSG = re.compile(rb"HMSG[ \t]++\S++[ \t]++(\d{1,18})[ \t]++(?:(\S++)[ \t]++)?(\d{1,9})[ \t]++(\d{1,9})\r\n")
_MSG = re.compile(rb"MSG[ \t]++\S++[ \t]++(\d{1,18})[ \t]++(?:(\S++)[ \t]++)?()(\d{1,9})\r\n")


def message_line(data: bytes, position: int) -> re.Match[bytes] | None:
    """Match the control line of a message at ``position``, a byte of ``data``.

    Returns:
        Groups with the number of the subscription, the reply subject or None, the size of the headers (empty
        without headers) and the size of the whole message; None if there is no complete, correct line of a message.
    """
    return (_HMSG if data[position] == ord("H") else _MSG).match(data, position)


class FramedParser(Parser):
    """A parser that ends the connection to a server that sends malformed lines, or oversized lines or messages.

    A malicious server could otherwise exhaust the memory of this process.
    """

    def __init__(self, client: SecuredClient) -> None:
        super().__init__(client)
        self._max_message = client.max_message_bytes

    def reset(self) -> None:
        """Discard received data, for a new connection."""
        super().reset()
        self._rest = bytearray()  # the beginning of an incomplete line, or of an incomplete message for `take`
        self._rest_size = 0  # of the whole message; 0 for a line

    async def parse(self, data: bytes = b"") -> None:
        """Process the received bytes in order.

        Raises:
            ProtocolError: the data violates the protocol.
        """
        if self._rest:
            joined = self._join(data)
            if joined is None:
                return
            data = joined
        position, size, buffer = 0, len(data), self.buf
        while position < size:
            if self.state == AWAITING_MSG_PAYLOAD:
                end = position + self.needed + len(CRLF) - len(buffer)
            else:
                position = self.take(data, position)
                if position == size:
                    return
                end = data.find(CRLF, position) + len(CRLF)
                if end < len(CRLF):
                    self.keep(data[position:])
                    return
                if data[position] in b"HM":
                    self._check(message_line(data, position))
            await super().parse(data[position:end])
            if self.buf is not buffer:
                return  # nats-py has reset this parser: the connection has ended
            if buffer and self.state == AWAITING_CONTROL_LINE:
                raise self._violation()  # an unknown line
            position = end

    def take(self, data: bytes, position: int) -> int:
        """Take messages that begin at ``position``, before nats-py sees them; return the position after them.

        For an incomplete message, calls :meth:`keep` and returns the end of ``data``.
        """
        del data
        return position

    def keep(self, data: bytes, size: int = 0) -> None:
        """Store an incomplete message of ``size`` bytes, or an incomplete line, until the rest of it is received."""
        if not size and len(data) > _MAX_LINE_BYTES:
            raise self._violation()
        self._rest, self._rest_size = bytearray(data), size

    def _join(self, data: bytes) -> bytes | None:
        """Return the stored data and what was received after it; None, and store both, if they are incomplete.

        The cost depends on the received data only: a server could send a long line or message byte by byte.
        """
        rest, before = self._rest, len(self._rest)
        rest += data
        if self._rest_size:
            complete = len(rest) >= self._rest_size
        else:
            complete = rest.find(CRLF, before - 1) >= 0
            if not complete and len(rest) > _MAX_LINE_BYTES:
                raise self._violation()
        if not complete:
            return None
        self._rest = bytearray()
        return bytes(rest)

    def _check(self, line: re.Match[bytes] | None) -> None:
        if line is None or not int(line[3] or 0) <= int(line[4]) <= self._max_message:
            raise self._violation()
        if int(line[3] or 0) > _MAX_HEADERS_BYTES:
            raise self._violation()

    def _violation(self) -> ProtocolError:
        self.reset()
        return ProtocolError()
