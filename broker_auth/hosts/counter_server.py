"""The counter's end of its socket. A connection can neither delay others nor make this process grow.

The workers of an edge may be taken over, so nothing is believed but the signature of a token.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.errors import OperationError
from broker_auth.hosts.counter_wire import MAX_LINE, CountAnswer, CountRequest, peer_of
from broker_auth.hosts.node_counter import NodeCounter
from broker_auth.hosts.node_records import CountedToken, node_hash
from broker_auth.policy.counting import Counted
from broker_auth.policy.model import Policy
from broker_auth.policy.subjects import is_node_name
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.verify import Verified, check_times

MAX_CONNECTIONS: Final = 1024  # of the workers of every zone, and of those that replace them on a reload
MAX_OF_PROCESS: Final = 4  # a worker has one, so that one of an edge cannot take the places of all others
AT_ONCE: Final = 64  # requests of a connection; further ones wait in the socket
_MAX_UNREAD: Final = 16 * 1024  # bytes of answers that a worker has not read
_BACKLOG: Final = 64
_MODE: Final = 0o600


def bind(path: Path) -> socket.socket:
    """Return a listening socket that only this user can connect to, in place of a socket that was left there.

    Changes the umask for a moment: only for a process without threads.

    Raises:
        OperationError: it cannot be made.
    """
    new = path.with_name(f"{path.name}~")
    listener = socket.socket(socket.AF_UNIX)
    try:
        if (path.is_symlink() or path.exists()) and not stat.S_ISSOCK(path.lstat().st_mode):
            raise OperationError(f"{path} is not a socket; remove it, because the service has its socket there")
        new.unlink(missing_ok=True)
        before = os.umask(0o777 & ~_MODE)
        try:
            listener.bind(str(new))
        finally:
            os.umask(before)
        listener.listen(_BACKLOG)
        new.rename(path)
    except OSError as error:
        listener.close()
        raise OperationError(f"{path} cannot be made: {error.strerror}; see plugin.broker_auth.revocations") from error
    except OperationError:
        listener.close()
        raise
    return listener


def verified_token(policy: Policy, token: str, node: str, now: float) -> CountedToken | None:
    """Return a token for a number of nodes by which this node may wait; None if it is not valid now, or for any number.

    Args:
        policy: the keys that sign tokens.
        token: the token.
        node: the name of the node.
        now: Unix seconds.
    """
    verified = policy.tokens.examine(token)
    if not isinstance(verified, Verified) or verified.purpose is not Purpose.PROVISIONING:
        return None
    bounds = verified.bounds
    if bounds is None or bounds.max_nodes is None or not is_node_name(node) or not bounds.allow_name(node):
        return None
    try:
        check_times(
            verified,
            now,
            leeway=policy.token_leeway,
            allow_non_expiring=policy.provisioning.allow_non_expiring_tokens,
        )
    except TokenRejected:
        return None
    return CountedToken(digest=verified.digest, limit=bounds.max_nodes, expires=verified.expires)


class CounterServer:
    """A server for the workers of this host."""

    def __init__(self, counter: NodeCounter, policy: Policy, clock: Callable[[], float] = time.time) -> None:
        """Serve nobody yet; ``policy`` has the keys by which tokens are verified, ``clock`` returns Unix seconds."""
        self._counter = counter
        self._policy = policy
        self._clock = clock
        self._connections: dict[asyncio.StreamWriter, int] = {}  # with the process at the other end

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_unix_server(self._on_connection, sock=listener, limit=MAX_LINE)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()
            for writer in tuple(self._connections):
                writer.transport.abort()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = process = _process_of(writer)
        counting: set[asyncio.Task[None]] = set()
        try:
            of_process = list(self._connections.values()).count(process) if process else 1
            if len(self._connections) <= MAX_CONNECTIONS and of_process <= MAX_OF_PROCESS:
                await self._read(reader, writer, counting)
        except (OSError, ValueError, RecursionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # not a worker, or it has ended; affects this connection only
        except asyncio.CancelledError:
            pass  # this process ends; before Python 3.12 asyncio would log it as an error
        finally:
            del self._connections[writer]
            for task in counting:
                task.cancel()
            writer.transport.abort()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counting: set[asyncio.Task[None]]
    ) -> None:
        """Answer requests until the worker has ended; return if it does not read.

        Raises:
            ValueError: it sent something else.
        """
        decoder = msgspec.json.Decoder(CountRequest)
        places = asyncio.Semaphore(AT_ONCE)
        while writer.transport.get_write_buffer_size() <= _MAX_UNREAD:
            request = decoder.decode(await reader.readuntil())
            await self._answer(request, writer, counting, places)
            await asyncio.sleep(0)  # one request of each connection, round robin

    async def _answer(
        self,
        request: CountRequest,
        writer: asyncio.StreamWriter,
        counting: set[asyncio.Task[None]],
        places: asyncio.Semaphore,
    ) -> None:
        """Answer what is certain; start to count a node, once there is a place."""
        token = verified_token(self._policy, request.token, request.node, self._clock())
        if token is None:
            _send(writer, CountAnswer(request.id, Counted.UNKNOWN))
            return
        node = node_hash(request.node)
        if (known := self._counter.recall(token, node)) is not None:
            _send(writer, CountAnswer(request.id, known))
            return
        await places.acquire()

        async def count(number: int) -> None:  # keeps no token
            try:
                _send(writer, CountAnswer(number, await self._counter.count(token, node)))
            finally:
                places.release()

        task = asyncio.create_task(count(request.id))
        counting.add(task)
        task.add_done_callback(counting.discard)


def _process_of(writer: asyncio.StreamWriter) -> int:
    """Return the id of the process at the other end; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        peer = peer_of(writer.get_extra_info("socket"))
        return peer.process if peer else 0
    return 0


def _send(writer: asyncio.StreamWriter, answer: CountAnswer) -> None:
    if not writer.is_closing():
        writer.write(msgspec.json.encode(answer) + b"\n")
