"""Chooses the sessions that something revoked let in, for ``broker-auth revoke``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from broker_auth.audit.admissions import BY_RECORD, Credential, recorded, shown_by_record
from broker_auth.hosts.questions import Place
from broker_auth.operate.other_hosts import OtherHosts
from broker_auth.operate.report.gathering import Row, Server
from broker_auth.operate.session_records import BY_ROW, ReadRecords, SessionRecords, is_node, revoked_by_row
from broker_auth.operate.sessions import Choice
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.model import BrokerSettings, Role, Settings

_NEVER_AT_EDGES: Final = frozenset({RevocationKind.CERTIFICATE, RevocationKind.SERIAL})
_OF_PROVISIONERS: Final = frozenset({RevocationKind.KEY, RevocationKind.CHAIN_ISSUER, RevocationKind.IDENTITY})
_SPARED: Final = Choice(ends=False)
_CHOSEN: Final = Choice(ends=True)
_ALL: Final = "give --sessions all to end every session: those that may come back do"
_NOWHERE: Final = "without an audit record on this host and on those that answered, so what let them in is not known"
_NO_RECORD: Final = Choice(
    ends=False, unknown=f"without an audit record on this host, so what let them in is not known; {_ALL}"
)
_NO_RECORD_ANYWHERE: Final = Choice(ends=False, unknown=f"{_NOWHERE}; {_ALL}")
_NO_RECORD_OF_OUTPOST: Final = Choice(
    ends=False, unknown=f"{_NOWHERE}; hosts that serve this zone only are not asked: run this there, or {_ALL}"
)


@dataclass(frozen=True, slots=True)
class SessionTarget:
    """The sessions to end.

    Attributes:
        entries: what was revoked.
        token_ids: the id of a token that was revoked by its SHA-256.
        everybody: end every session; those that may come back do.
    """

    entries: Sequence[Revocation]
    token_ids: Mapping[str, str]
    everybody: bool = False


class RevokedSessions:
    """A selector of the sessions that something revoked let in.

    Attributes:
        untold: a line for each entry whose sessions cannot be told from others.
    """

    def __init__(
        self, settings: Settings, target: SessionTarget, read: ReadRecords, hosts: OtherHosts | None = None
    ) -> None:
        """Read no record yet.

        Args:
            settings: the configuration.
            target: which sessions to end.
            read: reads the audit records of this host.
            hosts: is asked about sessions that this host has no record of; None without a bucket.
        """
        self._settings = settings
        self._records = SessionRecords(read)
        self._hosts = hosts
        self._inquired = False
        self._everybody = target.everybody
        self._by_row = Revocations.of(entry for entry in target.entries if entry.kind in BY_ROW)
        self._kinds = {entry.kind for entry in target.entries}
        self._by_record: set[Credential] = set()
        self.untold: list[str] = []
        for entry in target.entries:
            if token_id := target.token_ids.get(entry.value):  # empty is what records of other credentials show
                self._by_record.add(recorded(RevocationKind.TOKEN_ID, token_id))
            elif entry.kind in BY_RECORD and entry.before is None:
                self._by_record.add(recorded(entry.kind, entry.value))
            elif entry.kind not in BY_ROW and not target.everybody:
                self.untold.append(
                    f"sessions of {entry.kind} {entry.value} cannot be told from others; use `broker-auth sweep --end` "
                    "if audit records hold requests, or give --sessions all to end every session: those that may "
                    "come back do"
                )

    @property
    def everybody(self) -> bool:
        """Whether every session is chosen, also those of clients that come back."""
        return self._everybody

    def concerns(self, broker: BrokerSettings) -> bool:
        """Return whether a session of this broker may be chosen: at an edge that of a node, or of a provisioner."""
        never = _NEVER_AT_EDGES
        if self._settings.provisioning.require_mtls:
            never |= _OF_PROVISIONERS  # who log in there by a client token, or not at all
        return broker.role is not Role.EDGE or self._everybody or not self._kinds <= never

    def refresh(self) -> None:
        """Read the audit records again, if what was revoked is known from them."""
        if self._by_record:
            self._records.refresh()

    def choose(self, broker: BrokerSettings, server: Server, row: Row) -> Choice:
        """Return whether a session is to be ended."""
        if self._everybody:
            return _CHOSEN
        record = self._records.of(broker.zone, server, row)
        node = is_node(row, record, self._settings.accounts)
        if revoked_by_row(self._by_row, row, node=node, now=time.time()) is not None:
            return _CHOSEN
        if not self._by_record:
            return _SPARED
        if record is not None:
            return _SPARED if self._by_record.isdisjoint(shown_by_record(record)) else _CHOSEN
        if not self._settings.zone(broker.zone).served:
            return _SPARED  # tokens let nobody in there
        matches = self._hosts.matches(Place(broker.zone, server.id, row.cid)) if self._hosts else None
        if matches is None and self._inquired:
            return _NO_RECORD_OF_OUTPOST if broker.role.is_outpost else _NO_RECORD_ANYWHERE
        if matches is None:
            return _NO_RECORD
        return _CHOSEN if matches else _SPARED

    async def inquire(self, sessions: Sequence[Place], /) -> bool:
        """Ask other hosts about sessions without a record; return whether any was asked."""
        if self._hosts is None:
            return False
        self._inquired = True
        await self._hosts.ask(self._by_record, sessions)
        return True
