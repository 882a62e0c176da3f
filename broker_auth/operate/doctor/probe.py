"""Probes a broker without a client library, which would hide the relevant details.

Determines what the server sends before TLS (INFO), what its TLS requires (from the handshake messages, readable up to
TLS 1.2), and the result of a CONNECT.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from broker_auth.errors import OperationError
from broker_auth.natsio.client import INFO_SECONDS
from broker_auth.printable import printable
from broker_auth.settings.model import ClientCertificates

MAX_INFO_BYTES: Final = 256 * 1024
CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 3.0  # longer than a client waits (fact 10)
_MAX_LINES: Final = 100  # before an answer to CONNECT
_SHOWN: Final = 256  # characters of a text that a server sent
_DEFAULT_PORT: Final = 4222
_HANDSHAKE: Final = 22
_CHANGE_CIPHER_SPEC: Final = 20
_CERTIFICATE: Final = 11
_CERTIFICATE_REQUEST: Final = 13


class Unreachable(OperationError):
    """The address does not answer, or not with the NATS protocol."""


class Info(msgspec.Struct):
    """The INFO that nats-server sends to every client, before TLS."""

    server_id: str = ""
    version: str = ""
    tls_required: bool = False
    jetstream: bool = False
    nonce: str = ""
    cluster: str = ""
    connect_urls: list[str] = []
    handshake_first: bool = False  # not part of INFO: true if the server sends nothing before TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """Properties of a listener's TLS, as seen by a client without a certificate.

    Attributes:
        client_certificates: whether it requires, verifies or does not request a client certificate.
        authorities: names (DER) of the CAs whose client certificates it accepts.
        certificate: the server's certificate (DER); None if the handshake failed earlier.
        readable: whether the handshake could be read; false if the server refuses TLS 1.2.
    """

    client_certificates: ClientCertificates
    authorities: tuple[bytes, ...]
    certificate: bytes | None
    readable: bool


class Verdict(StrEnum):
    """The result of a CONNECT."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    SILENT = "silent"  # no answer in time
    TLS_FAILED = "tls_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A :class:`Verdict`, nats-server's message, and the seconds since CONNECT."""

    verdict: Verdict
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An address of a broker."""

    url: str
    host: str = field(init=False)
    port: int = field(init=False)
    websocket: bool = field(init=False)

    tls_name: str = field(init=False)

    def __post_init__(self) -> None:
        """Parse the URL."""
        parts = urlsplit(self.url)
        object.__setattr__(self, "host", parts.hostname or "")
        object.__setattr__(
            self, "tls_name", self.host.removesuffix(".")
        )  # certificates contain names without the final dot
        object.__setattr__(self, "port", parts.port or _DEFAULT_PORT)
        object.__setattr__(self, "websocket", parts.scheme in ("ws", "wss"))


async def read_info(target: ProbeTarget, tls: ssl.SSLContext | None = None) -> Info:
    """Return the server's INFO; read it over ``tls`` if the server sends nothing before TLS.

    If that fails, the rest of INFO is empty.

    Raises:
        Unreachable: the address does not answer, or not with the NATS protocol.
    """
    async with _opened(target) as (reader, writer, info):
        if not info.handshake_first:
            return info
        try:
            await writer.start_tls(
                tls or _looking(), server_hostname=target.tls_name, ssl_handshake_timeout=CONNECT_SECONDS
            )
            async with asyncio.timeout(CONNECT_SECONDS):
                line = await reader.readline()
            return msgspec.structs.replace(_parsed(target, line), handshake_first=True)
        except (ssl.SSLError, OSError, TimeoutError, ValueError, Unreachable):
            return info  # the checks of TLS report why it fails


def _looking() -> ssl.SSLContext:
    """Return a TLS context that accepts any server, for inspection only."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def look_at_tls(target: ProbeTarget) -> TlsFacts:
    """Start a TLS handshake without a certificate, and read what the server sends.

    Raises:
        Unreachable: the address does not answer, or not with the NATS protocol.
    """
    context = _looking()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions encrypt the messages to be read
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    shake = context.wrap_bio(incoming, outgoing, server_hostname=target.tls_name)
    received, completed = b"", None
    async with _opened(target) as (reader, writer, _):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                while (completed := _step(shake)) is None and len(received) < MAX_INFO_BYTES:
                    writer.write(outgoing.read())
                    data = await reader.read(65536)
                    if not data:
                        break
                    received += data
                    incoming.write(data)
    return _facts(received, completed=completed is True)


async def attempt(
    target: ProbeTarget,
    tls: ssl.SSLContext | None,
    credentials: Mapping[str, Any],
    *,
    seconds: float = ANSWER_SECONDS,
) -> ProbeResult:
    """Connect once with the given credentials; close the connection after the answer.

    Args:
        target: the address.
        tls: the TLS context, None to connect without TLS.
        credentials: options of CONNECT in addition to the usual ones.
        seconds: how long to wait for an answer.

    Raises:
        Unreachable: the address does not answer, or not with the NATS protocol.
    """
    async with _opened(target) as (reader, writer, _):
        if tls is not None:
            try:
                await writer.start_tls(tls, server_hostname=target.tls_name, ssl_handshake_timeout=CONNECT_SECONDS)
            except (ssl.SSLError, OSError, TimeoutError) as error:
                return ProbeResult(verdict=Verdict.TLS_FAILED, message=_words(error))
        options = {"verbose": False, "pedantic": False, "lang": "doctor", "version": "1", "protocol": 1} | dict(
            credentials
        )
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                writer.write(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n")
                verdict, words = await _verdict(reader, writer)
        except TimeoutError:
            verdict, words = Verdict.SILENT, f"no answer within {seconds:g} s"
        except (
            ssl.SSLError,
            OSError,
            ValueError,
        ) as error:  # the line is too long, or TLS 1.3 refuses a missing certificate only now
            verdict, words = Verdict.TLS_FAILED, _words(error)
        return ProbeResult(verdict=verdict, message=words, seconds=time.perf_counter() - started)


async def _verdict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Verdict, str]:
    for _ in range(_MAX_LINES):
        if not (line := await reader.readline()):
            break
        word = line.strip().decode("utf-8", "replace")
        if word.startswith("-ERR"):
            return Verdict.REFUSED, printable(word.removeprefix("-ERR").strip(" '"), _SHOWN)
        if word == "PING":  # it does not mean that the login succeeded (fact 10)
            writer.write(b"PONG\r\n")
        if word == "PONG":
            return Verdict.ADMITTED, ""
    return Verdict.REFUSED, "connection closed"


@contextlib.asynccontextmanager
async def _opened(
    target: ProbeTarget,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Info]]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=MAX_INFO_BYTES)
    except (OSError, TimeoutError) as error:
        raise Unreachable(f"{target.url}: {_words(error)}") from error
    try:
        yield reader, writer, await _info(target, reader)
    finally:
        # Abort: a server that is still deciding would not answer the TLS shutdown.
        writer.transport.abort()


async def _info(target: ProbeTarget, reader: asyncio.StreamReader) -> Info:
    """Return INFO; if the server sends nothing, an INFO that says that it may expect TLS first."""
    try:
        async with asyncio.timeout(INFO_SECONDS):
            line = await reader.readline()
    except TimeoutError:
        return Info(tls_required=True, handshake_first=True)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{target.url}: {_words(error)}") from error
    return _parsed(target, line)


def _parsed(target: ProbeTarget, line: bytes) -> Info:
    try:
        verb, _, body = line.partition(b" ")
        if verb == b"INFO":
            return msgspec.json.decode(body, type=Info)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreachable(f"{target.url}: the endpoint is not a nats-server") from error
    raise Unreachable(f"{target.url}: the endpoint is not a nats-server")


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", "") or error) or type(error).__name__


# --- The handshake's messages (RFC 5246, sections 6.2 and 7.4)


def _step(shake: ssl.SSLObject) -> bool | None:
    """Run a step of the handshake; return whether it was completed, None if it needs more from the server."""
    try:
        shake.do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError:
        return False
    return True


def _facts(received: bytes, *, completed: bool) -> TlsFacts:
    messages = _handshake_messages(received)
    request = messages.get(_CERTIFICATE_REQUEST)
    if request is None:
        mode = ClientCertificates.NONE
    else:  # up to TLS 1.2 a server that requires a certificate ends the handshake without one
        mode = ClientCertificates.OPTIONAL if completed else ClientCertificates.REQUIRED
    return TlsFacts(
        client_certificates=mode,
        authorities=_authorities(request) if request else (),
        certificate=_first_certificate(messages[_CERTIFICATE]) if _CERTIFICATE in messages else None,
        readable=bool(messages),
    )


def _handshake_messages(received: bytes) -> dict[int, bytes]:
    """Return the messages of the server's first flight by type, up to the beginning of encryption."""
    flight = b""
    while len(received) >= 5:
        kind, length = received[0], struct.unpack(">H", received[3:5])[0]
        if kind == _CHANGE_CIPHER_SPEC:
            break
        flight += received[5 : 5 + length] if kind == _HANDSHAKE else b""
        received = received[5 + length :]
    messages = {}
    while len(flight) >= 4:
        length = int.from_bytes(flight[1:4], "big")
        messages[flight[0]] = flight[4 : 4 + length]
        flight = flight[4 + length :]
    return messages


def _authorities(request: bytes) -> tuple[bytes, ...]:
    """Return the names in a CertificateRequest, after certificate types and signature algorithms."""
    types = 1 + request[0]
    algorithms = types + 2 + int.from_bytes(request[types : types + 2], "big")
    rest = request[algorithms + 2 :]
    names = []
    while len(rest) >= 2:
        length = int.from_bytes(rest[:2], "big")
        names.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    return tuple(names)


def _first_certificate(message: bytes) -> bytes | None:
    length = int.from_bytes(message[3:6], "big")
    return message[6 : 6 + length] or None
