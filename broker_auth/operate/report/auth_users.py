"""The connections that nats-server admits without the service: its own, and those of other users with an nkey.

They are known by their nkey and account. The nkey alone proves nothing: nats-server shows the name in a user JWT in its
place, which for a waiting node is the name that the node chose.
"""

from __future__ import annotations

from typing import Final

from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT, reader_account
from broker_auth.operate.report.gathering import Row
from broker_auth.settings.model import Zone

AUTH_USER: Final = "auth_user"  # the service itself: listed in `auth_users`, admitted without a callout
BREAK_GLASS: Final = "break_glass"
KICK: Final = "kick"
READER: Final = "reader"


def auth_user(zone: Zone, row: Row, system_account: str) -> str | None:
    """Return what a connection is instead of a rule's, if a zone's servers admitted it by its nkey."""
    user = row.authorized_user
    if not user:
        return None
    if row.account == system_account:
        return BREAK_GLASS if user == zone.break_glass_nkey else KICK if user == zone.kick_nkey else None
    if row.account == reader_account(zone.name):
        return READER if user == zone.reader_nkey else None
    if row.account == CALLOUT_ACCOUNT and zone.nkey_seed is not None and user == public_nkey(zone.nkey_seed.reveal()):
        return AUTH_USER
    return None
