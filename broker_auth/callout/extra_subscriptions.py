"""Subscriptions of the service at brokers in addition to requests, where a broker's configuration permits them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from broker_auth.callout.broker_log import BrokerLog

if TYPE_CHECKING:
    from broker_auth.callout.connection import BrokerConnection

_MAX_PENDING: Final = 8192  # queued messages of a subscription, and their bytes
_MAX_PENDING_BYTES: Final = 8 * 1024 * 1024
_VIOLATION: Final = "permissions violation for subscription"

Handler = Callable[["BrokerConnection", Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ExtraSubscription:
    """An additional, best-effort subscription.

    Attributes:
        brokers: names of the brokers to subscribe at; None for all.
        if_refused: text to log if the broker's configuration does not permit it.
        on_refused: called with the broker's name then.
    """

    subject: str
    handler: Handler
    queue: str = ""
    brokers: Collection[str] | None = None
    if_refused: str = ""
    on_refused: Callable[[str], None] = lambda _: None


class ExtraSubscriptions:
    """The extra subscriptions at one broker."""

    def __init__(self, broker: str, subscriptions: Iterable[ExtraSubscription], log: BrokerLog) -> None:
        """Choose those of ``subscriptions`` that are for this broker."""
        self._broker = broker
        self._here = tuple(one for one in subscriptions if one.brokers is None or broker in one.brokers)
        self._log = log
        self._logged: set[str] = set()

    async def start(self, client: Client, connection: BrokerConnection) -> None:
        """Subscribe; handlers are called with ``connection``."""
        for one in self._here:
            await client.subscribe(
                one.subject,
                queue=one.queue,
                cb=_bound(one.handler, connection),
                pending_msgs_limit=_MAX_PENDING,
                pending_bytes_limit=_MAX_PENDING_BYTES,
            )

    def refused(self, error: Exception) -> bool:
        """Return whether an error is the refusal of a subscription that may be refused; log it the first time."""
        text = str(error).lower()
        if _VIOLATION not in text:
            return False
        about = (one for one in self._here if one.if_refused and f'"{one.subject.lower()}"' in text)
        one = next(about, None)
        if one is None:
            return False
        one.on_refused(self._broker)
        if one.if_refused not in self._logged:
            self._logged.add(one.if_refused)
            self._log.line(logging.WARNING, one.if_refused)
        return True


def _bound(handler: Handler, connection: BrokerConnection) -> Callable[[Msg], Awaitable[None]]:
    async def handle(message: Msg) -> None:
        await handler(connection, message)

    return handle
