"""Checks of the callout: canaries that must be refused, logins that must succeed, permissions of the service's user.

The service's nkey user receives the reason why nats-server refused a connection (fact 13). It shows whether a service
answered, and whether the broker knows the break-glass user or uses the callout for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import Final

from nats.aio.client import Client

from broker_auth.errors import OperationError
from broker_auth.natsio.account_connections import connections_subject
from broker_auth.natsio.natspy import violates
from broker_auth.natsio.nkey import public_nkey
from broker_auth.natsio.subjects import AUTH_REQUEST_SUBJECT, CALLOUT_ACCOUNT, PEERS_SUBJECT
from broker_auth.operate.answers import request_json
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.operate.doctor.listeners import RENDER
from broker_auth.operate.doctor.probe import ProbeTarget, Unreachable, Verdict
from broker_auth.operate.doctor.refusals import EVENT_SECONDS, Refusal, Refusals
from broker_auth.operate.logins import CANARY, AccessError, Login, connect
from broker_auth.secret import Secret
from broker_auth.settings.model import BrokerSettings, Role, Settings
from broker_auth.tokens.bounds import bounds_of
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse

LIMIT_SECONDS: Final = 2.0  # clients give up then, regardless of the server's timeout (fact 10)
SLOW_SECONDS: Final = 0.5
SKEW_WARNING: Final = 1.0  # seconds; times of tokens are checked to the second
SKEW_ERROR: Final = 5.0  # half of the 10 s in which a request is valid
_ANSWERED: Final = "Auth callout service returned an error"
_BAD_TOKEN: Final = "bm9uZQ.bm9uZQ.bm9uZQ"


async def examine_callout(context: Context, broker: BrokerSettings) -> list[Finding]:
    """Examine the callout of a broker at its first address that is not WebSocket."""
    findings = BrokerFindings(broker)
    target = next((item for item in map(ProbeTarget, broker.urls) if not item.websocket), None)
    if target is None:
        findings.skipped(FindingCode.CALLOUT, "all addresses are WebSocket", "add a tls:// URL of this broker")
        return findings.items
    if context.settings.zone(broker.zone).nkey_seed is None:
        findings.skipped(
            FindingCode.CALLOUT, "the service's seed is not available here", "run the doctor where the service runs"
        )
        return findings.items
    try:
        service = await context.access.callout(broker)
    except AccessError as error:
        message = f"the service's nkey is refused: {error}"
        remedy = f"list it in auth_users and in the callout account; {RENDER}"
        findings.error(FindingCode.CALLOUT_USER, message, remedy)
        return findings.items
    try:
        await _examine(context, broker, target, service, findings)
    except Unreachable as error:
        findings.error(
            FindingCode.LISTENER_UNREACHABLE, str(error), "start nats-server there, or correct broker.<name>.urls"
        )
    finally:
        await service.close()
    return findings.items


async def _examine(
    context: Context, broker: BrokerSettings, target: ProbeTarget, service: Client, findings: BrokerFindings
) -> None:
    await _rights(service, findings)
    await examine_counting(context.settings, broker, service, findings)
    listener = Refusals(service, context)
    await listener.start()
    await _clock(context, broker, target, listener, findings)
    answered = await _bad_token(context, broker, target, listener, findings)
    await _break_glass(context, broker, target, listener, findings)
    await _kick_user(context, broker, target, listener, findings)
    await _readers(context, broker, target, listener, findings)
    if answered:
        await _logins(context, broker, target, listener, findings)


# --- What the service's user may do (fact 4)


async def _rights(service: Client, findings: BrokerFindings) -> None:
    subject = f"broker-auth.doctor.{secrets.token_hex(8)}"
    before = len(findings.items)
    if not await violates(service, lambda: service.publish(subject, b"")):
        message = "the service's user may publish anything, so a stolen seed can be used to answer requests"
        findings.error(FindingCode.CALLOUT_MAY_PUBLISH, message, RENDER)
    if not await violates(service, lambda: _look_in(service, ">")):
        findings.error(
            FindingCode.CALLOUT_MAY_LISTEN,
            "the service's user may subscribe to everything in the callout account",
            RENDER,
        )
    if not await violates(service, lambda: _look_in(service, AUTH_REQUEST_SUBJECT)):
        message = "the service's user may subscribe to requests outside the queue group, unnoticed by other services"
        findings.warning(FindingCode.CALLOUT_OUTSIDE_QUEUE, message, RENDER)
    if await violates(service, lambda: _look_in(service, PEERS_SUBJECT)):
        message = "workers cannot exchange messages, so a host that hangs costs logins until it is detected"
        findings.warning(FindingCode.CALLOUT_UNHEARD, message, RENDER)
    if len(findings.items) == before:
        findings.ok(FindingCode.CALLOUT_RIGHTS, "the service's user has exactly the permissions that it needs")


async def examine_counting(
    settings: Settings, broker: BrokerSettings, service: Client, findings: BrokerFindings
) -> None:
    """Check that the service can reserve places for provisioners (docs/policy.md#the-places-of-provisioners)."""
    if not broker.takes_nodes_and_provisioners:
        return
    for account in (settings.accounts.provisioning, CALLOUT_ACCOUNT):
        subject = connections_subject(account)
        if await violates(service, lambda subject=subject: _look_in(service, subject)):  # type: ignore[misc]
            message = "the service's user may not count connections, so nodes can use the places of provisioners"
            findings.warning(FindingCode.CALLOUT_NO_COUNT, message, RENDER)
            return


async def _look_in(client: Client, subject: str) -> None:
    subscription = await client.subscribe(subject)
    await client.flush()
    await subscription.unsubscribe()


# --- Canaries


async def _bad_token(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> bool:
    """Check that the service refuses a token without a valid signature; return whether a service answered."""
    outcome, refusal = await listener.attempt(target, context.access.tls(broker), {"auth_token": _BAD_TOKEN})
    if outcome.verdict is Verdict.ADMITTED:
        findings.error(FindingCode.CALLOUT_ADMITS_ANYBODY, "a token without a valid signature is admitted", RENDER)
        return False
    if outcome.verdict is Verdict.TLS_FAILED:
        return False  # reported by the check of the listener
    if outcome.verdict is Verdict.SILENT or not outcome.message.startswith("Authorization"):
        message = f"no service answers: {outcome.message}"
        remedy = (
            "start broker-auth serve; if it runs, keys differ: compare xkey_seed_file with the broker's xkey, and "
            "see the service's log for requests not answered"
        )
        findings.error(FindingCode.CALLOUT_NO_ANSWER, message, remedy)
        return False
    if refusal is None or _ANSWERED not in refusal.reason:
        message = "a connection was refused without the service"
        message += f": {refusal.reason}" if refusal else ", or its user may not receive refusals"
        findings.error(FindingCode.CALLOUT_NOT_ASKED, message, RENDER)
        return False
    findings.ok(FindingCode.CALLOUT_DENIES, f"the service refuses a token without a valid signature ({refusal.reason})")
    _latency(outcome.seconds, findings)
    return True


def _latency(seconds: float, findings: BrokerFindings) -> None:
    message = f"an answer takes {seconds * 1000:.0f} ms; clients give up at {LIMIT_SECONDS * 1000:.0f} ms"
    remedy = "add services or workers, and check the load of that host"
    if seconds >= LIMIT_SECONDS:
        findings.error(FindingCode.CALLOUT_LATENCY, message, remedy)
    elif seconds >= SLOW_SECONDS:
        findings.warning(FindingCode.CALLOUT_LATENCY, message, remedy)
    else:
        findings.ok(FindingCode.CALLOUT_LATENCY, message)


async def _clock(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> None:
    """Compare the server's clock with ours: by a refusal of the service's user, which needs no service."""
    seed = context.settings.zone(broker.zone).nkey_seed
    if seed is None:
        return
    wrong = {"nkey": public_nkey(seed.reveal()), "sig": "AAAA"}
    _, refusal = await listener.attempt(target, context.access.tls(broker), wrong)
    if refusal is not None and refusal.ahead is not None:
        _skew(refusal.ahead, findings)


def _skew(ahead: float, findings: BrokerFindings) -> None:
    message = f"the broker's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    remedy = "synchronize both clocks (chrony, systemd-timesyncd)"
    if abs(ahead) >= SKEW_ERROR:
        findings.error(FindingCode.CLOCK_SKEW, message, remedy)
    elif abs(ahead) >= SKEW_WARNING:
        findings.warning(FindingCode.CLOCK_SKEW, message, remedy)
    else:
        findings.ok(FindingCode.CLOCK_SKEW, message)
    findings.items[-1] = dataclasses.replace(findings.items[-1], ahead=ahead)


async def _break_glass(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> None:
    """Check that the broker knows the break-glass user, with an invalid signature."""
    nkey = context.settings.zone(broker.zone).break_glass_nkey
    if await examine_known_break_glass(context, broker, findings) or nkey is None:
        return
    if await _knows(context, broker, target, listener, nkey):
        findings.ok(FindingCode.BREAK_GLASS_KNOWN, "the broker knows the break-glass user")
    else:
        message = "the broker uses the callout for the break-glass user, so it cannot log in without a service"
        findings.error(FindingCode.BREAK_GLASS_UNKNOWN, message, RENDER)


async def _kick_user(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> None:
    """Check that the broker knows the kick user, with an invalid signature, because its seed may be elsewhere."""
    nkey = context.settings.zone(broker.zone).kick_nkey
    if nkey is None:
        return
    if await _knows(context, broker, target, listener, nkey):
        findings.ok(FindingCode.KICK_KNOWN, "the broker knows the kick user")
    else:
        message = "the broker uses the callout for the kick user, so `revoke` and `sweep` cannot end its sessions"
        findings.error(FindingCode.KICK_UNKNOWN, message, RENDER)


async def _readers(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> None:
    """Check that the broker with the buckets knows each reader, with an invalid signature: seeds are elsewhere."""
    readers = context.settings.readers if broker == context.settings.main_broker else {}
    unknown = [zone for zone, nkey in readers.items() if not await _knows(context, broker, target, listener, nkey)]
    if unknown:
        message = (
            f"the broker uses the callout for the reader of {', '.join(unknown)}: hosts there learn of no revocation"
        )
        findings.error(FindingCode.READER_UNKNOWN, message, RENDER)
    elif readers:
        findings.ok(FindingCode.READER_KNOWN, "the broker knows the readers of other zones")


async def _knows(context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, nkey: str) -> bool:
    """Return whether a broker decides about a user by itself."""
    outcome, refusal = await listener.attempt(target, context.access.tls(broker), {"nkey": nkey, "sig": "AAAA"})
    return outcome.verdict is Verdict.REFUSED and (refusal is None or _ANSWERED not in refusal.reason)


async def examine_known_break_glass(context: Context, broker: BrokerSettings, findings: BrokerFindings) -> bool:
    """Check that there is a break-glass user, and log in as it if its seed was given; return whether that was all."""
    if context.settings.zone(broker.zone).break_glass_nkey is None:
        message = "no break-glass user is configured: without a running service this broker cannot be inspected"
        findings.warning(
            FindingCode.BREAK_GLASS_NONE,
            message,
            f"create a user nkey, set plugin.broker_auth.break_glass_nkey; {RENDER}",
        )
        return True
    if context.access.break_glass_of(broker) is None:
        return False
    try:
        await (await context.access.system(broker)).close()
    except OperationError as error:
        findings.error(FindingCode.BREAK_GLASS_LOGIN, str(error), RENDER)
    else:
        findings.ok(FindingCode.BREAK_GLASS_LOGIN, "the break-glass user can log in to the system account")
    return True


_MORE_CREDENTIALS: Final = {
    Role.FLEET: "configure a system user",
    Role.SINGLE: "use --provisioning-token FILE",
    Role.MIXED: "configure a system user",
    Role.EDGE: "use --provisioning-token FILE",
    Role.GATE: "connect a member to it, and check its audit record",
}


async def _logins(
    context: Context, broker: BrokerSettings, target: ProbeTarget, listener: Refusals, findings: BrokerFindings
) -> None:
    """Check logins, which unlike refusals show that the broker accepts the service's signature."""
    tried = False
    if context.provisioning_token is not None and broker.role in (Role.EDGE, Role.SINGLE, Role.MIXED):
        tried = True
        obstacle = _obstacle(context.provisioning_token)
        if obstacle is None:
            login = Login(what="a node", token=context.provisioning_token)
            await _login(context, broker, target, listener, findings, login, context.settings.accounts.provisioning)
        else:
            findings.skipped(FindingCode.CALLOUT_ADMITS, *obstacle)
    if broker.role.verifies_clients and (not context.settings.issuer_mode or context.settings.pub_sub_ca):
        tried = True
        login = Login(what="the configured certificate")
        await _login(context, broker, target, listener, findings, login, context.settings.accounts.fleet)
    proven = broker.role is Role.SINGLE and context.access.proof is not None
    if context.settings.system_user is not None and (broker.role.verifies_clients or proven):
        tried = True
        login = context.access.system_login()
        await _login(context, broker, target, listener, findings, login, context.settings.accounts.system)
    if context.settings.system_user is None and broker.role.verifies_clients:
        remedy = "set plugin.choria.network.system.user and system.password"
        findings.warning(
            FindingCode.SYSTEM_NO_USER, "no system user is configured, so reports need the break-glass seed", remedy
        )
    if not tried:
        message = "no credentials for a login are available here, so the broker's issuer was not compared with ours"
        remedy = _MORE_CREDENTIALS[broker.role]
        findings.skipped(FindingCode.CALLOUT_ADMITS, message, remedy)


def _obstacle(token: Secret) -> tuple[str, str] | None:
    """Return why the doctor cannot log in by a provisioning token, and a remedy; None if it can, as far as is read."""
    try:
        bounds = bounds_of(parse(token.reveal()).claims)
    except TokenRejected:
        return None  # the login shows what is wrong with it
    if bounds is not None and bounds.max_nodes is not None:
        what = "the provisioning token is for a number of nodes, and the doctor's login would count as one of them"
        return what, "give one without --max-nodes"
    if bounds is not None and not bounds.allow_name(_canary()):
        what = "the provisioning token is for nodes with other names than the doctor's"
        return what, f"give one for any name, or one with --for-name '/{CANARY}-\\w+/'"
    return None


def _canary() -> str:
    return f"{CANARY}-{secrets.token_hex(6)}"


async def _login(
    context: Context,
    broker: BrokerSettings,
    target: ProbeTarget,
    listener: Refusals,
    findings: BrokerFindings,
    login: Login,
    account: str,
) -> None:
    name = _canary()
    reported = listener.named(name)
    node = account == context.settings.accounts.provisioning
    tls = context.access.tls_of_node(broker) if node else context.access.tls(broker)
    try:
        client = await connect(target.url, login.called(name), tls)
    except AccessError as error:
        await _refused(login, reported, error, findings)
        return
    try:
        if node:
            findings.ok(FindingCode.CALLOUT_ADMITS, f"{login.what} can log in")
            return
        answer = await request_json(client, "$SYS.REQ.USER.INFO")
        placed = (answer.get("data") or {}).get("account")
        if placed == account:
            findings.ok(FindingCode.CALLOUT_ADMITS, f"{login.what} can log in to account {account}")
        else:
            message = f"{login.what} is placed in account {placed}, not {account}: it was admitted without the service"
            findings.error(FindingCode.CALLOUT_ACCOUNT, message, f"remove no_auth_user; {RENDER}")
    except OperationError as error:
        findings.error(FindingCode.CALLOUT_ACCOUNT, f"{login.what} logged in, but: {error}", RENDER)
    finally:
        await client.close()


async def _refused(
    login: Login, reported: asyncio.Future[Refusal], error: AccessError, findings: BrokerFindings
) -> None:
    try:
        reason = (await asyncio.wait_for(reported, EVENT_SECONDS)).reason or str(error)
    except TimeoutError:
        reason = str(error)
    if "issuer" in reason.lower():
        remedy = f"issuer_seed_file and the broker's issuer differ; {RENDER}"
        findings.error(
            FindingCode.CALLOUT_ISSUER, f"the broker does not accept the service's answers: {reason}", remedy
        )
    else:
        remedy = "see broker-auth why for the reason"
        findings.error(FindingCode.CALLOUT_REFUSES, f"{login.what} is refused: {reason}", remedy)
