"""The bucket of revocations as hosts of the fleet use it: readers may read it, and understand records only.

The names of hosts, the questions of commands and the answers to them are sealed with a key that every host of the
fleet has: it comes from the seed of the service's user (docs/interface.md#the-bucket-of-revocations).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

import nacl.exceptions
from nacl.secret import SecretBox
from nats.aio.client import Client

from broker_auth.hosts.bucket_records import PREFIX as RECORDS
from broker_auth.natsio.bucket import REVOCATIONS, Bucket, KeyValue
from broker_auth.natsio.nkey import NkeyKind, decode_seed
from broker_auth.secret import Secret

_PURPOSE: Final = b"BROKER_AUTH_REVOCATIONS\0"


class SealedBucket(Bucket):
    """The bucket, in which everything but records is sealed; a value that cannot be opened is empty."""

    def __init__(self, client: Client, seed: Secret) -> None:
        """Ask for nothing yet; ``seed`` is that of the service's user."""
        super().__init__(client, REVOCATIONS)
        secret = decode_seed(seed.reveal(), NkeyKind.USER)
        self._box = SecretBox(hashlib.sha256(_PURPOSE + secret).digest())

    async def read(self, after: int, last: int) -> tuple[list[KeyValue], int]:
        """Return entries as :meth:`.Bucket.read` does."""
        entries, read_to = await super().read(after, last)
        return [self._opened(entry) for entry in entries], read_to

    async def get(self, key: str) -> KeyValue | None:
        """Return an entry as :meth:`.Bucket.get` does."""
        entry = await super().get(key)
        return None if entry is None else self._opened(entry)

    async def entries(self, prefix: str) -> list[KeyValue]:
        """Return entries as :meth:`.Bucket.entries` does."""
        return [self._opened(entry) for entry in await super().entries(prefix)]

    async def put(self, key: str, value: bytes, expected: int, ttl: float | None = None) -> int:
        """Write a value as :meth:`.Bucket.put` does; sealing adds 40 bytes."""
        sealed = value if key.startswith(RECORDS) else bytes(self._box.encrypt(value))
        return await super().put(key, sealed, expected, ttl)

    def _opened(self, entry: KeyValue) -> KeyValue:
        if entry.key.startswith(RECORDS):
            return entry
        try:
            return replace(entry, value=self._box.decrypt(entry.value))
        except (nacl.exceptions.CryptoError, ValueError):
            return replace(entry, value=b"")
