"""A worker process: an event loop that serves, sends heartbeats to its supervisor, and drains on SIGTERM.

It is forked with everything it needs (:mod:`.spawn`) and reads no configuration. The supervisor starts, monitors and
replaces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from nats.aio.msg import Msg

from broker_auth.audit import advisories as server_errors
from broker_auth.audit.file import StreamAudit
from broker_auth.audit.nats_sink import DRAIN_SECONDS as AUDIT_SECONDS
from broker_auth.audit.nats_sink import NatsAudit
from broker_auth.audit.sinks import Audit, AuditSink, DenialLog, LogAudit
from broker_auth.callout.callout import make_callout
from broker_auth.callout.connection import BrokerConnection
from broker_auth.callout.draining import DRAIN_SECONDS
from broker_auth.callout.extra_subscriptions import ExtraSubscription
from broker_auth.callout.micro import MicroService
from broker_auth.callout.reports import ConnectionReports
from broker_auth.callout.service import Service, tls_contexts
from broker_auth.callout.skew import notable
from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.prepared import Prepared
from broker_auth.daemon.revocations import MAX_LINE, Follower
from broker_auth.daemon.spawn import end_with_parent
from broker_auth.hosts.counter_client import CounterClient
from broker_auth.logs import setup as logs
from broker_auth.natsio.subjects import AUTH_ERROR_SUBJECT, AUTH_QUEUE, AUTH_REQUEST_SUBJECT
from broker_auth.natsio.tls import tls_context
from broker_auth.settings.model import AuditKind, AuditSettings, ServingSettings
from broker_auth.settings.policy import build_policy

HEARTBEAT_SECONDS: Final = 1.0
_ORPHAN_SECONDS: Final = DRAIN_SECONDS + 2  # time to answer and to close the audit after the supervisor has ended
_MAX_UNSENT: Final = 1024 * 1024  # bytes for a broker beyond which audit records are delayed in favour of answers
_MAX_UNREAD: Final = 256 * 1024  # bytes of heartbeats buffered for a supervisor that does not read

try:  # the `fast` extra is optional
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
except ImportError:
    _new_loop = None


class Heartbeat(msgspec.Struct, kw_only=True):
    """The state of a worker, sent every second.

    Attributes:
        stats: counts since the worker started.
        brokers: whether the worker is subscribed, by broker.
        pending: requests received but not answered yet.
        oldest: age of the oldest pending request in seconds.
        audit_lost: number of lost audit records.
        audit_trouble: why audit records are currently being lost; empty if none are.
        log_lost: log lines dropped because stderr was not read in time.
        skews: seconds by which this host's clock is ahead of a server's, by ``broker/server``.
        waiting: nodes that wait to be provisioned, by broker, where they are known.
        asked: messages that reached them over the leaf link of an edge, by broker.
        certificates: when the certificate of the connected server expires, in Unix seconds, by broker.
        resident: resident memory in bytes, including shared pages; 0 if unknown.
        revocations: version of the revocations that the worker decides by.
    """

    stats: Snapshot
    brokers: dict[str, bool]
    pending: int = 0
    oldest: float = 0.0
    audit_lost: int = 0
    audit_trouble: str = ""
    log_lost: int = 0
    skews: dict[str, float] = {}
    waiting: dict[str, int] = {}
    asked: dict[str, int] = {}
    certificates: dict[str, float] = {}
    resident: int = 0
    revocations: str = ""


def prepare(settings: ServingSettings) -> Prepared:
    """Load everything that these settings name, once for all workers.

    Raises:
        BrokerAuthError: a file has changed since the settings were checked, or cannot be opened.
    """
    outputs = make_sinks(settings.audit)  # checks that a worker can open them
    outputs.close()
    reader = tls_context(settings.follower.tls) if settings.follower else None
    return Prepared(settings, build_policy(settings, settings.served.name), tls_contexts(settings), reader)


def work(prepared: Prepared, channel: socket.socket) -> None:
    """Serve until SIGTERM, or until the supervisor at the other end of the channel has ended."""
    logs.use_thread()
    end_with_parent(channel, _ORPHAN_SECONDS)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_Worker(prepared).run(channel))


def make_sinks(settings: AuditSettings, published: NatsAudit | None = None) -> Audit:
    """Open the configured sinks; ``published`` is the sink that publishes records on a subject.

    Raises:
        OperationError: the file cannot be opened.
    """
    sinks: list[AuditSink] = [] if published is None else [published]
    for output in settings.outputs:
        match output.kind:
            case AuditKind.LOG:
                sinks.append(LogAudit())
            case AuditKind.STDOUT:
                sinks.append(StreamAudit("-"))
            case AuditKind.FILE:
                assert output.path is not None  # file outputs have a path
                sinks.append(StreamAudit(output.path, settings.max_bytes, settings.keep))
            case AuditKind.NATS:
                pass
    if all(output.kind is not AuditKind.LOG for output in settings.outputs):
        sinks.append(DenialLog())
    return Audit(sinks)


class _Worker:
    """The running service of a worker; created inside its event loop."""

    def __init__(self, prepared: Prepared) -> None:
        settings = prepared.settings
        subject = settings.audit.subject
        self._published = None if subject is None else NatsAudit(subject)
        self._audit = make_sinks(settings.audit, self._published)
        self._callout = make_callout(settings, prepared.policy, self._audit)
        self._micro = MicroService(AUTH_REQUEST_SUBJECT, AUTH_QUEUE)
        # Queue group, so that only one worker records each refusal.
        extra_subscriptions = [ExtraSubscription(AUTH_ERROR_SUBJECT, self._on_server_error, AUTH_QUEUE)]
        extra_subscriptions += [ExtraSubscription(subject, self._on_micro_request) for subject in self._micro.subjects]
        self._reports = ConnectionReports(settings, prepared.policy.provisioning.gauge)
        extra_subscriptions += self._reports.extra_subscriptions
        self._counter = None if settings.counter_socket is None else CounterClient(settings.counter_socket)
        count = None if self._counter is None else self._counter.count
        self._service = Service(settings, self._callout, prepared.contexts, extra_subscriptions, count)
        self._stop = asyncio.Event()

    async def run(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._audit.reopen)
        reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_LINE)
        watched = [
            asyncio.create_task(self._send_heartbeats(writer), name="heartbeat"),
            asyncio.create_task(self._listen(reader, writer), name="supervisor"),
        ]
        if self._published is not None:
            watched.append(asyncio.create_task(self._published.pump(self._publish), name="audit to NATS"))
        tasks = [*watched, asyncio.create_task(self._send_heartbeat_when_ready(writer))]
        try:
            await self._service.run(self._stop, self._drain_published, watched)
        finally:
            self._send_heartbeat(writer)  # the final counts
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._counter is not None:
                await self._counter.close()
            self._audit.close()
            await _closed(writer)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Follow the supervisor's revocations, and stop when its end of the channel closes: it is gone."""
        callout = self._callout
        follower = Follower(callout.policy.revocations)
        while line := await reader.readline():
            current = follower.take(line)
            if current is not None:
                callout.policy = replace(callout.policy, revocations=current)
                self._send_heartbeat(writer)
            await asyncio.sleep(0)  # requests are answered between the parts of a long change
        self._stop.set()

    async def _send_heartbeats(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._send_heartbeat(writer)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _send_heartbeat_when_ready(self, writer: asyncio.StreamWriter) -> None:
        await self._service.wait_ready()
        self._send_heartbeat(writer)

    def _send_heartbeat(self, writer: asyncio.StreamWriter) -> None:
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            return  # the supervisor is busy or suspended; a later heartbeat contains the same and more
        connections = self._service.connections
        heartbeat = Heartbeat(
            stats=self._callout.stats.snapshot(),
            brokers={connection.name: connection.ready for connection in connections},
            pending=self._service.pending,
            oldest=self._service.oldest,
            audit_lost=self._audit.lost,
            audit_trouble=self._audit.trouble,
            log_lost=logs.lost(),
            skews=self._callout.skews.measured(time.monotonic()),
            waiting=self._reports.waiting.measured(time.monotonic()),
            asked=self._reports.waiting.asked(),
            certificates={item.name: item.certificate_expiry for item in connections if item.certificate_expiry},
            resident=_resident(),
            revocations=self._callout.policy.revocations.version,
        )
        # uvloop raises RuntimeError once the supervisor has ended, which `_listen` notices too.
        with contextlib.suppress(RuntimeError):
            writer.write(msgspec.json.encode(heartbeat) + b"\n")

    def _publisher(self) -> BrokerConnection:
        """Return the connection that publishes audit records."""
        return next(connection for connection in self._service.connections if not connection.role.is_outpost)

    async def _drain_published(self) -> None:
        """Publish the remaining audit records, without waiting for a broker that is gone."""
        if self._published is not None:
            await self._published.drain(AUDIT_SECONDS if self._publisher().subscribed.is_set() else 0)

    async def _publish(self, subject: str, data: bytes) -> None:
        connection = self._publisher()
        if not connection.subscribed.is_set() or connection.unsent > _MAX_UNSENT:
            raise ConnectionError(f"broker {connection.name} is unreachable, or reads slowly")
        connection.reply(subject, data)

    async def _on_server_error(self, connection: BrokerConnection, message: Msg) -> None:
        record = server_errors.read_advisory(
            message.data, datetime.now(UTC), zone=self._callout.zone, broker=connection.name
        )
        if record is not None:
            record.clock_skew = notable(self._callout.skews.of(connection.name, record.server))
            self._audit.write(record)

    async def _on_micro_request(self, connection: BrokerConnection, message: Msg) -> None:
        answer = self._micro.answer(message.subject, self._callout.stats.snapshot()) if message.reply else None
        if answer is not None:
            connection.reply(message.reply, answer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    try:
        writer.close()
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, RuntimeError, TimeoutError):
        return  # the supervisor has ended or does not read


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
