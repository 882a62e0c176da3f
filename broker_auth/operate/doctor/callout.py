"""The callout itself: canaries that must be refused, one that must get in, and what the service's user may do.

The service's own nkey user hears why nats-server refused a connection (fact 13), which tells a
service that answered from one that did not, and a broker that knows the break-glass user from one that
asks the service about it.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Final

from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.natsio.account_connections import connections_subject
from broker_auth.natsio.natspy import violates
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT, CALLOUT_ACCOUNT, PEERS_SUBJECT
from broker_auth.operate.access import CANARY, AccessError, Login, connect, request_json
from broker_auth.operate.doctor.finding import Case, Finding, Notes
from broker_auth.operate.doctor.listeners import RENDER
from broker_auth.operate.doctor.probe import Target, Unreachable, Verdict
from broker_auth.operate.doctor.refusals import EVENT_SECONDS, Refusal, Refusals
from broker_auth.settings.model import BrokerSettings, Role, Settings

LIMIT_SECONDS: Final = 2.0  # clients give up then, whatever the server's timeout is (fact 10)
SLOW_SECONDS: Final = 0.5
SKEW_WARNING: Final = 1.0  # seconds; tokens' times are checked to the second
SKEW_ERROR: Final = 5.0  # half the 10 s in which a request is valid
_ANSWERED: Final = "Auth callout service returned an error"
_BAD_TOKEN: Final = "bm9uZQ.bm9uZQ.bm9uZQ"


async def examine_callout(case: Case, broker: BrokerSettings) -> list[Finding]:
    """The callout of one broker, at the first of its addresses that is no WebSocket."""
    notes = Notes(broker)
    target = next((item for item in map(Target, broker.urls) if not item.websocket), None)
    if target is None:
        notes.skipped("callout", "all addresses are WebSocket", "add a tls:// URL of this broker")
        return notes.findings
    if case.settings.zone(broker.zone).nkey_seed is None:
        notes.skipped("callout", "the service's seed is not here", "run it where the service runs")
        return notes.findings
    try:
        service = await case.access.callout(broker)
    except AccessError as error:
        said = f"the service's nkey is not let in: {error}"
        remedy = f"list it in auth_users and in the callout account; {RENDER}"
        notes.error("callout.user", said, remedy)
        return notes.findings
    try:
        await _examine(case, broker, target, service, notes)
    except Unreachable as error:
        notes.error("listener.unreachable", str(error), "start nats-server there, or correct broker.<name>.urls")
    finally:
        await service.close()
    return notes.findings


async def _examine(case: Case, broker: BrokerSettings, target: Target, service: Client, notes: Notes) -> None:
    await _rights(service, notes)
    await examine_counting(case.settings, broker, service, notes)
    listener = Refusals(service, case)
    await listener.start()
    answered = await _bad_token(case, broker, target, listener, notes)
    await _break_glass(case, broker, target, listener, notes)
    if answered:
        await _ways_in(case, broker, target, listener, notes)


# --- What the service's user may do (fact 4)


async def _rights(service: Client, notes: Notes) -> None:
    subject = f"broker-auth.doctor.{secrets.token_hex(8)}"
    before = len(notes.findings)
    if not await violates(service, lambda: service.publish(subject, b"")):
        said = "the service's user may publish anything, so whoever steals its seed can answer for it"
        notes.error("callout.may_publish", said, RENDER)
    if not await violates(service, lambda: _look_in(service, ">")):
        notes.error("callout.may_listen", "the service's user may listen to everything in the callout account", RENDER)
    if not await violates(service, lambda: _look_in(service, AUTH_REQUEST_SUBJECT)):
        said = "the service's user may listen to requests outside the queue group, unseen by the others"
        notes.warning("callout.outside_queue", said, RENDER)
    if await violates(service, lambda: _look_in(service, PEERS_SUBJECT)):
        said = "workers may not hear one another, so a host that falls silent costs logins until it is noticed"
        notes.warning("callout.unheard", said, RENDER)
    if len(notes.findings) == before:
        notes.ok("callout.rights", "the service's user may do its work and nothing else")


async def examine_counting(settings: Settings, broker: BrokerSettings, service: Client, notes: Notes) -> None:
    """Note whether the service can keep provisioners a place (docs/policy.md#the-places-of-provisioners)."""
    if not broker.takes_nodes_and_provisioners:
        return
    for account in (settings.accounts.provisioning, CALLOUT_ACCOUNT):
        subject = connections_subject(account)
        if await violates(service, lambda subject=subject: _look_in(service, subject)):  # type: ignore[misc]
            said = "the service's user may not count connections, so nodes can take the places of provisioners"
            notes.warning("callout.no_count", said, RENDER)
            return


async def _look_in(client: Client, subject: str) -> None:
    subscription = await client.subscribe(subject)
    await client.flush()
    await subscription.unsubscribe()


# --- Canaries


async def _bad_token(case: Case, broker: BrokerSettings, target: Target, listener: Refusals, notes: Notes) -> bool:
    """A token nobody signed must be refused, by the service, and soon. Returns whether a service answered."""
    outcome, refusal = await listener.attempt(target, case.access.tls(broker), {"auth_token": _BAD_TOKEN})
    if outcome.verdict is Verdict.ADMITTED:
        notes.error("callout.admits_anybody", "a token that nobody signed is let in", RENDER)
        return False
    if outcome.verdict is Verdict.TLS_FAILED:
        return False  # told by the listener's check
    if outcome.verdict is Verdict.SILENT or not outcome.said.startswith("Authorization"):
        said = f"nobody answers for this broker: {outcome.said}"
        remedy = (
            "start broker-auth serve; if it runs, xkey and seeds differ: compare xkey_seed_file with the broker's "
            "xkey, and see the service's log for requests not answered"
        )
        notes.error("callout.no_answer", said, remedy)
        return False
    if refusal is None or _ANSWERED not in refusal.reason:
        said = "a connection was refused without the service"
        told = f"{said}: {refusal.reason}" if refusal else f"{said}, or its user may not hear of refusals"
        notes.error("callout.not_asked", told, RENDER)
        return False
    notes.ok("callout.denies", f"a token that nobody signed is refused by the service ({refusal.reason})")
    _latency(outcome.seconds, notes)
    _skew(refusal.ahead, notes)
    return True


def _latency(seconds: float, notes: Notes) -> None:
    said = f"an answer takes {seconds * 1000:.0f} ms; clients give up at {LIMIT_SECONDS * 1000:.0f} ms"
    remedy = "add services or workers, and look for what else runs on that host"
    if seconds >= LIMIT_SECONDS:
        notes.error("callout.latency", said, remedy)
    elif seconds >= SLOW_SECONDS:
        notes.warning("callout.latency", said, remedy)
    else:
        notes.ok("callout.latency", said)


def _skew(ahead: float | None, notes: Notes) -> None:
    if ahead is None:
        return
    said = f"the broker's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    remedy = "synchronize both clocks (chrony, systemd-timesyncd)"
    if abs(ahead) >= SKEW_ERROR:
        notes.error("clock.skew", said, remedy)
    elif abs(ahead) >= SKEW_WARNING:
        notes.warning("clock.skew", said, remedy)
    else:
        notes.ok("clock.skew", said)


async def _break_glass(case: Case, broker: BrokerSettings, target: Target, listener: Refusals, notes: Notes) -> None:
    """Whether the broker knows the break-glass user; tried with a signature that cannot be right."""
    nkey = case.settings.zone(broker.zone).break_glass_nkey
    if nkey is None:
        said = "no break-glass user: when no service runs, nobody can look into this broker"
        notes.warning("break_glass.none", said, f"make a user nkey, set plugin.broker_auth.break_glass_nkey; {RENDER}")
        return
    if case.access.break_glass_of(broker) is not None:
        try:
            await (await case.access.system(broker)).close()
        except OperationError as error:
            notes.error("break_glass.login", str(error), RENDER)
        else:
            notes.ok("break_glass.login", "the break-glass user gets into the system account")
        return
    outcome, refusal = await listener.attempt(target, case.access.tls(broker), {"nkey": nkey, "sig": "AAAA"})
    if outcome.verdict is not Verdict.REFUSED or (refusal is not None and _ANSWERED in refusal.reason):
        said = "the broker asks the service about the break-glass user, so it is no way in without one"
        notes.error("break_glass.unknown", said, RENDER)
    else:
        notes.ok("break_glass.known", "the broker knows the break-glass user")


async def _ways_in(case: Case, broker: BrokerSettings, target: Target, listener: Refusals, notes: Notes) -> None:
    """Admissions, which unlike refusals show that the broker takes the service's signature for an answer."""
    tried = False
    if case.provisioning_token is not None and broker.role is not Role.FLEET:
        tried = True
        login = Login(what="a node", token=case.provisioning_token)
        await _way_in(case, broker, target, listener, notes, login, case.settings.accounts.provisioning)
    if broker.role is Role.FLEET and (not case.settings.issuer_mode or case.settings.pub_sub_ca):
        tried = True
        login = Login(what="the configured certificate")
        await _way_in(case, broker, target, listener, notes, login, case.settings.accounts.fleet)
    proven = broker.role is Role.SINGLE and case.access.proof is not None
    if case.settings.system_user is not None and (broker.role is Role.FLEET or proven):
        tried = True
        login = case.access.system_login()
        await _way_in(case, broker, target, listener, notes, login, case.settings.accounts.system)
    if case.settings.system_user is None and broker.role is Role.FLEET:
        remedy = "set plugin.choria.network.system.user and system.password"
        notes.warning("system.no_user", "no system user, so reports need the break-glass seed", remedy)
    if not tried:
        said = "nobody whose credentials are here may enter, so the broker's issuer was not compared with ours"
        remedy = "give --provisioning-token FILE" if broker.role is not Role.FLEET else "configure a system user"
        notes.skipped("callout.admits", said, remedy)


async def _way_in(
    case: Case,
    broker: BrokerSettings,
    target: Target,
    listener: Refusals,
    notes: Notes,
    login: Login,
    account: str,
) -> None:
    name = f"{CANARY}-{secrets.token_hex(6)}"
    told = listener.named(name)
    try:
        client = await connect(target.url, login.called(name), case.access.tls(broker))
    except AccessError as error:
        await _refused(login, told, error, notes)
        return
    try:
        if account == case.settings.accounts.provisioning:
            notes.ok("callout.admits", f"{login.what} gets in")
            return
        answer = await request_json(client, "$SYS.REQ.USER.INFO")
        found = (answer.get("data") or {}).get("account")
        if found == account:
            notes.ok("callout.admits", f"{login.what} gets into account {account}")
        else:
            said = f"{login.what} gets into account {found}, not {account}: something else than the service let it in"
            notes.error("callout.account", said, f"look for no_auth_user; {RENDER}")
    except OperationError as error:
        notes.error("callout.account", f"{login.what} got in, but: {error}", RENDER)
    finally:
        await client.close()


async def _refused(login: Login, told: asyncio.Future[Refusal], error: AccessError, notes: Notes) -> None:
    try:
        reason = (await asyncio.wait_for(told, EVENT_SECONDS)).reason or str(error)
    except TimeoutError:
        reason = str(error)
    if "issuer" in reason.lower():
        remedy = f"issuer_seed_file and the broker's issuer differ; {RENDER}"
        notes.error("callout.issuer", f"the broker does not take the service's answers: {reason}", remedy)
    else:
        remedy = "see broker-auth why for the reason"
        notes.error("callout.refuses", f"{login.what} is refused: {reason}", remedy)
