"""Connections that nats-server admits by their nkey, and names that look like one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT, reader_account
from broker_auth.operate.report.auth_users import AUTH_USER, BREAK_GLASS, KICK, READER, auth_user
from broker_auth.operate.report.gathering import Row
from tests.operate.deployment import EdgeDeployment


@pytest.mark.parametrize("zone_number", [0, 1])
def test_nkey_is_a_user_in_its_account_only(zone_number: int, tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    zone, accounts = settings.zones[zone_number], settings.accounts
    zone = dataclasses.replace(zone, reader_nkey=public_nkey(generate_seed(NkeyKind.USER)))
    assert zone.nkey_seed
    assert zone.kick_nkey
    assert zone.break_glass_nkey
    assert zone.reader_nkey
    users = {
        zone.kick_nkey: (accounts.system, KICK),
        zone.break_glass_nkey: (accounts.system, BREAK_GLASS),
        zone.reader_nkey: (reader_account(zone.name), READER),
        public_nkey(zone.nkey_seed.reveal()): (CALLOUT_ACCOUNT, AUTH_USER),
    }
    for user, (home, what) in users.items():
        for account in (
            reader_account(zone.name),
            reader_account("other"),
            accounts.system,
            CALLOUT_ACCOUNT,
            accounts.provisioning,
            accounts.fleet,
        ):
            row = Row(cid=1, kind="Client", name=user, authorized_user=user, account=account)
            assert auth_user(zone, row, accounts.system) == (what if account == home else None), (user, account)
    nobody = Row(cid=1, kind="Client", account=accounts.system)
    assert auth_user(zone, nobody, accounts.system) is None
