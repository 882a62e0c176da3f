"""docs/interface.md lists exactly the existing commands, options and JSON keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import pytest

from broker_auth.audit.record import encode, make_record
from broker_auth.bench.run import PARTS
from broker_auth.cli import demo_run, main, report, report_expiring, root, streams, sweep, token_formats
from broker_auth.demo.observation import Observation
from broker_auth.demo.run import Result
from broker_auth.deploy.natsbinary import BINARY_VARIABLE
from broker_auth.files.writing import write_private
from broker_auth.operate.explain import Outcome, explain
from broker_auth.operate.replay.effect import (
    Effect,
    Former,
    PermissionDifference,
    ReplayDifference,
    SubjectDifference,
)
from broker_auth.operate.replay.show import document
from broker_auth.operate.replay.summary import Summary
from broker_auth.operate.report.connections import Connection
from broker_auth.operate.report.expiring import ExpiringSession
from broker_auth.operate.report.waiting import Denial, Waiting
from broker_auth.operate.sessions import FoundSessions, Session
from broker_auth.operate.stored import read_stored
from broker_auth.operate.streams.plan import Action, Change, Difference
from broker_auth.policy.decide import decide
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.revocations import encode as encode_revocations
from tests.audit.records import admitted, denied
from tests.bench import plan
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.policies import x509_policy
from tests.cli.conftest import KeyDirectory
from tests.cli.running import run
from tests.docs.commands import walk
from tests.policy.markdown import code, tables

PAGE: Final = tables("interface.md")
START: Final = datetime(2027, 1, 15, 8, tzinfo=UTC)
ALL: Final = dict(walk(main))
_FREE: Final = {  # objects with names as keys, and objects described elsewhere
    "init": {"servers"},
    "why": {"decision", "server_error"},
    "token check": {"claims"},
    "token inspect": {"claims"},
    "streams apply": {"streams[].changes"},
    "replay": {"skipped"},
    "bench run": set(PARTS),
}
_SAME_AS: Final = {  # pattern of the keys of several arrays, and the described array
    "config check": (r"warnings\[\]", "problems[]"),
    "demo": (r"(isolation|onboarding|revocation)\[\]", "admission[]"),
    "bench plan": (r"fleet_servers(?=\.)", "edges"),
}


def column(heading: str, index: int = 0) -> list[str]:
    """Return the code in the first column of the first table below a heading."""
    return [name for row in PAGE[heading][index][1:] for name in code(row[0])]


def keys(document: Any, free: set[str], path: str = "") -> Iterator[str]:
    """Return the path of every key of a document, ``[]`` for the elements of an array below the first level."""
    match document:
        case list():
            for item in document:
                yield from keys(item, free, f"{path}[]" if path else "")
        case dict() if path not in free:
            for key, value in document.items():
                name = f"{path}.{key}" if path else key
                yield name
                yield from keys(value, free, name)


# --- Commands


def test_every_command_is_listed() -> None:
    assert sorted(column("Commands")) == sorted(ALL)


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_option_is_listed(path: str) -> None:
    (row,) = (row for row in PAGE["Commands"][0][1:] if code(row[0]) == [path])
    options = [option for option in ALL[path].params if isinstance(option, click.Option)]
    names = {
        name: option.multiple
        for option in options
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--") and name != "--help"
    }
    assert {name: f"`{name}`…" in row[2] for name in code(row[2])} == names


def test_environment_variables() -> None:
    named = {
        variable
        for command in ALL.values()
        for option in command.params
        if isinstance(option, click.Option) and isinstance(variable := option.envvar, str)
    }
    listed = {code(row[0])[0] for row in PAGE["Commands"][1][1:]}
    assert listed == named | {"BROKER_AUTH_DEBUG", BINARY_VARIABLE}


def test_exit_codes() -> None:
    assert [int(row[0]) for row in PAGE["Exit codes"][0][1:]] == [
        0,
        root.NO,
        root.USAGE,
        token_formats.EXPIRES_SOON,
        root.INTERRUPTED,
    ]


# --- JSON documents


def test_every_command_with_json_has_its_document() -> None:
    with_json = {
        path for path, command in ALL.items() if any("--json" in parameter.opts for parameter in command.params)
    }
    assert {heading for heading in PAGE if heading in ALL} == with_json
    assert set(DOCUMENTS) == with_json


@pytest.mark.parametrize("path", sorted(ALL))
def test_every_json_key_is_listed(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path not in DOCUMENTS:
        assert path not in PAGE
        return
    monkeypatch.chdir(tmp_path)
    names = set(keys(DOCUMENTS[path](tmp_path), _FREE.get(path, set())))
    if path in _SAME_AS:
        other, first = _SAME_AS[path]
        names = {re.sub(other, first, name) for name in names}
    assert set(column(path)) == names


BOUNDS: Final = ("--for-name", "node1", "--for-network", "192.0.2.0/24", "--max-nodes", "2")


def _key_directory(directory: Path) -> KeyDirectory:
    key_directory = KeyDirectory(directory)
    for name in ("org", "aaa", "holder"):
        key_directory.keys(name)
    return key_directory


def _init(directory: Path) -> Any:
    return run("init", directory / "deployment", "--dev-pki", "--json").json


def _config_check(directory: Path) -> Any:
    (directory / "broker.conf").write_text("plugin.broker_auth.brokers = a b\nplugin.broker_auth.worker = 1\n")
    return run("config", "check", directory / "broker.conf", "--json").json


def _token_provisioning(directory: Path) -> Any:
    key_directory = _key_directory(directory)
    options = ("--token", "s3cret-access-token", "--urls", "nats://provision.example.net:4222", "--json")
    (directory / "names").write_text("node1.example.net\n")
    many = ("--names-file", directory / "names", "--out-dir", directory / "tokens")
    one = run("token", "provisioning", directory / "p.jwt", key_directory.path / "org.seed", *options).json
    return one | run("token", "provisioning", key_directory.path / "org.seed", *many, *options).json


def _token_server(directory: Path) -> Any:
    key_directory = _key_directory(directory)
    issuer = key_directory.chain_issuer("--org", "choria")
    return run(
        *("token", "server", directory / "s.jwt", "node1.example.net", directory / "holder.public"),
        *(directory / "aaa.seed", "--chain-issuer-token", issuer, "--org", "choria", "--json"),
    ).json


def _token_client(directory: Path) -> Any:
    key_directory = _key_directory(directory)
    issuer = key_directory.chain_issuer("--org", "choria")
    return run(
        *("token", "client", directory / "c.jwt", "up=alice", directory / "aaa.seed"),
        *("--public-key", directory / "holder.public", "--chain-issuer-token", issuer, "--org", "choria", "--json"),
    ).json


def _token_check(directory: Path) -> Any:
    key_directory = _key_directory(directory)
    bounded = key_directory.provisioning(*BOUNDS)
    files = (key_directory.chain_issuer("--org", "choria"), bounded)
    issuer, node = run("token", "check", *files, *key_directory.trust, "--json").json
    return issuer | {"bounds": node["bounds"]}


def _token_inspect(directory: Path) -> Any:
    bounded = _key_directory(directory).provisioning(*BOUNDS)
    return run("token", "inspect", bounded, "--json").json


def _explain(_: Path) -> Any:
    asked, policy = requests.fleet(), x509_policy()
    record = make_record(asked, decide(asked, policy, NOW), NOW, 1, with_request=True)
    return explain(read_stored(encode(record)), policy, NOW).document()


def _why(directory: Path) -> Any:
    (directory / "audit.jsonl").write_bytes(encode(denied()))
    return run("why", "new1.example.net", "--audit", directory / "audit.jsonl", "--json").json


def _revoked(directory: Path) -> Any:
    configuration = directory / "broker.conf"
    configuration.write_text("plugin.broker_auth.revocations = revoked.json\n")
    one = Revocation(kind=RevocationKind.NODE, value="node1.example.net")
    write_private(directory / "revoked.json", encode_revocations((one,)))
    return run("revoked", "--config", configuration, "--json").json


def _sweep(_: Path) -> Any:
    one = Session(broker="b", server="s", server_id="N", cid=1, identity="i", account="a", ip="192.0.2.7")
    return sweep.document(FoundSessions((one,), (), ()), end=False)


def _report_waiting(_: Path) -> Any:
    denial = Denial(time=START, code="token_expired", reason="expired")
    node = Waiting(name="n", connected=False, server="s", ip="192.0.2.7", since=START, attempts=1, last_denial=denial)
    return [report._waiting_document(node, START)]


def _report_expiring(_: Path) -> Any:
    record = admitted(expires=START)
    fields: dict[str, Any] = dict.fromkeys(Connection.__struct_fields__, "")
    connection = Connection(**fields)
    return report_expiring.expiring_document([ExpiringSession(connection, record, START, START)], 1, START)


def _streams_apply(directory: Path) -> Any:
    configuration = _init(directory)["configuration"]
    change = Change(
        name="CHORIA_EVENTS", action=Action.UPDATE, differences=(Difference(field="max_age", now=1, target=2),)
    )

    async def change_streams(*_: Any, **__: Any) -> tuple[Change, ...]:
        return (change,)

    with pytest.MonkeyPatch.context() as patch:  # servers are not needed here
        patch.setattr(streams, "change_streams", change_streams)
        return run("streams", "apply", "--config", configuration, "--json").json


def _replay(_: Path) -> Any:
    subjects = SubjectDifference(added=("a",), removed=("b",))
    permissions = PermissionDifference(
        publish_allow=subjects, publish_deny=subjects, subscribe_allow=subjects, subscribe_deny=subjects
    )
    former = Former(admitted=True, rule="client", code="admitted", account="choria")
    difference = ReplayDifference(
        effect=Effect.GRANTED, rule="client", code="admitted", former=former, permissions=permissions
    )
    summary = Summary()
    summary.add(difference, "up=alice", NOW, "client token")
    return document(summary, None, ())


def _doctor(directory: Path) -> Any:
    _config_check(directory)  # an unusable configuration, so there is no connection
    return run("doctor", "--config", directory / "broker.conf", "--json").json


def _demo(_: Path) -> Any:
    outcomes = [Observation(what="a", expected="b", happened="b")]
    result = Result(admission=outcomes, isolation=outcomes, onboarding=outcomes, revocation=outcomes)
    return demo_run._document(result)


DOCUMENTS: Final[dict[str, Callable[[Path], Any]]] = {
    "init": _init,
    "revoked": _revoked,
    "sweep": _sweep,
    "why": _why,
    "config check": _config_check,
    "token provisioning": _token_provisioning,
    "token server": _token_server,
    "token client": _token_client,
    "token keys": lambda directory: run("token", "keys", directory / "a.seed", "--json").json,
    "token check": _token_check,
    "token inspect": _token_inspect,
    "explain": _explain,
    "replay": _replay,
    "report conns": lambda _: [dict.fromkeys(Connection.__struct_fields__)],
    "report waiting": _report_waiting,
    "report expiring": _report_expiring,
    "streams apply": _streams_apply,
    "doctor": _doctor,
    "demo": _demo,
    "bench run": lambda _: {part: {} for part in PARTS},
    "bench plan": lambda _: plan.document(),
}


def test_enumerated_values_of_documents() -> None:
    cells = {code(row[0])[0]: code(row[1]) for row in [*PAGE["explain"][0][1:], *PAGE["streams apply"][0][1:]]}
    assert cells["rules[].outcome"] == [outcome.value for outcome in Outcome]
    assert sorted(cells["streams[].action"]) == sorted(action.value for action in Action)
