"""Counts the distinct nodes that wait by a token, in the bucket that all hosts share.

A node that was counted stays so. It is remembered here too, so that it comes back while the bucket cannot be reached;
nobody new is counted then. The claims for one token that arrive together are written together.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from broker_auth.errors import BrokerAuthError
from broker_auth.hosts.node_records import CountedToken, admissible, read_nodes, write_nodes
from broker_auth.natsio import bucket as buckets
from broker_auth.natsio.bucket import CREATE, NODES, Bucket, BucketError, ConflictError
from broker_auth.policy.counting import Counted
from broker_auth.secret import Secret

SECONDS: Final = 0.8  # for a claim: those who ask wait a little longer
MAX_REMEMBERED: Final = 200_000  # nodes, of about 100 bytes
_MAX_TOKENS: Final = 1024  # whose nodes are being counted
_ATTEMPTS: Final = 8  # when other hosts count nodes of the same token
_PROBE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 10.0  # for which a refused write is reported: nodes try again all the time
_log = logging.getLogger(__name__)


class NodeMemory:
    """The nodes that were counted, as far as this host has seen it; those of the tokens used last."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        """Remember ``most`` nodes, of all tokens together."""
        self._most = most
        self._nodes: OrderedDict[bytes, frozenset[bytes]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, token: CountedToken) -> frozenset[bytes]:
        """Return the counted nodes of a token that are remembered."""
        nodes = self._nodes.get(token.digest)
        if nodes is None:
            return frozenset()
        self._nodes.move_to_end(token.digest)
        return nodes

    def add(self, token: CountedToken, nodes: Collection[bytes]) -> frozenset[bytes]:
        """Remember counted nodes of a token; return all that are known of it."""
        before = self.of(token)
        known = before.union(nodes)
        if len(known) > len(before):
            self._nodes[token.digest] = known
            self._nodes.move_to_end(token.digest)
            self._count += len(known) - len(before)
            while self._count > self._most:
                self._count -= len(self._nodes.popitem(last=False)[1])
        return known


class NodeCounter:
    """The counter of a host.

    Attributes:
        trouble: why nodes are not counted; empty if they are.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None, memory: NodeMemory | None = None) -> None:
        """Connect to nothing yet; ``on_change`` is called when :attr:`trouble` has changed, or is known to be none."""
        self.trouble = ""
        self._memory = memory or NodeMemory()
        self._on_change = on_change
        self._bucket: Bucket | None = None
        self._probe = asyncio.Event()
        self._refused = ("", 0.0)
        self._known = asyncio.Event()  # whether the bucket can be reached
        self._waiting: dict[bytes, dict[bytes, list[asyncio.Future[Counted]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, urls: tuple[str, ...], seed: Secret, tls: ssl.SSLContext | None) -> None:
        """Keep a connection to the bucket until cancelled, to one address after the other."""
        for url in itertools.cycle(urls):
            try:
                client = await buckets.connect(url, seed, tls)
                try:
                    await self._follow(Bucket(client, NODES))
                finally:
                    self._bucket = None
                    await buckets.disconnect(client)
            except BrokerAuthError as error:
                self._report(str(error))
            await asyncio.sleep(_RETRY_SECONDS)

    def recall(self, token: CountedToken, node: bytes) -> Counted | None:
        """Return what is certain without the bucket: a node was counted, or as many others as the token is for.

        Both stay true. None if it has to be counted.
        """
        known = self._memory.of(token)
        if node in known:
            return Counted.YES
        return Counted.USED_UP if len(known) >= token.limit else None

    async def count(self, token: CountedToken, node: bytes) -> Counted:
        """Count a node of a token, if there is a place for it; UNKNOWN if the bucket does not answer in time."""
        if (known := self.recall(token, node)) is not None:
            return known
        waiting = self._waiting.get(token.digest)
        if waiting is None:
            if (self._bucket is None and self._known.is_set()) or len(self._waiting) >= _MAX_TOKENS:
                return Counted.UNKNOWN
            waiting = self._waiting[token.digest] = {}
            task = asyncio.create_task(self._serve(token))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        result: asyncio.Future[Counted] = asyncio.get_running_loop().create_future()
        waiting.setdefault(node, []).append(result)
        return await result

    async def _serve(self, token: CountedToken) -> None:
        """Count the nodes that wait for it, until none do."""
        try:
            while nodes := self._waiting[token.digest]:
                self._waiting[token.digest] = {}
                results = await self._count(token, list(nodes))
                for node, futures in nodes.items():
                    for future in futures:
                        if not future.done():
                            future.set_result(results[node])
        finally:
            del self._waiting[token.digest]

    async def _count(self, token: CountedToken, nodes: list[bytes]) -> dict[bytes, Counted]:
        """Count nodes, as many as there are places for; return what is then known of each."""
        bucket = None
        try:
            async with asyncio.timeout(SECONDS):
                await self._known.wait()  # a process that replaced another one connects first
                bucket = self._bucket
                if bucket is not None:
                    await self._write(bucket, token, nodes)
        except TimeoutError:  # it may not answer others either, so they do not wait for it
            if self._bucket is bucket:
                self._bucket = None
            self._known.set()
            self._probe.set()
        except BucketError as error:
            self._refuse(str(error))
        except Exception:
            _log.exception("nodes could not be counted")
        return {node: self.recall(token, node) or Counted.UNKNOWN for node in nodes}

    async def _write(self, bucket: Bucket, token: CountedToken, nodes: list[bytes]) -> None:
        """Write the nodes for which there are places, and remember all that are counted.

        Raises:
            BucketError: the bucket refuses, or cannot be reached.
        """
        for _ in range(_ATTEMPTS):
            entry = await bucket.get(token.key)
            held = read_nodes(entry, token)
            if held is None:
                self._refuse(f"bucket {NODES.name}: {token.key} cannot be read; update broker-auth")
                return
            # With what is remembered, in case the bucket was replaced by an older copy.
            known = self._memory.add(token, held)
            fresh = admissible(nodes, known, token.limit)
            if not fresh:
                return
            places = [*held, *sorted(known.difference(held)), *fresh]
            value, ttl = write_nodes(places, token, time.time())
            try:
                await bucket.put(token.key, value, entry.revision if entry else CREATE, ttl)
            except ConflictError:  # another host counts nodes of this token too
                continue
            self._memory.add(token, fresh)
            return

    async def _follow(self, bucket: Bucket) -> None:
        """Use a bucket as long as it answers.

        Raises:
            BucketError: it does not exist, or cannot be reached.
        """
        self._refused = ("", 0.0)  # by a connection that is gone
        while True:
            self._probe.clear()
            await bucket.state()
            self._bucket = bucket
            text, since = self._refused
            self._report(text if text and time.monotonic() - since < _REFUSED_SECONDS else "")
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await self._probe.wait()
            except TimeoutError:
                continue

    def _refuse(self, trouble: str) -> None:
        """Report for a while that something was not counted."""
        self._refused = (trouble, time.monotonic())
        self._report(trouble)

    def _report(self, trouble: str) -> None:
        if trouble != self.trouble or not self._known.is_set():
            self.trouble = trouble
            self._known.set()
            self._on_change()
