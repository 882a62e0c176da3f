"""Framing of the NATS protocol: nats-py's parser is given one control line, or bytes of one payload, at a time.

nats-py's patterns allow line ends between the words of a control line, so what follows a line can change how the
line is read: ``HMSG a 7 1 1``, a message that is ``0`` and a line end, becomes an empty message. Nor does nats-py
bound a line or a message, or notice headers that are larger than their message.
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
_HMSG = re.compile(rb"HMSG[ \t]+\S+[ \t]+(\d{1,18})[ \t]+(?:(\S+)[ \t]+)?(\d{1,9})[ \t]+(\d{1,9})\r\n")
_MSG = re.compile(rb"MSG[ \t]+\S+[ \t]+(\d{1,18})[ \t]+(?:(\S+)[ \t]+)?()(\d{1,9})\r\n")


def message_line(data: bytes, position: int) -> re.Match[bytes] | None:
    """Match the control line of a message at ``position``, a byte of ``data``.

    Returns:
        The number of the subscription, the reply subject or None, the size of the headers, empty without any,
        and the size of the whole message as groups; None if no whole and correct line of a message is there.
    """
    return (_HMSG if data[position] == ord("H") else _MSG).match(data, position)


class FramedParser(Parser):
    """Ends the connection to a server that sends malformed lines, or more at once than any server has to.

    A hostile server could otherwise make this process run out of memory.
    """

    def __init__(self, client: SecuredClient) -> None:
        super().__init__(client)
        self._max_message = client.max_message_bytes

    def reset(self) -> None:
        """Forget what was received, for a new connection."""
        super().reset()
        self.rest = b""  # the beginning of a line, or of a message that `take` waits for

    async def parse(self, data: bytes = b"") -> None:
        """Process the received bytes in order.

        Raises:
            ProtocolError: no server sends this.
        """
        data, self.rest = self.rest + data if self.rest else data, b""
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
                    self._keep(data[position:])
                    return
                if data[position] in b"HM":
                    self._check(message_line(data, position))
            await super().parse(data[position:end])
            if self.buf is not buffer:
                return  # nats-py has reset this parser: the connection has ended
            if buffer and self.state == AWAITING_CONTROL_LINE:
                raise self._violation()  # the line was not understood
            position = end

    def take(self, data: bytes, position: int) -> int:
        """Take messages that begin at ``position``, before nats-py sees them; return the position behind them.

        A message that is not whole yet is put into ``rest``, and the end of ``data`` returned.
        """
        del data
        return position

    def _keep(self, line: bytes) -> None:
        if len(line) > _MAX_LINE_BYTES:
            raise self._violation()
        self.rest = line

    def _check(self, line: re.Match[bytes] | None) -> None:
        if line is None or not int(line[3] or 0) <= int(line[4]) <= self._max_message:
            raise self._violation()

    def _violation(self) -> ProtocolError:
        self.reset()
        return ProtocolError()
