"""``report expiring``, and sessions that outlive their credential, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from broker_auth.audit.record import AuditRecord, Record
from broker_auth.cli.report_expiring import expiring_document, expiring_table, prometheus
from broker_auth.operate.report.auth_users import AUTH_USER, BREAK_GLASS, KICK
from broker_auth.operate.report.connections import Connection
from broker_auth.operate.report.expiring import admissions, expiry_report, waves
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.revocation_store import create
from tests.audit.records import admitted, denied, refused
from tests.cli.running import Run, run
from tests.deadlines import HANG_SECONDS

NOW: Final = datetime(2027, 1, 15, 22, tzinfo=UTC)
SHORT: Final = 8.0  # seconds of validity, enough to log in
DAY: Final = 86_400.0


def session(cid: int, **changes: Any) -> Connection:
    """Return a connection of a client; only what the report reads differs between two."""
    values: dict[str, Any] = {
        name: "" if "str" in kind else 0 for name, kind in Connection.__annotations__.items() if name != "subjects"
    }
    values |= {"server_id": "N1", "cid": cid, "kind": "Client", "identity": f"up={cid}", "rule": None}
    return msgspec.convert(values | changes, Connection, strict=False)


def record(cid: int, days: float | None, **changes: Any) -> AuditRecord:
    """Return the admission of a client whose session ends in ``days``."""
    expires = None if days is None else NOW + timedelta(days=days)
    return admitted(cid, rule="client", expires=expires, **changes)


CONNECTIONS = [
    session(1),
    session(2),
    session(3, identity="up=1"),
    session(4),
    session(5),
    session(6, identity="up=2"),
    session(7, kind="Leafnode"),
    session(8, rule=AUTH_USER),
    session(9, rule=BREAK_GLASS),
    session(10),
    session(11, rule=KICK),
    session(12, own=True),
]
RECORDS: list[Record] = [
    denied(1),
    record(1, 0.5),
    record(2, 0.05),
    record(3, 0.6),
    record(4, None),  # its credential never ends
    record(5, 20.0),
    record(6, 6.0, grace=7 * DAY),  # its credential ended yesterday
    refused(2),
    record(99, 1.0),  # its session has ended
]


def test_sessions_are_listed_by_the_end_of_their_credential() -> None:
    known = admissions(RECORDS, [(item.server_id, item.cid) for item in CONNECTIONS])
    assert set(known) == {("N1", cid) for cid in range(1, 7)}
    report = expiry_report(CONNECTIONS, known)
    assert [one.connection.cid for one in report.sessions] == [6, 2, 1, 3, 5]
    assert report.unknown == 1
    soon = report.within(NOW + timedelta(days=19))
    assert [(wave.day.day, len(wave.sessions), wave.identities) for wave in waves(soon)] == [
        (14, 1, 1),
        (15, 1, 1),
        (16, 2, 1),
    ]
    shown = expiring_document(soon, report.unknown, NOW, limit=2)
    assert [(one["cid"], one["expired"]) for one in shown["sessions"]] == [(6, True), (2, False)]
    assert shown["sessions"][0]["credential_ends"] == "2027-01-14T22:00:00Z"
    assert shown["sessions"][0]["session_ends"] == "2027-01-21T22:00:00Z"
    assert shown["unknown"] == 1
    assert len(shown["waves"]) == 3


def test_table_lists_sessions_and_waves() -> None:
    known = admissions(RECORDS, [(item.server_id, item.cid) for item in CONNECTIONS])
    report = expiry_report(CONNECTIONS, known)
    text = list(expiring_table(report.sessions, report.unknown, NOW, limit=4).lines(80))
    assert text[0].startswith("Identity     Left  ")
    assert [line.split()[:2] for line in text[1:5]] == [
        ["up=2", "expired"],
        ["up=2", "1h12m"],
        ["up=1", "12h"],
        ["up=1", "14h24m"],
    ]
    assert text[5:] == [
        "2027-01-14: 1 session of 1 identity, from 22:00:00 to 22:00:00 UTC",
        "2027-01-15: 1 session of 1 identity, from 23:12:00 to 23:12:00 UTC",
        "2027-01-16: 2 sessions of 1 identity, from 10:00:00 to 12:24:00 UTC",
        "2027-02-04: 1 session of 1 identity, from 22:00:00 to 22:00:00 UTC",
        "5 sessions with a credential that ends, the first 4 by --limit",
        "Of 1 more session no audit record on this host tells the end.",
        *text[11:],
    ]


def test_metrics_count_sessions_by_rule() -> None:
    known = admissions([*RECORDS, record(10, 3.0)], [(item.server_id, item.cid) for item in CONNECTIONS])
    known["N1", 5].rule = "a rule of another version"
    page = "\n".join(prometheus(expiry_report(CONNECTIONS, known), NOW)) + "\n"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    name = "broker_auth_sessions_expiring"
    assert [samples[name, "client", days] for days in ("1", "7", "30")] == [3, 4, 4]
    assert [samples[name, "server", days] for days in ("1", "7", "30")] == [0, 0, 0]
    assert samples["broker_auth_sessions_expired", "client"] == 1
    assert samples["broker_auth_sessions_unknown_expiry",] == 0
    assert len(samples) == 6 * 3 + 6 + 1


# --- On real servers


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield an edge deployment whose members' sessions may outlive their credential."""
    directory = tmp_path / "sandbox"
    directory.mkdir()
    create(directory / "revoked.json")
    changes = {
        "plugin.broker_auth.revocations": "revoked.json",
        "plugin.broker_auth.session_grace": "7d",
        "plugin.broker_auth.audit.requests": "true",
    }
    async with Sandbox(directory, issuer=True, changes=changes) as running:
        yield running


async def command(sandbox: Sandbox, *args: object) -> Run:
    """Run a command beside the test's connections."""
    return await asyncio.to_thread(run, *args, "--config", sandbox.deployment.configuration)


async def report(sandbox: Sandbox, *args: object) -> dict[str, dict[str, Any]]:
    """Return the sessions that the report lists, by name."""
    seeds = [option for seed in sandbox.deployment.break_glass_seeds for option in ("--break-glass", seed)]
    shown = await command(sandbox, "report", "expiring", "--json", *seeds, *args)
    assert shown.code == 0, shown.err
    document = json.loads(shown.out)
    assert document["unknown"] == 0
    assert sum(wave["sessions"] for wave in document["waves"]) == len(document["sessions"])
    return {one["name"]: one for one in document["sessions"]}


async def is_refused(url: str, name: str, credentials: Credentials) -> bool:
    try:
        client = await connect(url, name, credentials)
    except ConnectRefusedError:
        return True
    await client.close()
    return False


@pytest.mark.e2e
async def test_session_outlives_its_credential_and_is_reported_until_it_is_revoked(sandbox: Sandbox) -> None:
    member = sandbox.credentials("system")  # any certificate of the fleet; the token counts

    def client(caller: str, validity: float) -> Credentials:
        made = sandbox.issuer.client(caller, validity=validity)
        return replace(member, user="", password="", token=made.token, seed=made.seed)

    short, long = client("up=short", SHORT), client("up=long", 20 * DAY)
    node = sandbox.credentials("node")
    sessions = {
        "short": await connect(sandbox.fleet_url, "short", short),
        "long": await connect(sandbox.fleet_url, "long", long),
        "node": await connect(sandbox.node_url, "node", node),
    }
    assert all(sandbox.audit_record(name) for name in sessions)
    shown = await report(sandbox, "--within", "10d")
    assert set(shown) == {"short", "node"}
    assert shown["node"]["credential_ends"] == shown["node"]["session_ends"]
    async with asyncio.timeout(HANG_SECONDS):
        while not await is_refused(sandbox.fleet_url, "again", short):
            await asyncio.sleep(0.1)
    for session in sessions.values():
        await session.flush()
    shown = await report(sandbox)
    assert {name: one["expired"] for name, one in shown.items()} == {"short": True, "node": False, "long": False}
    assert shown["short"]["rule"] == "client"
    assert sandbox.audit_record("short").grace == 7 * DAY  # type: ignore[union-attr]
    text = await command(sandbox, "report", "expiring")
    assert text.code == 1  # the edge was not asked
    assert "up=short" in text.out
    assert "expired" in text.out
    page = await command(sandbox, "report", "expiring", "--format", "prometheus")
    assert 'broker_auth_sessions_expired{rule="client"} 1' in page.out
    swept = await command(sandbox, "sweep", "--end")
    assert swept.code == 0, (swept.out, swept.err)
    for session in sessions.values():
        await session.flush()
    done = await command(sandbox, "revoke", "identity", "up=short")
    assert "ended 1 session\n" in done.out, (done.out, done.err)
    async with asyncio.timeout(HANG_SECONDS):
        while not sessions["short"].is_closed:
            await asyncio.sleep(0.01)
    assert set(await report(sandbox)) == {"node", "long"}
    for session in sessions.values():
        await session.close()
