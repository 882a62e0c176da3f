"""Fact 31: what a server does whose configuration names the users, and a default user, itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import bcrypt
import pytest

from broker_auth.errors import OperationError
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from tests.nats_server.site import Site

pytestmark = pytest.mark.e2e

REFUSED = "-ERR 'Authorization Violation'"


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, prefix=b"2a")).decode()


def config(sandbox: Site, password_hash: str, default: str = "anybody") -> Path:
    """Write a configuration with a default user, a user with a password, and a key."""
    path = sandbox.directory / "static.conf"
    path.write_text(f"""
        listen: "127.0.0.1:-1"
        no_auth_user: "{default}"
        accounts {{
          APP: {{ users: [ {{ user: anybody }}, {{ user: other }} ] }}
          OTHER: {{ users: [ {{ user: somebody, password: "{password_hash}" }} ] }}
          SYS: {{ users: [ {{ nkey: {public_nkey(sandbox.operator)} }} ] }}
        }}
        system_account: SYS
    """)
    return path


async def test_fact_31_only_a_client_that_shows_nothing_is_the_default_user(sandbox: Site) -> None:
    server = await sandbox.start(config(sandbox, hashed("right")))
    stranger = public_nkey(generate_seed(NkeyKind.USER))
    shown: list[dict[str, str]] = [
        {},
        {"jwt": "ignored"},
        {"user": "anybody"},
        {"user": "nobody"},
        {"user": "anybody", "pass": "x"},
        {"pass": "x"},
        {"auth_token": "x"},
        {"nkey": stranger, "sig": "AAAA"},
    ]
    seen = [await (await sandbox.wire(server)).login(**options) for options in shown]
    assert seen == ["PONG", "PONG", "PONG", *[REFUSED] * 5]


async def test_fact_31_a_hash_does_not_serve_as_password(sandbox: Site) -> None:
    text = hashed("right")
    server = await sandbox.start(config(sandbox, text))
    seen = [await (await sandbox.wire(server)).login(user="somebody", **{"pass": word}) for word in ("right", text, "")]
    assert seen == ["PONG", REFUSED, REFUSED]


async def test_fact_31_a_reload_ends_sessions_with_an_old_password_and_no_others(sandbox: Site) -> None:
    server = await sandbox.start(config(sandbox, hashed("old")))
    anybody, somebody = await sandbox.wire(server), await sandbox.wire(server)
    assert [await anybody.login(), await somebody.login(user="somebody", **{"pass": "old"})] == ["PONG", "PONG"]
    config(sandbox, hashed("new"))
    await asyncio.to_thread(server.reload)
    assert await somebody.verdict() != "PONG"
    await anybody.send("PING\r\n")
    assert await anybody.verdict() == "PONG"


async def test_fact_31_another_default_user_needs_a_restart(sandbox: Site) -> None:
    server = await sandbox.start(config(sandbox, hashed("x")))
    config(sandbox, hashed("x"), default="other")
    with pytest.raises(OperationError, match="not supported for NoAuthUser"):
        await asyncio.to_thread(server.reload)
