"""Connects to a broker by hand and looks, because a client library hides what matters here.

Three things are learnt: what the server says before TLS (INFO), what its TLS demands (the handshake's
own messages, readable up to TLS 1.2), and what becomes of one CONNECT.
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
    """Nothing that speaks NATS answers there."""


class Info(msgspec.Struct):
    """What nats-server says of itself to anybody, before TLS."""

    server_id: str = ""
    version: str = ""
    tls_required: bool = False
    jetstream: bool = False
    nonce: str = ""
    cluster: str = ""
    connect_urls: list[str] = []
    handshake_first: bool = False  # not said by the server: found out by its silence


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What a listener's TLS is like, as a client without a certificate meets it.

    Attributes:
        asks: whether it asks for a client certificate, which nats-server does only to demand one.
        authorities: names (DER) of the CAs it accepts client certificates of.
        certificate: the server's own certificate (DER); None if the handshake did not get that far.
        readable: whether the handshake could be read at all; not if the server refuses TLS 1.2.
    """

    asks: bool
    authorities: tuple[bytes, ...]
    certificate: bytes | None
    readable: bool


class Verdict(StrEnum):
    """What became of a CONNECT."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    SILENT = "silent"  # no answer in time
    TLS_FAILED = "tls_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A :class:`Verdict`, nats-server's words for it, and the seconds from CONNECT until then."""

    verdict: Verdict
    said: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a broker."""

    url: str
    host: str = field(init=False)
    port: int = field(init=False)
    websocket: bool = field(init=False)

    tls_name: str = field(init=False)

    def __post_init__(self) -> None:
        """Takes the URL apart."""
        parts = urlsplit(self.url)
        object.__setattr__(self, "host", parts.hostname or "")
        object.__setattr__(self, "tls_name", self.host.removesuffix("."))  # no certificate has the final dot
        object.__setattr__(self, "port", parts.port or _DEFAULT_PORT)
        object.__setattr__(self, "websocket", parts.scheme in ("ws", "wss"))


async def read_info(target: Target, tls: ssl.SSLContext | None = None) -> Info:
    """Return what the server says of itself; by ``tls`` where it says nothing before TLS.

    If that fails, the rest of INFO is empty.

    Raises:
        Unreachable: nothing there, or nothing that speaks NATS.
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
            return info  # why TLS fails is found out by those who look at it


def _looking() -> ssl.SSLContext:
    """A context for what is looked at, not trusted."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def look_at_tls(target: Target) -> TlsFacts:
    """Shake hands without a certificate, and read what the server sends.

    Raises:
        Unreachable: nothing there, or nothing that speaks NATS.
    """
    context = _looking()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later versions encrypt what is to be read
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    shake = context.wrap_bio(incoming, outgoing, server_hostname=target.tls_name)
    heard = b""
    async with _opened(target) as (reader, writer, _):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_SECONDS):
                while not _step(shake) and len(heard) < MAX_INFO_BYTES:
                    writer.write(outgoing.read())
                    data = await reader.read(65536)
                    if not data:
                        break
                    heard += data
                    incoming.write(data)
    return _facts(heard)


async def attempt(
    target: Target,
    tls: ssl.SSLContext | None,
    said: Mapping[str, Any],
    *,
    seconds: float = ANSWER_SECONDS,
) -> Outcome:
    """Connect once, saying exactly ``said`` in CONNECT; the connection is ended whatever the answer.

    Args:
        target: where.
        tls: None to stay in clear.
        said: CONNECT's options beyond the usual ones.
        seconds: how long to wait for an answer.

    Raises:
        Unreachable: nothing there, or nothing that speaks NATS.
    """
    async with _opened(target) as (reader, writer, _):
        if tls is not None:
            try:
                await writer.start_tls(tls, server_hostname=target.tls_name, ssl_handshake_timeout=CONNECT_SECONDS)
            except (ssl.SSLError, OSError, TimeoutError) as error:
                return Outcome(verdict=Verdict.TLS_FAILED, said=_words(error))
        options = {"verbose": False, "pedantic": False, "lang": "doctor", "version": "1", "protocol": 1} | dict(said)
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
        ) as error:  # too long a line; TLS 1.3 refuses a missing certificate only now
            verdict, words = Verdict.TLS_FAILED, _words(error)
        return Outcome(verdict=verdict, said=words, seconds=time.perf_counter() - started)


async def _verdict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[Verdict, str]:
    for _ in range(_MAX_LINES):
        if not (line := await reader.readline()):
            break
        word = line.strip().decode("utf-8", "replace")
        if word.startswith("-ERR"):
            return Verdict.REFUSED, printable(word.removeprefix("-ERR").strip(" '"), _SHOWN)
        if word == "PING":  # it does not mean that we are in (fact 10)
            writer.write(b"PONG\r\n")
        if word == "PONG":
            return Verdict.ADMITTED, ""
    return Verdict.REFUSED, "connection closed"


@contextlib.asynccontextmanager
async def _opened(
    target: Target,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Info]]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(target.host, target.port, limit=MAX_INFO_BYTES)
    except (OSError, TimeoutError) as error:
        raise Unreachable(f"{target.url}: {_words(error)}") from error
    try:
        yield reader, writer, await _info(target, reader)
    finally:
        # Not closed in order: a server that is still deciding would leave TLS's farewell unanswered.
        writer.transport.abort()


async def _info(target: Target, reader: asyncio.StreamReader) -> Info:
    """Return INFO; of a server that is silent for a while, only that it may wait for TLS."""
    try:
        async with asyncio.timeout(INFO_SECONDS):
            line = await reader.readline()
    except TimeoutError:
        return Info(tls_required=True, handshake_first=True)
    except (OSError, ValueError) as error:
        raise Unreachable(f"{target.url}: {_words(error)}") from error
    return _parsed(target, line)


def _parsed(target: Target, line: bytes) -> Info:
    try:
        verb, _, body = line.partition(b" ")
        if verb == b"INFO":
            return msgspec.json.decode(body, type=Info)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreachable(f"{target.url}: what answers there is no nats-server") from error
    raise Unreachable(f"{target.url}: what answers there is no nats-server")


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", "") or error) or type(error).__name__


# --- The handshake's messages (RFC 5246, sections 6.2 and 7.4)


def _step(shake: ssl.SSLObject) -> bool:
    """One step; True when there is nothing more to come."""
    try:
        shake.do_handshake()
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        return True
    return True


def _facts(heard: bytes) -> TlsFacts:
    messages = _handshake_messages(heard)
    request = messages.get(_CERTIFICATE_REQUEST)
    return TlsFacts(
        asks=request is not None,
        authorities=_authorities(request) if request else (),
        certificate=_first_certificate(messages[_CERTIFICATE]) if _CERTIFICATE in messages else None,
        readable=bool(messages),
    )


def _handshake_messages(heard: bytes) -> dict[int, bytes]:
    """Messages of the server's first flight by type, up to where encryption begins."""
    flight = b""
    while len(heard) >= 5:
        kind, length = heard[0], struct.unpack(">H", heard[3:5])[0]
        if kind == _CHANGE_CIPHER_SPEC:
            break
        flight += heard[5 : 5 + length] if kind == _HANDSHAKE else b""
        heard = heard[5 + length :]
    messages = {}
    while len(flight) >= 4:
        length = int.from_bytes(flight[1:4], "big")
        messages[flight[0]] = flight[4 : 4 + length]
        flight = flight[4 + length :]
    return messages


def _authorities(request: bytes) -> tuple[bytes, ...]:
    """The names in a CertificateRequest: behind certificate types and signature algorithms."""
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
