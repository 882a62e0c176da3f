"""Checks that need the system account: members of the callout account, imports and exports, timeouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from broker_auth.deploy.render import PROVISIONER_BUCKET
from broker_auth.errors import OperationError
from broker_auth.natsio.natspy import ExtendedClient
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import AUTH_QUEUE, AUTH_REQUEST_SUBJECT, CALLOUT_ACCOUNT
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.operate.doctor.listeners import RENDER, warn_of_expiry
from broker_auth.operate.doctor.nodes import examine_nodes
from broker_auth.operate.doctor.system import SystemServer
from broker_auth.operate.logins import AccessError
from broker_auth.operate.report.gathering import Ask, ask_system
from broker_auth.policy.permissions import NODE_EVENTS, PROVISIONER_EVENTS
from broker_auth.printable import printable
from broker_auth.settings.model import BrokerSettings, Role
from broker_auth.times import parse_server_time
from broker_auth.wording import ago, counted

MIN_TIMEOUT: Final = 3.0  # seconds; a connection storm needs longer than nats-server's default of 2
LIFECYCLE: Final = frozenset({*NODE_EVENTS, *PROVISIONER_EVENTS})
ELECTION: Final = frozenset({f"$JS.API.STREAM.INFO.KV_{PROVISIONER_BUCKET}", f"$KV.{PROVISIONER_BUCKET}.provisioner"})
_MAX_FINDINGS: Final = 100  # of one kind at one broker
_MAX_ADDRESSES: Final = 5  # in one finding
_SHOWN: Final = 500  # characters of a text from a broker
_CLOSED_TOO: Final = 2  # nats-server's ConnState: open and closed


class _Row(msgspec.Struct):
    cid: int = 0
    kind: str = ""
    name: str = ""
    ip: str = ""
    start: str = ""
    account: str = ""
    authorized_user: str = ""


class _Crossing(msgspec.Struct):
    """An import or export."""

    subject: str = ""
    account: str = ""
    type: str = ""
    approved_accounts: list[str] = []


class _Account(msgspec.Struct):
    exports: list[_Crossing] = []
    imports: list[_Crossing] = []


class _Leaf(msgspec.Struct):
    name: str = ""
    account: str = ""


class _Subscription(msgspec.Struct):
    subject: str = ""
    qgroup: str = ""


class _Listener(msgspec.Struct):
    tls_timeout: float = 0.0
    auth_timeout: float = 0.0
    tls_cert_not_after: str = ""


class _Varz(msgspec.Struct):
    """The parts of VARZ that are checked."""

    auth_timeout: float = 0.0
    tls_timeout: float = 0.0
    leaf: _Listener = msgspec.field(default_factory=_Listener)
    websocket: _Listener = msgspec.field(default_factory=_Listener)


async def examine_accounts(context: Context, broker: BrokerSettings, seen: set[str]) -> list[Finding]:
    """Examine the server at a broker's first address through its system account; add its id to ``seen``."""
    findings = BrokerFindings(broker)
    try:
        system = await context.access.system(broker)
    except AccessError as error:
        message = "its system account is not accessible, so accounts, leaf link and timeouts were not checked"
        findings.skipped(FindingCode.SYSTEM_CLOSED, message, str(error))
        return findings.items
    try:
        server = SystemServer(system, system.server_id if isinstance(system, ExtendedClient) else "PING")
        seen.add(server.id)
        await _examine(server, context, broker, findings)
    finally:
        await system.close()
    return findings.items


async def examine_unlisted(context: Context, broker: BrokerSettings, seen: set[str]) -> list[Finding]:
    """Examine the servers of a cluster that are at none of its configured addresses: all but those in ``seen``."""
    try:
        system = await context.access.system(broker)
    except AccessError:
        return []  # reported by the check of each address
    items = []
    try:
        gathered = await ask_system(system, Ask(account=CALLOUT_ACCOUNT))
        for answer in gathered.answers:
            if answer.server.id not in seen:
                seen.add(answer.server.id)
                findings = BrokerFindings(broker)
                await _examine(SystemServer(system, answer.server.id), context, broker, findings)
                name = printable(answer.server.name, _SHOWN)
                items += [dataclasses.replace(item, server=name) for item in findings.items]
        missing = list(gathered.missing)
    except OperationError as error:
        missing = [str(error)]
    finally:
        await system.close()
    findings = BrokerFindings(broker)
    for line in missing[:_MAX_FINDINGS]:
        remedy = "start the servers that do not answer, or look for the reason in their logs"
        findings.warning(FindingCode.SYSTEM_ANSWER, f"not every server of the cluster was examined: {line}", remedy)
    return items + findings.items


async def _examine(server: SystemServer, context: Context, broker: BrokerSettings, findings: BrokerFindings) -> None:
    try:
        await _timeouts(server, context, findings)
        if broker.server.store_dir is not None:
            await _jetstream(server, findings)
        if context.settings.zone(broker.zone).served:
            await _callout_account(server, context, broker, findings)
        await _break_glass_used(server, context, broker, findings)
        await examine_nodes(server, context, broker, findings)
        if not broker.role.is_outpost:
            await _crossings(server, context, findings)
        await _leaf_links(server, context, broker, findings)
    except Exception as error:  # a bad answer of one broker must not end the examination of the others
        reason = str(error) or type(error).__name__
        message = printable(f"the system account does not answer as expected: {reason}", _SHOWN)
        findings.warning(FindingCode.SYSTEM_ANSWER, message, "use a supported nats-server")


async def _timeouts(server: SystemServer, context: Context, findings: BrokerFindings) -> None:
    varz = msgspec.convert(await server.data("VARZ"), _Varz, strict=False)
    short = [
        f"{name} is {seconds:g} s"
        for name, seconds in (("authorization.timeout", varz.auth_timeout), ("tls.timeout", varz.tls_timeout))
        if seconds < MIN_TIMEOUT
    ]
    if short:
        message = f"{' and '.join(short)}: in a reconnect storm clients are disconnected before they are answered"
        findings.warning(FindingCode.TIMEOUTS_SHORT, message, RENDER)
    else:
        findings.ok(FindingCode.TIMEOUTS, f"authorization {varz.auth_timeout:g} s, TLS {varz.tls_timeout:g} s")
    for name, listener in (("leaf", varz.leaf), ("websocket", varz.websocket)):
        if listener.tls_cert_not_after:
            not_after = datetime.fromisoformat(listener.tls_cert_not_after)
            warn_of_expiry(findings, name, f"the {name} listener's certificate", not_after, context)


async def _jetstream(server: SystemServer, findings: BrokerFindings) -> None:
    """Check that JetStream runs: it stops when its disk is full, and does not start again by itself."""
    if (await server.data("JSZ")).get("disabled"):
        message = "JetStream is configured but not running: nats-server stops it when its disk is full"
        remedy = "free space in store_dir, then restart this nats-server: it does not restart JetStream by itself"
        findings.error(FindingCode.JETSTREAM_DOWN, message, remedy)
    else:
        findings.ok(FindingCode.JETSTREAM, "JetStream is running")


async def _callout_account(
    server: SystemServer, context: Context, broker: BrokerSettings, findings: BrokerFindings
) -> None:
    """Check that only services are in the callout account: the first reply to a request wins (fact 4)."""
    seed = context.settings.zone(broker.zone).nkey_seed
    if seed is None:
        findings.skipped(
            FindingCode.CALLOUT_ACCOUNT,
            "the seed of the service's user is not available here",
            "run the doctor where the service runs",
        )
        return
    own = public_nkey(seed.reveal())
    rows = await _rows(server, {"acc": CALLOUT_ACCOUNT, "auth": True})
    foreign = [row for row in rows if row.authorized_user != own]
    for user, group in _grouped(foreign, lambda row: row.authorized_user or repr(row.name)):
        message = f"{group[0].kind} {user} from {_addresses(group)} is in the callout account"
        message += f" with {len(group)} connections" if len(group) > 1 else ""
        findings.error(
            FindingCode.CALLOUT_FOREIGNER, message, f"remove its user from account {CALLOUT_ACCOUNT}; {RENDER}"
        )
    options = {"subscriptions": True, "account": CALLOUT_ACCOUNT, "test": AUTH_REQUEST_SUBJECT}
    listed = (await server.data("SUBSZ", options)).get("subscriptions_list") or []
    listeners = msgspec.convert(listed, list[_Subscription], strict=False)
    members = [item for item in listeners if item.qgroup == AUTH_QUEUE]
    if not members:
        findings.error(FindingCode.CALLOUT_NOBODY, "no service is subscribed at this broker", "start broker-auth serve")
    elif len(members) == 1:
        remedy = "run a second broker-auth serve, if possible on another host, or use --workers 2"
        findings.warning(
            FindingCode.CALLOUT_ALONE, "a single service process answers for this broker, without redundancy", remedy
        )
    else:
        findings.ok(FindingCode.CALLOUT_REPLICAS, f"{len(members)} service processes answer for this broker")
    if not foreign:
        findings.ok(FindingCode.CALLOUT_ACCOUNT, "only the service is in the callout account")


async def _break_glass_used(
    server: SystemServer, context: Context, broker: BrokerSettings, findings: BrokerFindings
) -> None:
    nkey = context.settings.zone(broker.zone).break_glass_nkey
    if nkey is None or context.access.break_glass_of(broker) is not None:
        return  # the doctor itself uses it
    rows = await _rows(server, {"acc": context.settings.accounts.system, "auth": True, "state": _CLOSED_TOO})
    used = [row for row in rows if row.authorized_user == nkey]
    if used:
        moment = parse_server_time(max(row.start for row in used))
        last = "" if moment is None else f", last {ago(moment, datetime.fromtimestamp(context.now(), UTC))}"
        findings.warning(
            FindingCode.BREAK_GLASS_USED,
            f"the break-glass user logged in {counted(len(used), 'time')} from {_addresses(used)}{last}",
            "if a login is not explained, replace its nkey and investigate what was done",
        )
    else:
        findings.ok(FindingCode.BREAK_GLASS_UNUSED, "nats-server remembers no login of the break-glass user")


async def _rows(server: SystemServer, options: dict[str, object]) -> list[_Row]:
    data = await server.data("CONNZ", {"limit": 1024} | options)
    return msgspec.convert(data.get("connections") or [], list[_Row], strict=False)


def _grouped(rows: Iterable[_Row], key: Callable[[_Row], str]) -> list[tuple[str, list[_Row]]]:
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())[:_MAX_FINDINGS]


def _addresses(rows: Iterable[_Row]) -> str:
    addresses = list(dict.fromkeys(row.ip for row in rows))
    return ", ".join(addresses[:_MAX_ADDRESSES]) + (" and others" if len(addresses) > _MAX_ADDRESSES else "")


async def _crossings(server: SystemServer, context: Context, findings: BrokerFindings) -> None:
    """Check the imports and exports between the fleet and the provisioning account (facts 18, 19)."""
    names = context.settings.accounts
    fleet, provisioning = await _account(server, names.fleet), await _account(server, names.provisioning)
    before = len(findings.items)
    for name, account, other, allowed in (
        (names.fleet, fleet, names.provisioning, LIFECYCLE),
        (names.provisioning, provisioning, names.fleet, ELECTION),
    ):
        for item in account.imports[:_MAX_FINDINGS]:
            if item.account not in (other, names.system) or (item.account == other and item.subject not in allowed):
                message = f"account {name} imports {item.subject} from {item.account}"
                findings.error(FindingCode.ISOLATION_IMPORT, message, RENDER)
    for name, account, other, allowed in (
        (names.fleet, fleet, names.provisioning, ELECTION),
        (names.provisioning, provisioning, names.fleet, LIFECYCLE),
    ):
        for item in account.exports[:_MAX_FINDINGS]:
            if item.subject not in allowed or item.approved_accounts != [other]:
                whom = ", ".join(item.approved_accounts) or "every account"
                findings.error(FindingCode.ISOLATION_EXPORT, f"account {name} exports {item.subject} to {whom}", RENDER)
    if len(findings.items) == before:
        findings.ok(
            FindingCode.ISOLATION_ACCOUNTS, "fleet and provisioning share only lifecycle events and the leader election"
        )
    if not {item.subject for item in fleet.imports} >= LIFECYCLE:
        message = "lifecycle events of unprovisioned nodes do not reach the fleet's streams"
        findings.warning(FindingCode.ISOLATION_LIFECYCLE, message, RENDER)
    if not {item.subject for item in provisioning.imports} >= ELECTION:
        findings.warning(FindingCode.ISOLATION_ELECTION, "provisioners cannot elect a leader", RENDER)


async def _account(server: SystemServer, name: str) -> _Account:
    data = await server.data("ACCOUNTZ", {"account": name})
    return msgspec.convert(data.get("account_detail") or {}, _Account, strict=False)


async def _leaf_links(server: SystemServer, context: Context, broker: BrokerSettings, findings: BrokerFindings) -> None:
    accounts = _link_accounts(context, broker)
    leafs = msgspec.convert((await server.data("LEAFZ")).get("leafs") or [], list[_Leaf], strict=False)
    for leaf in leafs[:_MAX_FINDINGS]:
        if leaf.account not in accounts:
            message = f"leaf link {leaf.name!r} is in account {leaf.account}, not {' or '.join(accounts)}"
            findings.error(FindingCode.LEAF_ACCOUNT, message, RENDER)
    linked = {leaf.account for leaf in leafs}
    missing = [account for account, required in accounts.items() if required and account not in linked]
    for account in missing:
        remedy = "see nats-server's log on both sides; start the edge or gate, check its certificate and leaf.remotes"
        unreachable = "nodes" if account == context.settings.accounts.provisioning else "the gates' members"
        message = f"the account {account} has no leaf link, so the fleet cannot reach {unreachable}"
        findings.error(FindingCode.LEAF_DOWN, message, remedy)
    if leafs and not missing and linked <= accounts.keys():
        findings.ok(FindingCode.LEAF_LINK, f"{len(leafs)} leaf links, all in the account {' or '.join(sorted(linked))}")


def _link_accounts(context: Context, broker: BrokerSettings) -> dict[str, bool]:
    """Return the accounts that a broker's leaf links may be in, and whether each must have one."""
    names, server = context.settings.accounts, broker.server
    if broker.role is Role.GATE:
        return {names.fleet: True}
    if broker.role is Role.EDGE:
        return {names.provisioning: True}
    accounts = {names.provisioning: server.leaf_listen is not None and bool(server.leaf_users)}
    if server.leaf_gates or server.leaf_branches:
        accounts[names.fleet] = bool(server.leaf_gates)
    return accounts
