"""The hosts that share the bucket: each has a key there, with the revision up to which all its workers decide."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Final

import msgspec

from broker_auth.natsio.bucket import CREATE, Bucket, BucketError, ConflictError, KeyValue
from broker_auth.settings.model import Settings

PREFIX: Final = "host"
HOST_SECONDS: Final = 86_400.0  # after which a host that was not seen is no longer waited for
REFRESH_SECONDS: Final = (
    10.0  # a write that succeeds shows that the bucket is not a part of a cluster that lost the others
)
LEFT_SECONDS: Final = 60.0  # for which a host that was stopped is remembered
_MACHINE: Final = Path("/etc/machine-id")


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """A host, as it describes itself.

    Attributes:
        name: for people.
        confirmed: the revision up to which every worker decides by the records of the bucket.
        left: whether it was stopped, so that none of its workers decides anything.
    """

    name: str
    confirmed: int = 0
    left: bool = False


def host_id(settings: Settings) -> str:
    """Return what tells this service from others: by the host's name, its machine id and the file of revocations."""
    try:
        machine = _MACHINE.read_text(encoding="ascii")
    except (OSError, ValueError):
        machine = ""
    text = f"{socket.gethostname()}\0{machine}\0{settings.revocations}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_host(entry: KeyValue) -> Host:
    """Return the host in an entry; if it cannot be read, it has confirmed nothing."""
    try:
        return msgspec.json.decode(entry.value, type=Host)
    except (ValueError, RecursionError):
        return Host(name=entry.key)


class Registration:
    """The key of this host in the bucket."""

    trouble: Final = ""  # none but what stops everything else, too

    def __init__(self, bucket: Bucket, key: str, name: str) -> None:
        """Write nothing yet."""
        self._bucket = bucket
        self._key = f"{PREFIX}.{key}"
        self._name = name
        self._written: Host | None = None
        self._at = 0.0
        self._revision = CREATE

    async def confirm(self, revision: int, now: float) -> None:
        """Write that every worker decides by the records up to a revision; nothing if that is known.

        Args:
            revision: of a record.
            now: seconds on a monotonic clock.

        Raises:
            BucketError: the bucket cannot be reached, or another service uses the same key.
        """
        host = Host(name=self._name, confirmed=revision)
        if host != self._written or now - self._at > REFRESH_SECONDS:
            await self._write(host, HOST_SECONDS)
            self._at = now

    async def leave(self) -> None:
        """Write that this host was stopped.

        Raises:
            BucketError: the bucket cannot be reached.
        """
        if self._written is not None:
            await self._write(Host(name=self._name, confirmed=self._written.confirmed, left=True), LEFT_SECONDS)

    async def _write(self, host: Host, ttl: float) -> None:
        if self._written is None:
            entry = await self._bucket.get(self._key)
            self._revision = entry.revision if entry else CREATE
        try:
            self._revision = await self._bucket.put(self._key, msgspec.json.encode(host), self._revision, ttl)
        except ConflictError as error:
            self._written = None
            raise BucketError(
                f"bucket {self._bucket.spec.name}: another service writes {self._key} too, because host name, machine "
                "id and path of the file of revocations are the same; give each host its own name"
            ) from error
        self._written = host
