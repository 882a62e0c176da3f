"""Finds and ends sessions on every server that can be asked (facts 20 and 21).

A :class:`Selector` chooses them: :mod:`.revoked_sessions` those that something revoked let in, :mod:`.sweep` those that
would not be admitted now. All brokers are asked at once, so that a slow one does not delay the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from broker_auth.errors import OperationError
from broker_auth.hosts.questions import Place
from broker_auth.natsio.client import SecuredClient
from broker_auth.operate.access import Access
from broker_auth.operate.answers import refusal, request_json
from broker_auth.operate.report.auth_users import auth_user
from broker_auth.operate.report.gathering import Ask, Row, Server, ask_system
from broker_auth.settings.model import BrokerSettings
from broker_auth.wording import counted

_SETTLE_SECONDS: Final = 2.0  # a client is admitted within this time after it was decided about (fact 10)
_GONE_SECONDS: Final = 0.5
_AT_ONCE: Final = 32  # requests to end a session, to one broker


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session to be ended.

    Attributes:
        broker: the configured broker that it was seen through.
        identity: the name in its user JWT.
        code: why it is to be ended, as a denial code; empty if something revoked let it in.
        reason: the same in one line.
    """

    broker: str
    server: str
    server_id: str
    cid: int
    identity: str
    account: str
    ip: str
    code: str = ""
    reason: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Server id and connection id, which no other session has."""
        return (self.server_id, self.cid)

    @property
    def description(self) -> str:
        """One line for operators."""
        return f"{self.identity or 'unnamed'} in account {self.account}, from {self.ip}, on {self.server}"


@dataclass(frozen=True, slots=True)
class FoundSessions:
    """The sessions that were chosen, and ended if that was asked for.

    Attributes:
        chosen: the sessions.
        missing: a line for each broker or server that was not asked, and each session that remains.
        unknown: a line for each reason why sessions could not be chosen or spared.
        spared: how many sessions are certainly not to be ended.
    """

    chosen: tuple[Session, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    spared: int = 0


class Choice(NamedTuple):
    """The answer of a selector about a session; ``unknown`` is what is missing to say whether it ends."""

    ends: bool
    code: str = ""
    reason: str = ""
    unknown: str = ""


class Selector(Protocol):
    """A choice of sessions."""

    @property
    def everybody(self) -> bool:
        """Whether every session is chosen, also those of clients that come back."""

    def concerns(self, broker: BrokerSettings) -> bool:
        """Return whether a session of this broker may be chosen."""

    def refresh(self) -> None:
        """Read again what sessions are judged by."""

    def choose(self, broker: BrokerSettings, server: Server, row: Row) -> Choice:
        """Return whether a session is to be ended."""

    async def inquire(self, sessions: Sequence[Place], /) -> bool:
        """Ask elsewhere about sessions that could not be chosen or spared; return whether to choose again."""


@dataclass(slots=True)
class _Look:
    """The sessions of one broker, at one time.

    Attributes:
        missing: a line for each server that was not asked.
        unsure: those that were neither chosen nor spared, with the reason.
    """

    broker: BrokerSettings
    client: SecuredClient
    missing: list[str] = field(default_factory=list)
    chosen: list[Session] = field(default_factory=list)
    unsure: list[tuple[Server, Row, str]] = field(default_factory=list)
    spared: int = 0

    @property
    def places(self) -> list[Place]:
        """The sessions that were neither chosen nor spared."""
        return [Place(self.broker.zone, server.id, row.cid) for server, row, _ in self.unsure]

    @property
    def unknown(self) -> list[str]:
        """A line for each reason why sessions could not be chosen or spared."""
        counts = Counter(why for _, _, why in self.unsure)
        return [f"broker {self.broker.name}: {counted(count, 'session')} {why}" for why, count in counts.items()]


class SessionEnder:
    """Connections to the system account of every broker, made before anything is revoked; an async context manager."""

    def __init__(self, access: Access, selector: Selector) -> None:
        """Connect to nothing yet.

        Args:
            access: how to log in.
            selector: which sessions to end.
        """
        self._access = access
        self._selector = selector
        self._clients: dict[str, tuple[BrokerSettings, SecuredClient]] = {}
        self._unreached: list[str] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> SessionEnder:
        """Log in to each broker whose sessions may be concerned."""
        brokers = [broker for broker in self._access.settings.brokers if self._selector.concerns(broker)]
        failures = await asyncio.gather(*map(self._log_in, brokers))
        self._unreached = [line for line in failures if line]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _log_in(self, broker: BrokerSettings) -> str:
        """Connect to a broker; return why that failed, empty if it did not."""
        try:
            client = await self._access.ender(broker)
        except OperationError as error:
            return f"broker {broker.name} was not asked: {error}"
        assert isinstance(client, SecuredClient)
        self._clients[broker.name] = (broker, client)
        self._stack.push_async_callback(client.close)
        return ""

    async def find(self) -> FoundSessions:
        """Return the sessions that would be ended now."""
        result = await self._look()
        return FoundSessions(result.chosen, (*self._unreached, *result.missing), result.unknown, result.spared)

    async def end(self) -> FoundSessions:
        """End the sessions, after every worker has confirmed; twice, because some logins were still in progress."""
        ended: dict[tuple[str, int], Session] = {}
        for wait in (_SETTLE_SECONDS,) if self._selector.everybody else (0.0, _SETTLE_SECONDS):
            await asyncio.sleep(wait)
            result = await self._look(end=True)
            ended |= {one.key: one for one in result.chosen}
        await asyncio.sleep(_GONE_SECONDS)
        result = await self._look()
        left = [one for one in result.chosen if one.key in ended or not self._selector.everybody]
        lines = [f"remains, or is let in by a service that does not know yet: {one.description}" for one in left]
        return FoundSessions(
            tuple(ended.values()), (*self._unreached, *result.missing, *lines), result.unknown, result.spared
        )

    async def _look(self, *, end: bool = False) -> FoundSessions:
        """Ask all brokers for their sessions, choose, and end the chosen ones if ``end`` is given."""
        self._selector.refresh()
        looks = [_Look(broker, client) for broker, client in self._clients.values()]
        await asyncio.gather(*(self._ask(look, end=end) for look in looks))
        places = [place for look in looks for place in look.places]
        if places and await self._selector.inquire(places):
            again = [(look, [(server, row) for server, row, _ in look.unsure]) for look in looks]
            await asyncio.gather(*(self._choose(look, rows, end=end) for look, rows in again))
        return FoundSessions(
            tuple(session for look in looks for session in look.chosen),
            tuple(line for look in looks for line in look.missing),
            tuple(line for look in looks for line in look.unknown),
            sum(look.spared for look in looks),
        )

    async def _ask(self, look: _Look, *, end: bool) -> None:
        """Ask a broker for its sessions; what is known at once does not wait for other brokers."""
        name = look.broker.name
        try:
            gathered = await ask_system(look.client, Ask())
        except OperationError as error:
            look.missing.append(f"broker {name}: {error}")
            return
        look.missing += [f"broker {name}: {line}" for line in gathered.missing]
        rows = [(answer.server, row) for answer in gathered.answers for row in answer.rows]
        await self._choose(look, [one for one in rows if not self._is_other(*one, look.client)], end=end)

    async def _choose(self, look: _Look, rows: Iterable[tuple[Server, Row]], *, end: bool) -> None:
        """Choose among sessions, and end the chosen ones if ``end`` is given."""
        look.unsure, chosen = [], list[Session]()
        for server, row in rows:
            choice = self._selector.choose(look.broker, server, row)
            if choice.ends:
                chosen.append(_session(look.broker.name, server, row, choice))
            elif choice.unknown:
                look.unsure.append((server, row, choice.unknown))
            else:
                look.spared += 1
        look.chosen += chosen
        if end:
            await self._kick(look.client, chosen)

    def _is_other(self, server: Server, row: Row, own: SecuredClient) -> bool:
        """Return whether a connection is this command's, or admitted without the service."""
        if row.kind != "Client" or (server.id, row.cid) == (own.server_id, own.client_id):
            return True
        settings = self._access.settings
        return any(auth_user(zone, row, settings.accounts.system) for zone in settings.zones)

    async def _kick(self, client: SecuredClient, sessions: Iterable[Session]) -> None:
        """Ask the server of each session to end it; what does not end is chosen again."""
        places = asyncio.Semaphore(_AT_ONCE)

        async def kick(session: Session) -> None:
            async with places:
                try:
                    subject = f"$SYS.REQ.SERVER.{session.server_id}.KICK"
                    refusal(await request_json(client, subject, {"cid": session.cid}))
                except OperationError:
                    return

        await asyncio.gather(*(kick(session) for session in sessions))


def _session(broker: str, server: Server, row: Row, choice: Choice) -> Session:
    return Session(
        broker=broker,
        server=server.name,
        server_id=server.id,
        cid=row.cid,
        identity=row.authorized_user,
        account=row.account,
        ip=row.ip,
        code=choice.code,
        reason=choice.reason,
    )
