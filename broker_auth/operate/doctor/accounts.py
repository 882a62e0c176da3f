"""What only the system account shows: who sits in the callout account, what crosses between accounts, timeouts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from broker_auth.deploy.render import PROVISIONER_BUCKET
from broker_auth.errors import OperationError
from broker_auth.natsio.natspy import ExtendedClient
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import AUTH_QUEUE, AUTH_REQUEST_SUBJECT, CALLOUT_ACCOUNT
from broker_auth.operate.access import AccessError, part, refusal, request_json
from broker_auth.operate.doctor.finding import Case, Finding, Notes
from broker_auth.operate.doctor.listeners import RENDER, warn_of_expiry
from broker_auth.policy.permissions import NODE_EVENTS, PROVISIONER_EVENTS
from broker_auth.printable import printable
from broker_auth.settings.model import BrokerSettings, Role

MIN_TIMEOUT: Final = 3.0  # seconds; a storm of connects needs longer than nats-server's default of 2
LIFECYCLE: Final = frozenset({*NODE_EVENTS, *PROVISIONER_EVENTS})
ELECTION: Final = frozenset({f"$JS.API.STREAM.INFO.KV_{PROVISIONER_BUCKET}", f"$KV.{PROVISIONER_BUCKET}.provisioner"})
_MAX_FINDINGS: Final = 100  # of one kind at one broker
_SHOWN: Final = 500  # characters of what a broker made us say
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


class _Server(msgspec.Struct):
    """The parts of VARZ that are looked at."""

    auth_timeout: float = 0.0
    tls_timeout: float = 0.0
    leaf: _Listener = msgspec.field(default_factory=_Listener)
    websocket: _Listener = msgspec.field(default_factory=_Listener)


async def examine_accounts(case: Case, broker: BrokerSettings) -> list[Finding]:
    """One broker, from inside its system account."""
    notes = Notes(broker)
    try:
        system = await case.access.system(broker)
    except AccessError as error:
        said = "its system account does not open, so accounts, leaf link and timeouts were not looked at"
        notes.skipped("system.closed", said, str(error))
        return notes.findings
    try:
        await _timeouts(system, case, notes)
        if broker.server.store_dir is not None:
            await _jetstream(system, notes)
        await _callout_account(system, case, broker, notes)
        await _break_glass_used(system, case, broker, notes)
        if broker.role is not Role.EDGE:
            await _crossings(system, case, notes)
        await _leaf_links(system, case, broker, notes)
    except Exception as error:  # whatever a broker answers must not end the examination of the others
        said = printable(f"the system account does not tell: {error or type(error).__name__}", _SHOWN)
        notes.warning("system.answer", said, "use a supported nats-server")
    finally:
        await system.close()
    return notes.findings


async def _data(system: Client, what: str, options: object = None) -> dict[str, Any]:
    # This server, by its id: others of its cluster, and those linked with it, answer to PING.
    server = system.server_id if isinstance(system, ExtendedClient) else "PING"
    answer = await request_json(system, f"$SYS.REQ.SERVER.{server}.{what}", options)
    if (said := refusal(answer)) is not None:
        raise OperationError(f"{what}: {said}")
    return part(answer, "data")


async def _timeouts(system: Client, case: Case, notes: Notes) -> None:
    server = msgspec.convert(await _data(system, "VARZ"), _Server, strict=False)
    short = [
        f"{name} is {seconds:g} s"
        for name, seconds in (("authorization.timeout", server.auth_timeout), ("tls.timeout", server.tls_timeout))
        if seconds < MIN_TIMEOUT
    ]
    if short:
        said = f"{' and '.join(short)}: in a storm of reconnects clients are cut off before they are answered"
        notes.warning("timeouts.short", said, RENDER)
    else:
        notes.ok("timeouts", f"authorization {server.auth_timeout:g} s, TLS {server.tls_timeout:g} s")
    for name, listener in (("leaf", server.leaf), ("websocket", server.websocket)):
        if listener.tls_cert_not_after:
            not_after = datetime.fromisoformat(listener.tls_cert_not_after)
            warn_of_expiry(notes, f"{name}.certificate", f"the {name} listener's certificate", not_after, case)


async def _jetstream(system: Client, notes: Notes) -> None:
    """Look whether JetStream runs: when its disk is full it ends, and stays so after room is made."""
    if (await _data(system, "JSZ")).get("disabled"):
        said = "JetStream is configured but does not run: nats-server ends it when its disk is full"
        remedy = "make room where store_dir is, then restart this nats-server: it does not start JetStream by itself"
        notes.error("jetstream.down", said, remedy)
    else:
        notes.ok("jetstream", "JetStream runs")


async def _callout_account(system: Client, case: Case, broker: BrokerSettings, notes: Notes) -> None:
    """Nobody but services may be in it: the first reply to a request wins (fact 4)."""
    seed = case.settings.zone(broker.zone).nkey_seed
    if seed is None:
        notes.skipped("callout.account", "the seed of the service's user is not here", "run it where the service runs")
        return
    own = public_nkey(seed.reveal())
    rows = await _rows(system, {"acc": CALLOUT_ACCOUNT, "auth": True})
    foreign = [row for row in rows if row.authorized_user != own]
    for row in foreign[:_MAX_FINDINGS]:
        said = f"{row.kind} {row.authorized_user or row.name!r} from {row.ip} is in the callout account"
        notes.error("callout.foreigner", said, f"remove its user from account {CALLOUT_ACCOUNT}; {RENDER}")
    options = {"subscriptions": True, "account": CALLOUT_ACCOUNT, "test": AUTH_REQUEST_SUBJECT}
    listed = (await _data(system, "SUBSZ", options)).get("subscriptions_list") or []
    listeners = msgspec.convert(listed, list[_Subscription], strict=False)
    members = [item for item in listeners if item.qgroup == AUTH_QUEUE]
    if not members:
        notes.error("callout.nobody", "no service listens on this broker", "start broker-auth serve")
    elif len(members) == 1:
        remedy = "run a second broker-auth serve, or --workers 2, elsewhere if you can"
        notes.warning("callout.alone", "one service process answers for this broker; nothing covers for it", remedy)
    else:
        notes.ok("callout.replicas", f"{len(members)} service processes answer for this broker")
    if not foreign:
        notes.ok("callout.account", "nobody but the service is in the callout account")


async def _break_glass_used(system: Client, case: Case, broker: BrokerSettings, notes: Notes) -> None:
    nkey = case.settings.zone(broker.zone).break_glass_nkey
    if nkey is None or case.access.break_glass_of(broker) is not None:
        return  # the doctor itself is using it
    rows = await _rows(system, {"acc": case.settings.accounts.system, "auth": True, "state": _CLOSED_TOO})
    used = [row for row in rows if row.authorized_user == nkey]
    for row in used[:_MAX_FINDINGS]:
        said = f"the break-glass user came in at {row.start} from {row.ip}"
        notes.warning("break_glass.used", said, "if nobody knows why, replace its nkey and look at what was done")
    if not used:
        notes.ok("break_glass.unused", "the break-glass user has not been used as far back as nats-server remembers")


async def _rows(system: Client, options: dict[str, object]) -> list[_Row]:
    data = await _data(system, "CONNZ", {"limit": 1024} | options)
    return msgspec.convert(data.get("connections") or [], list[_Row], strict=False)


async def _crossings(system: Client, case: Case, notes: Notes) -> None:
    """What the accounts of fleet and provisioning show each other (facts 18, 19)."""
    names = case.settings.accounts
    fleet, provisioning = await _account(system, names.fleet), await _account(system, names.provisioning)
    before = len(notes.findings)
    for name, account, other, allowed in (
        (names.fleet, fleet, names.provisioning, LIFECYCLE),
        (names.provisioning, provisioning, names.fleet, ELECTION),
    ):
        for item in account.imports[:_MAX_FINDINGS]:
            if item.account not in (other, names.system) or (item.account == other and item.subject not in allowed):
                said = f"account {name} imports {item.subject} from {item.account}"
                notes.error("isolation.import", said, RENDER)
    for name, account, other, allowed in (
        (names.fleet, fleet, names.provisioning, ELECTION),
        (names.provisioning, provisioning, names.fleet, LIFECYCLE),
    ):
        for item in account.exports[:_MAX_FINDINGS]:
            if item.subject not in allowed or item.approved_accounts != [other]:
                whom = ", ".join(item.approved_accounts) or "every account"
                notes.error("isolation.export", f"account {name} exports {item.subject} to {whom}", RENDER)
    if len(notes.findings) == before:
        notes.ok("isolation.accounts", "fleet and provisioning share lifecycle events and the leader election only")
    if not {item.subject for item in fleet.imports} >= LIFECYCLE:
        said = "lifecycle events of waiting nodes do not reach the fleet's streams"
        notes.warning("isolation.lifecycle", said, RENDER)
    if not {item.subject for item in provisioning.imports} >= ELECTION:
        notes.warning("isolation.election", "provisioners cannot elect a leader", RENDER)


async def _account(system: Client, name: str) -> _Account:
    data = await _data(system, "ACCOUNTZ", {"account": name})
    return msgspec.convert(data.get("account_detail") or {}, _Account, strict=False)


async def _leaf_links(system: Client, case: Case, broker: BrokerSettings, notes: Notes) -> None:
    names = case.settings.accounts
    leafs = msgspec.convert((await _data(system, "LEAFZ")).get("leafs") or [], list[_Leaf], strict=False)
    for leaf in leafs[:_MAX_FINDINGS]:
        if leaf.account != names.provisioning:
            said = f"leaf link {leaf.name!r} is in account {leaf.account}, not {names.provisioning}"
            notes.error("leaf.account", said, RENDER)
    expected = broker.role is Role.EDGE or broker.server.leaf_listen is not None
    if not any(leaf.account == names.provisioning for leaf in leafs) and expected:
        remedy = "see nats-server's log on both sides; start the edge, check its certificate and leaf.remotes"
        notes.error("leaf.down", "no leaf link of the provisioning account: nodes wait unheard", remedy)
    elif leafs and all(leaf.account == names.provisioning for leaf in leafs):
        notes.ok("leaf.link", f"{len(leafs)} leaf links, of the provisioning account only")
