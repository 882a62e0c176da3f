"""Key-value buckets of the service, in the callout account of the fleet (docs/nats-server.md fact 33).

A bucket is a stream, as NATS ADR-8 describes it, so that ``nats kv`` shows it. This client needs permission for one
stream's messages and nothing else, no consumer: it asks the stream's leader where the stream ends, and reads up to
there from any replica.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from broker_auth.errors import OperationError
from broker_auth.natsio.client import SecuredClient
from broker_auth.natsio.subjects import BUCKET_INBOX
from broker_auth.printable import printable
from broker_auth.secret import Secret

MAX_REPLICAS: Final = 5  # JetStream's
CREATE: Final = 0  # the revision of a key that does not exist
_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 5
_API: Final = "$JS.API."
_BATCH: Final = 500  # messages of one answer
_BATCH_BYTES: Final = 4 * 1024 * 1024
_MIN_TTL: Final = 1  # second
_MAX_TTL: Final = 100 * 365 * 86_400.0  # seconds; nats-server removes at once what ends after 2262
_NO_STREAM: Final = 10059  # JetStream's err_codes
_NO_MESSAGE: Final = 10037
_WRONG_REVISION: Final = 10071
_DUPLICATES: Final = 100_000_000  # ns; the shortest window, because no message has an id


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A bucket and its limits.

    Attributes:
        max_bytes: of all values with their keys, on disk.
        max_value: bytes of a value with its headers.
    """

    name: str
    max_bytes: int
    max_value: int

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return f"KV_{self.name}"

    @property
    def prefix(self) -> str:
        """The beginning of the subjects of its keys."""
        return f"$KV.{self.name}."

    @property
    def published(self) -> tuple[str, ...]:
        """The subjects that its user publishes on: a missing one is denied, such as to delete, purge or restore."""
        api = ("STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.MSG.GET", "DIRECT.GET")
        return (f"{self.prefix}>", *(f"{_API}{verb}.{self.stream}" for verb in api))

    @property
    def followed(self) -> tuple[str, ...]:
        """The requests of a reader, which follows it and changes nothing; each with one answer but the last."""
        return tuple(f"{_API}{verb}.{self.stream}" for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"))

    def of_key(self, key: str) -> tuple[str, ...]:
        """Return the subjects of a user that writes one key and reads it."""
        return (f"{self.prefix}{key}", f"{_API}DIRECT.GET.{self.stream}.{self.prefix}{key}")

    def config(self, replicas: int) -> dict[str, Any]:
        """Return the configuration of its stream, for JetStream's API."""
        return {
            "name": self.stream,
            "subjects": [f"{self.prefix}>"],
            "retention": "limits",
            "storage": "file",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "max_bytes": self.max_bytes,
            "max_msg_size": self.max_value,
            "max_age": 0,
            "discard": "new",
            "duplicate_window": _DUPLICATES,
            "deny_delete": True,
            "deny_purge": True,
            "allow_rollup_hdrs": False,
            "allow_direct": True,
            "allow_msg_ttl": True,
        }


REVOCATIONS: Final = BucketSpec("BROKER_AUTH_REVOCATIONS", max_bytes=128 * 1024 * 1024, max_value=8 * 1024)
# Not in the bucket of revocations, which nothing that nodes cause may fill.
NODES: Final = BucketSpec("BROKER_AUTH_NODES", max_bytes=64 * 1024 * 1024, max_value=32 * 1024)
# Apart from the one above: whoever writes here is not trusted, and cannot delay or fill that one.
OUTPOSTS: Final = BucketSpec("BROKER_AUTH_OUTPOSTS", max_bytes=8 * 1024 * 1024, max_value=8 * 1024)


def ttl_until(ends: float | None, now: float) -> float | None:
    """Return the seconds until a value is not needed; None if it stays, also if that is a century away.

    Args:
        ends: when nobody needs it any more, in Unix seconds; None for never.
        now: Unix seconds.
    """
    return None if ends is None or ends - now > _MAX_TTL else ends - now


class BucketError(OperationError):
    """A bucket cannot be read or written just now."""


class MissingBucketError(BucketError):
    """A bucket does not exist."""


class ConflictError(BucketError):
    """A key has another revision than the writer expected."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """The value of a key, and the revision that wrote it: its place in the stream."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class BucketState:
    """The state of a bucket, as its leader knows it.

    Attributes:
        created: identifies the stream: another one of the same name was created at another time.
        last: the last revision of any key.
    """

    created: str
    last: int


class Bucket:
    """A bucket, through a connection of the service's user or of a reader."""

    def __init__(self, client: Client, spec: BucketSpec, api: str = _API) -> None:
        """Ask for nothing yet.

        Args:
            client: the connection.
            spec: the bucket.
            api: the prefix of JetStream's requests, which is another one in the account of a reader.
        """
        self.spec = spec
        self._client = client
        self._api_prefix = api

    async def state(self) -> BucketState:
        """Return where the bucket ends.

        Raises:
            MissingBucketError: it does not exist.
            BucketError: it cannot be reached.
        """
        answer = await self._api("STREAM.INFO", None)
        state, created = answer.get("state"), answer.get("created")
        last = state.get("last_seq") if isinstance(state, dict) else None
        if not isinstance(created, str) or not isinstance(last, int):
            raise BucketError(f"bucket {self.spec.name}: its state is not known; see nats-server's log")
        return BucketState(created, last)

    async def read(self, after: int, last: int) -> tuple[list[KeyValue], int]:
        """Return some entries that are later than a revision, oldest first, and the revision up to which that is all.

        Args:
            after: the revision up to which everything was read.
            last: where the bucket ends.

        Raises:
            BucketError: it cannot be reached.
        """
        entries = await self._batch(after + 1)
        if entries:
            return entries, entries[-1].revision
        newest = await self._get({"last_by_subj": f"{self.spec.prefix}>"})
        if newest is None or newest.revision <= after:
            return [], last  # the last entries have expired
        return [], after  # the replica that answered lags behind

    async def get(self, key: str) -> KeyValue | None:
        """Return the entry of a key, as the leader knows it; None if it does not exist.

        Raises:
            BucketError: the bucket cannot be reached.
        """
        return await self._get({"last_by_subj": self.spec.prefix + key})

    async def get_own(self, key: str) -> KeyValue | None:
        """Return the entry of a key for a user that may read no other one; it may be an older one for a moment.

        Raises:
            BucketError: the bucket cannot be reached.
        """
        subject = f"{self._api_prefix}DIRECT.GET.{self.spec.stream}.{self.spec.prefix}{key}"
        try:
            return self._entry(await self._client.request(subject, b"", timeout=_SECONDS))
        except (NatsError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def entries(self, prefix: str) -> list[KeyValue]:
        """Return the entries of the keys below a prefix, as the leader knows them; for a few.

        Raises:
            BucketError: the bucket cannot be reached.
        """
        matches: list[KeyValue] = []
        subject = f"{self.spec.prefix}{prefix}.>"
        while entry := await self._get({"seq": matches[-1].revision + 1 if matches else 1, "next_by_subj": subject}):
            matches.append(entry)
        return matches

    async def put(self, key: str, value: bytes, expected: int, ttl: float | None = None) -> int:
        """Write a value if the key still has the expected revision; return the new revision.

        Args:
            key: literal tokens.
            value: at most :attr:`BucketSpec.max_value` bytes, headers included.
            expected: the revision of the key, :data:`CREATE` if it must not exist.
            ttl: seconds after which the server removes it; None for never.

        Raises:
            ConflictError: the key has another revision.
            BucketError: the bucket cannot be reached, or is full.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        if ttl is not None:
            headers["Nats-TTL"] = f"{max(_MIN_TTL, round(ttl))}s"
        answer = await self._request(self.spec.prefix + key, value, headers)
        revision = answer.get("seq")
        if not isinstance(revision, int) or revision <= 0:
            raise BucketError(f"bucket {self.spec.name}: {key} was not stored")
        return revision

    async def _batch(self, start: int) -> list[KeyValue]:
        query = {"seq": start, "next_by_subj": f"{self.spec.prefix}>", "batch": _BATCH, "max_bytes": _BATCH_BYTES}
        inbox = self._client.new_inbox()
        entries: list[KeyValue] = []
        try:
            subscription = await self._client.subscribe(inbox)
            try:
                subject = f"{self._api_prefix}DIRECT.GET.{self.spec.stream}"
                await self._client.publish(subject, json.dumps(query).encode(), reply=inbox)
                while True:
                    message = await subscription.next_msg(_SECONDS)
                    self._check_order(message, entries)
                    if (entry := self._entry(message)) is None:
                        break
                    entries.append(entry)
            finally:
                await subscription.unsubscribe()
        except (NatsError, TimeoutError) as error:
            raise self._unreachable(error) from error
        return entries

    def _check_order(self, message: Msg, before: list[KeyValue]) -> None:
        """Raise an error if a message before this one was lost."""
        previous = (message.headers or {}).get("Nats-Last-Sequence")
        if before and previous != str(before[-1].revision):
            raise BucketError(f"bucket {self.spec.name}: a part of an answer was lost")

    def _entry(self, message: Msg) -> KeyValue | None:
        """Return an entry of a batch, None at its end."""
        headers = message.headers or {}
        subject, revision = headers.get("Nats-Subject", ""), headers.get("Nats-Sequence", "")
        if subject.startswith(self.spec.prefix) and revision.isdecimal():
            return KeyValue(subject.removeprefix(self.spec.prefix), message.data, int(revision))
        if headers.get("Status") in ("204", "404"):
            return None
        raise BucketError(f"bucket {self.spec.name} cannot be read: {printable(str(headers.get('Description')), 256)}")

    async def _get(self, query: dict[str, object]) -> KeyValue | None:
        answer = await self._api("STREAM.MSG.GET", query, missing=_NO_MESSAGE)
        message = answer.get("message")
        if not isinstance(message, dict):
            return None
        subject, revision = message.get("subject"), message.get("seq")
        try:
            value = base64.b64decode(message.get("data", ""), validate=True)
        except (TypeError, ValueError) as error:
            raise BucketError(f"bucket {self.spec.name}: a value cannot be decoded") from error
        if not isinstance(subject, str) or not isinstance(revision, int):
            raise BucketError(f"bucket {self.spec.name}: the answer is not one of JetStream")
        return KeyValue(subject.removeprefix(self.spec.prefix), value, revision)

    async def _api(self, verb: str, payload: dict[str, object] | None, *, missing: int | None = None) -> dict[str, Any]:
        data = b"" if payload is None else json.dumps(payload).encode()
        return await self._request(f"{self._api_prefix}{verb}.{self.spec.stream}", data, missing=missing)

    async def _request(
        self, subject: str, data: bytes, headers: dict[str, str] | None = None, *, missing: int | None = None
    ) -> dict[str, Any]:
        try:
            reply = await self._client.request(subject, data, timeout=_SECONDS, headers=headers)
            answer = json.loads(reply.data)
        except (NatsError, TimeoutError) as error:
            raise self._unreachable(error) from error
        except (ValueError, RecursionError) as error:
            raise BucketError(f"bucket {self.spec.name}: the answer is not JSON") from error
        refusal = answer.get("error") if isinstance(answer, dict) else {}
        if not refusal and isinstance(answer, dict):
            return answer
        code = refusal.get("err_code") if isinstance(refusal, dict) else None
        if missing is not None and code == missing:
            return {}
        if code == _NO_STREAM:
            raise MissingBucketError(f"bucket {self.spec.name} does not exist; run: broker-auth streams apply")
        text = printable(str(refusal.get("description")), 256) if isinstance(refusal, dict) else "refused"
        raised = ConflictError if code == _WRONG_REVISION else BucketError
        raise raised(f"bucket {self.spec.name}: JetStream refuses: {text}")

    def _unreachable(self, error: Exception) -> BucketError:
        why = printable(str(error), 256) or type(error).__name__
        return BucketError(f"bucket {self.spec.name} cannot be reached: {why}; see nats-server's log")


async def connect(url: str, seed: Secret, tls: ssl.SSLContext | None) -> SecuredClient:
    """Connect the service's user to one address, for its buckets.

    Raises:
        BucketError: it cannot log in there.
    """
    client = SecuredClient()
    errors: list[Exception] = []

    async def remember(error: Exception) -> None:
        errors.append(error)

    try:
        await client.connect(
            url,
            name="broker-auth",
            nkeys_seed_str=seed.reveal(),
            tls=tls,
            error_cb=remember,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=_CONNECT_SECONDS,
            inbox_prefix=BUCKET_INBOX,
        )
        await client.flush()
    except (NatsError, OSError, TimeoutError, EOFError) as error:
        await disconnect(client)
        why = next(filter(None, (printable(str(one), 256) for one in (*errors, error))), type(error).__name__)
        raise BucketError(f"{url} refuses the service or is unreachable: {why}") from error
    return client


async def disconnect(client: SecuredClient) -> None:
    """Close a connection in any state."""
    client.abort()
    with contextlib.suppress(NatsError, OSError, TimeoutError):
        await client.close()
