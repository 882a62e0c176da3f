"""The pages of docs/runbook.md about leaked and stolen credentials: every command, on a running deployment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from nats.aio.client import Client

from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.settings.revocation_store import create
from tests.cli.running import run
from tests.deadlines import HANG_SECONDS
from tests.docs.pages import DOCS, fenced
from tests.docs.test_commands import calls

pytestmark = pytest.mark.e2e

PAGES: Final = ("### A token leaked", "### A laptop was stolen", "### A chain issuer leaked", "## A signer leaked")


def commands(heading: str) -> Iterator[list[str]]:
    """Yield the arguments of each command on a page that revokes."""
    text = (DOCS / "runbook.md").read_text(encoding="utf-8")
    page = text[text.index(f"{heading}\n") + len(heading) :]
    page = page[: page.index("\n##")]
    for block in fenced(page, "console"):
        yield from (words for words in calls(block) if words[0] == "revoke")


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Yield a deployment that is prepared as the runbook says."""
    directory = tmp_path / "sandbox"
    directory.mkdir()
    create(directory / "revoked.json")
    async with Sandbox(directory, issuer=True, changes={"plugin.broker_auth.revocations": "revoked.json"}) as running:
        yield running


class Sessions:
    """A client of each kind whose credential leaks, and one whose credential does not."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        member, issuer = sandbox.credentials("system"), sandbox.issuer

        def client(caller: str, *, chained: bool = False) -> Credentials:
            made = issuer.client_by_chain(caller) if chained else issuer.client(caller)
            return replace(member, user="", password="", token=made.token, seed=made.seed)

        pki = sandbox.directory / "pki"
        self.credentials = {
            "leaked": client("up=leaked"),
            "alice": replace(client("up=alice"), certificate=pki / "member.pem", key=pki / "member.key"),
            "chained": client("up=chained", chained=True),
            "other": client("up=other"),
        }
        self.open: dict[str, Client] = {}

    async def connect(self) -> None:
        """Connect those that are admitted and not connected."""
        for name, credentials in self.credentials.items():
            if name not in self.open or self.open[name].is_closed:
                try:
                    self.open[name] = await connect(self.sandbox.fleet_url, name, credentials)
                except ConnectRefusedError:
                    continue

    async def ended(self, name: str) -> None:
        """Wait until a session has ended, and check that the client is not admitted again."""
        async with asyncio.timeout(HANG_SECONDS):
            while not self.open[name].is_closed:
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectRefusedError):
            await connect(self.sandbox.fleet_url, name, self.credentials[name])

    async def close(self) -> None:
        for client in self.open.values():
            await client.close()


async def test_every_page_ends_what_leaked_and_nothing_else(sandbox: Sandbox, tmp_path: Path) -> None:
    sessions = Sessions(sandbox)
    await sessions.connect()
    (tmp_path / "leaked.jwt").write_text(sessions.credentials["leaked"].token)
    records = {name: sandbox.audit_record(name) for name in sessions.credentials}
    inspected = run("token", "inspect", tmp_path / "leaked.jwt", "--json").json
    known = {
        "broker.conf": sandbox.deployment.configuration,
        "leaked.jwt": tmp_path / "leaked.jwt",
        "ID": records["leaked"] and records["leaked"].token_id,
        "PUBLIC-KEY": inspected["claims"]["public_key"],
        "laptop.pem": sandbox.directory / "pki" / "member.pem",
        "ca.pem": sandbox.directory / "pki" / "ca.pem",
        "ISSUER-ID": records["chained"] and records["chained"].issuer_id,
        "SIGNER": records["other"] and records["other"].signer,
    }
    for heading, leaked in zip(PAGES, ("leaked", "alice", "chained", "other"), strict=True):
        for number, words in enumerate(commands(heading)):
            done = await asyncio.to_thread(run, *[known.get(word, word) for word in words])
            assert done.code == 0, (words, done.out, done.err)
            if number == 0 and leaked in ("leaked", "alice"):
                assert "ended 1 session\n" in done.out
        await sessions.ended(leaked)
        await sessions.connect()
        await asyncio.gather(*(client.flush() for client in sessions.open.values() if not client.is_closed))
    assert all(client.is_closed for client in sessions.open.values())
    await sessions.close()
