"""nats-py's private parts: all are listed, missing ones are reported at start, and no check fails open."""

from __future__ import annotations

import ast
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from nats.aio.client import Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error

import broker_auth
from broker_auth.errors import OperationError
from broker_auth.natsio import natspy
from broker_auth.natsio.client import SecuredClient
from broker_auth.natsio.natspy import PRIVATE, ChangedError
from tests.cli.running import run

PACKAGE = Path(broker_auth.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"_closed"}  # a name of our objects as well as of nats-py's
KNOWN = {name for names in PRIVATE.values() for name in names}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Clear the cached check before and after each test."""
    natspy.check.cache_clear()
    yield
    natspy.check.cache_clear()


def test_installed_nats_py_has_every_private_part() -> None:
    natspy.check()


def test_next_major_version_of_nats_py_is_excluded() -> None:
    (requirement,) = [item for item in PROJECT["dependencies"] if item.startswith("nats-py")]
    assert requirement == "nats-py>=2.15,<3"


def private_names_of_nats_py() -> set[str]:
    """Return every private attribute of the nats-py objects that this project uses."""
    made = natspy._made().values()
    return {name for thing in made for name in dir(thing) if name.startswith("_") and not name.startswith("__")}


def test_every_private_name_in_use_is_checked_at_start() -> None:
    """Checks modules that use a client; our own private names are excluded."""
    foreign = private_names_of_nats_py()
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "nats.aio" not in text and "SecuredClient" not in text and "ExtendedClient" not in text:
            continue
        tree = ast.parse(text)
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert (used & foreign) - OWN - KNOWN == set(), path


@pytest.mark.parametrize("kind", PRIVATE)
def test_missing_part_is_reported_in_one_line_with_the_version(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRIVATE, kind, PRIVATE[kind] | {"_gone"})
    with pytest.raises(OperationError) as error:
        natspy.check()
    assert f"lacks {kind}._gone, " in str(error.value)
    assert str(error.value).startswith("nats-py 2.")
    assert "\n" not in str(error.value)
    with pytest.raises(OperationError):
        SecuredClient()


def test_serve_reports_a_missing_part_before_anything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PRIVATE, "Client", frozenset({"_gone"}))
    config = tmp_path / "broker.conf"
    config.write_text("")
    failed = run("serve", "--config", config)
    assert failed.code == 1
    assert failed.error.startswith("nats-py 2.")


def connecting(url: str, tls: ssl.SSLContext | None) -> SecuredClient:
    client = SecuredClient()
    client._current_server = Srv(urlparse(url))
    client.has_tls_context = tls is not None
    return client


INFO = {"tls_required": True}


@pytest.mark.parametrize("transport", [None, object(), TcpTransport()])  # type: ignore[no-untyped-call]
def test_connection_is_refused_if_its_buffer_cannot_be_inspected(transport: object) -> None:
    client = connecting("tls://127.0.0.1:4222", None)
    client._transport = transport  # type: ignore[assignment]
    with pytest.raises(ChangedError, match="nothing was sent"):
        client.before_info(INFO, True)


@pytest.mark.parametrize("server", [None, object()])
def test_connection_is_refused_if_its_scheme_cannot_be_read(server: object) -> None:
    client = connecting("nats://127.0.0.1:4222", ssl.create_default_context())
    client._current_server = server  # type: ignore[assignment]
    with pytest.raises(Error):
        client.before_info(INFO, True)


def test_websocket_and_plain_connections_have_no_buffer_to_inspect() -> None:
    connecting("wss://127.0.0.1:443", ssl.create_default_context()).before_info({}, True)
    connecting("nats://127.0.0.1:4222", None).before_info({}, True)
    connecting("tls://127.0.0.1:4222", None).before_info({}, False)
