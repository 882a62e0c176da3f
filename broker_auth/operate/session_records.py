"""The audit records of sessions, and what nats-server's own report of a session says.

nats-server shows of a session the name in its user JWT, its address and the fingerprint of its certificate, but neither
its token nor the tags of its user JWT (fact 20). Tokens, chain issuers and signers are known from audit records only.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from broker_auth.audit.record import AuditRecord
from broker_auth.certificates.peer import PeerIdentity
from broker_auth.operate.report.gathering import Row, Server
from broker_auth.operate.stored import Stored, stored_of
from broker_auth.policy.decision import Rule
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import RevocationKind, Revoked
from broker_auth.settings.model import AccountNames

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
BY_ROW: Final = frozenset(
    {RevocationKind.IDENTITY, RevocationKind.CERTIFICATE, RevocationKind.NODE, RevocationKind.NETWORK}
)

ReadRecords = Callable[[], Sequence[AuditRecord]]


class SessionRecords:
    """The records that admitted sessions, as they were last read."""

    def __init__(self, read: ReadRecords) -> None:
        """Read nothing yet.

        Args:
            read: reads audit records, the oldest first.
        """
        self._read = read
        self._admitted: dict[tuple[str, str, int], AuditRecord] = {}
        self._requests: dict[tuple[object, ...], AuditRecord] = {}

    def refresh(self) -> None:
        """Read the records again."""
        records = [record for record in self._read() if record.decision == "admit"]
        self._admitted = {(record.zone, record.server_id, record.cid): record for record in records}
        self._requests = {_credential(record): record for record in records if record.request is not None}

    def of(self, zone: str, server: Server, row: Row) -> AuditRecord | None:
        """Return the record that admitted a session, if there is one: a server of another zone may claim to be this."""
        return self._admitted.get((zone, server.id, row.cid)) or self._admitted.get(("", server.id, row.cid))

    def request_of(self, record: AuditRecord, row: Row) -> Stored | None:
        """Return the request of a session; if it was not stored, one by the same credential from the same name."""
        stored = stored_of(record)
        if stored is not None:
            return stored
        other = self._requests.get(_credential(record))
        stored = stored_of(other) if other is not None else None
        if stored is None:
            return None
        info = msgspec.structs.replace(stored.request.client_info, host=row.ip, name=row.name)
        return dataclasses.replace(stored, request=msgspec.structs.replace(stored.request, client_info=info))


def _credential(record: AuditRecord) -> tuple[object, ...]:
    """Return what two admissions share if the same credentials let the same name in."""
    shown = (record.token_id, record.signer, record.issuer_id, record.fingerprint, record.expires)
    return (record.zone, record.rule, record.name, record.client, record.user, *shown)


def is_node(row: Row, record: AuditRecord | None, accounts: AccountNames) -> bool:
    """Return whether a session is a waiting node's; without a record by what its server shows."""
    if record is not None:
        return record.rule == Rule.PROVISIONING
    return row.account == accounts.provisioning and not row.tls_peer_certs and row.name == row.authorized_user


def revoked_by_row(revocations: Revocations, row: Row, *, node: bool, now: float) -> Revoked | None:
    """Return what was revoked of what a server shows of a session: name, address, certificate."""
    shown = row.tls_peer_certs[0].cert_sha256 if row.tls_peer_certs else ""
    peer = PeerIdentity(
        common_name="",
        sans=(),
        names=() if node else (row.authorized_user,),
        not_after=0.0,
        fingerprint=shown if _FINGERPRINT.fullmatch(shown) else "",
    )
    result = revocations.find(None, peer, row.name if node else "", row.ip, now)
    return result if isinstance(result, Revoked) else None
