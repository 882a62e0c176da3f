"""A fleet whose servers decide by themselves: that they do, and by the passwords of the configuration."""

from __future__ import annotations

from typing import Final

from broker_auth.errors import OperationError
from broker_auth.operate.access import Access
from broker_auth.operate.answers import part, request_json
from broker_auth.operate.doctor.callout import examine_known_break_glass
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.operate.logins import CANARY, AccessError, Login, connect
from broker_auth.policy.rules import PROVISIONER
from broker_auth.settings.checks.fleet_auth import STATIC_MEMBER
from broker_auth.settings.model import BrokerSettings

_RENDER: Final = "render its configuration again with `broker-auth config render`, and restart nats-server"
_RELOAD: Final = "render its configuration again with `broker-auth config render`, and reload nats-server"


async def examine_static(context: Context, broker: BrokerSettings) -> list[Finding]:
    """Look at one broker of a static fleet, at the first of its addresses."""
    findings = BrokerFindings(broker)
    access, url = context.access, broker.urls[0]
    if not await examine_member(access, broker, url, findings):
        return findings.items
    await _passwords(access, broker, url, findings)
    await examine_known_break_glass(context, broker, findings)
    return findings.items


async def examine_member(access: Access, broker: BrokerSettings, url: str, findings: BrokerFindings) -> bool:
    """Note whether the server makes a member of the service's certificate by itself, and return that."""
    login = Login(what="the service's certificate")
    try:
        client = await connect(url, login, access.tls(broker))
    except AccessError as error:
        message = f"{url} does not let the service's certificate in: {error}"
        findings.error(
            FindingCode.STATIC_MEMBER, message, f"start nats-server, or correct its CA; if it asks a service, {_RENDER}"
        )
        return False
    try:
        data = part(await request_json(client, "$SYS.REQ.USER.INFO"), "data")
    except OperationError as error:
        findings.error(FindingCode.STATIC_MEMBER, f"{url}: {error}", "use a supported nats-server")
        return False
    finally:
        await client.close()
    account = data.get("account")
    if account != access.settings.accounts.fleet:
        message = f"{url} lets a certificate without credentials into account {account}, not the fleet's"
        findings.error(FindingCode.STATIC_MEMBER, message, _RENDER)
    elif data.get("user") != STATIC_MEMBER:
        message = f"{url} still asks a service, which fleet.auth = static takes away from it"
        findings.error(FindingCode.STATIC_ASKS, message, _RENDER)
    else:
        findings.ok(FindingCode.STATIC_MEMBER, "a certificate without credentials is a member of the fleet")
        return True
    return False


async def _passwords(access: Access, broker: BrokerSettings, url: str, findings: BrokerFindings) -> None:
    """Log in as the provisioner and the system user: the server holds hashes made when it was rendered."""
    settings = access.settings
    logins = []
    if settings.provisioning.enabled:
        password = settings.provisioning.client_passwords[0]
        logins.append(Login(what="the user provisioner", user=PROVISIONER, password=password))
    if settings.system_user is not None:
        logins.append(access.system_login())
    for login in logins:
        if await _enters(access, broker, url, login):
            findings.ok(FindingCode.STATIC_PASSWORD, f"{login.what} gets in with the configured password")
        else:
            message = f"{login.what} is refused with the configured password: the server was rendered with another one"
            findings.error(FindingCode.STATIC_PASSWORD, message, _RELOAD)


async def _enters(access: Access, broker: BrokerSettings, url: str, login: Login) -> bool:
    try:
        client = await connect(url, login.called(CANARY), access.tls(broker))
    except AccessError:
        return False
    await client.close()
    return True
