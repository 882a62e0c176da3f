"""Asks every host in the bucket of revocations for what let sessions in that this host has no audit record of."""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from broker_auth.audit.admissions import Credential
from broker_auth.errors import OperationError
from broker_auth.hosts.asking import ANSWER_SECONDS, AskedHost, Asking
from broker_auth.hosts.questions import Place
from broker_auth.hosts.sealed_bucket import SealedBucket
from broker_auth.natsio.bucket import disconnect
from broker_auth.natsio.client import SecuredClient
from broker_auth.operate.access import Access
from broker_auth.operate.streams.change import streams_broker
from broker_auth.times import rfc3339
from broker_auth.wording import counted


class OtherHosts:
    """The answers of every host, also of this one, whose service searches further back; an async context manager."""

    def __init__(self, access: Access) -> None:
        """Connect to nothing yet."""
        self._access = access
        self._client: SecuredClient | None = None
        self._asking: Asking | None = None
        self._matches: dict[Place, bool] = {}
        self._trouble = ""

    async def __aenter__(self) -> OtherHosts:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._disconnect()

    def matches(self, place: Place) -> bool | None:
        """Return whether a credential that was asked about let a session in; None if no host has said."""
        return self._matches.get(place)

    async def ask(self, credentials: Collection[Credential], places: Collection[Place]) -> None:
        """Ask about sessions; what was not answered is in :meth:`remarks`."""
        try:
            if self._asking is None:
                broker = streams_broker(self._access)
                client = await self._access.callout(broker)
                assert isinstance(client, SecuredClient)
                self._client = client
                self._asking = Asking(SealedBucket(client, self._access.service_seed(broker)), self._matches)
            await self._asking.ask(sorted(credentials), places)
        except OperationError as error:
            self._trouble = str(error)
            await self._disconnect()
        else:
            self._trouble = ""

    def remarks(self) -> tuple[str, ...]:
        """Return a line for each host that did not tell what let every session in."""
        if self._trouble:
            return (f"hosts could not be asked what let these sessions in: {self._trouble}",)
        if self._asking is None:
            return ()
        hosts = sorted(self._asking.hosts.values(), key=lambda host: host.name)
        lines = [line for host in hosts for line in lines_of(host)]
        if left := self._asking.left_out:
            lines.append(
                f"hosts could not be asked about {counted(left, 'session')}, because the question would be too long; "
                "revoke fewer values at once, or give --sessions all"
            )
        return tuple(lines)

    async def _disconnect(self) -> None:
        client, self._client, self._asking = self._client, None, None
        if client is not None:
            with contextlib.suppress(OperationError):
                await disconnect(client)


def lines_of(host: AskedHost) -> tuple[str, ...]:
    """Return what to say of a host if what let some sessions in is not known."""
    if host.silent:
        return (
            f"host {host.name} did not answer within {ANSWER_SECONDS:g} s what let these sessions in; update or start "
            "broker-auth there, or run this there",
        )
    troubles = [f"host {host.name}: {trouble}" for trouble in sorted(host.troubles)]
    back = f"; its records go back to {rfc3339(host.since)}" if host.since else ""
    return (*troubles, f"host {host.name} has no record of these sessions{back}")
