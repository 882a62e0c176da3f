"""Who tries to get in, and what must happen: one real connection each.

The outcome is read from the service's audit records, which are written before the broker is
answered: a connection that failed without a record never got as far as being asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from broker_auth.demo.client import ConnectRefusedError, Credentials, connect
from broker_auth.demo.outcome import TLS_REFUSED, Outcome
from broker_auth.demo.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One connection. ``expected`` is ``in ACCOUNT``, ``denied: CODE`` or :data:`TLS_REFUSED`."""

    what: str
    url: str
    credentials: Credentials
    expected: str


async def try_all(site: Site, attempts: list[Attempt]) -> list[Outcome]:
    """Make each attempt, one after the other."""
    return [await try_one(site, attempt, f"attempt-{number}") for number, attempt in enumerate(attempts, 1)]


async def try_one(site: Site, attempt: Attempt, name: str) -> Outcome:
    """Connect as ``name``, and find out what was decided."""
    try:
        client = await connect(attempt.url, name, attempt.credentials)
    except ConnectRefusedError as error:
        record = site.audit_record(name)
        if record is not None:
            happened = f"denied: {record.code}"
        else:
            happened = "no answer" if "authorization" in str(error).lower() else TLS_REFUSED
    else:
        await client.close()
        record = site.audit_record(name)
        happened = f"in {record.account}" if record and record.decision == "admit" else "in, without a decision"
    return Outcome(what=attempt.what, expected=attempt.expected, happened=happened)


_WRONG: Final = "guessed"
IN_FLEET: Final = "in choria"
IN_PROVISIONING: Final = "in provisioning"
IN_SYSTEM: Final = "in system"


def x509_attempts(site: Site) -> list[Attempt]:
    """The attempts on a site where the fleet has certificates (edge and websocket topology)."""
    fleet, node = site.fleet_url, site.node_url
    good, plain = site.credentials("node"), Credentials(ca=site.ca)
    member, provisioner, operator = (site.credentials(who) for who in ("fleet", "provisioner", "system"))
    foreign = site.foreign_pair("provisioner.example.net")
    rows = [
        ("fleet member, mTLS", fleet, member, IN_FLEET),
        ("fleet listener, no certificate", fleet, plain, TLS_REFUSED),
        ("unprovisioned node with its token", node, good, IN_PROVISIONING),
        ("node without a token", node, plain, "denied: no_credential"),
        ("node, token of a foreign signer", node, replace(good, token=site.foreign_token()), "denied: token_signature"),
        ("node, expired token", node, replace(good, token=site.expired_token()), "denied: token_expired"),
        (
            "node's token on mTLS",
            fleet,
            replace(member, token=good.token),
            "denied: provisioning_token_on_verified_tls",
        ),
        ("provisioner, mTLS and password", fleet, provisioner, IN_PROVISIONING),
        (
            "provisioner, wrong password",
            fleet,
            replace(provisioner, password=_WRONG),
            "denied: provisioner_password",
        ),
        (
            "provisioner, right password, no mTLS",
            node,
            replace(provisioner, certificate=None, key=None),
            "denied: provisioner_not_verified",
        ),
        (
            "provisioner, certificate of a foreign CA",
            fleet,
            replace(provisioner, certificate=foreign[0], key=foreign[1]),
            TLS_REFUSED,
        ),
        (
            "fleet member as provisioner, right password",
            fleet,
            replace(provisioner, certificate=member.certificate, key=member.key),
            "denied: provisioner_identity",
        ),
        (
            "node as user provisioner",
            node,
            replace(good, user="provisioner", password=_WRONG),
            "denied: provisioner_password",
        ),
        ("system user, mTLS and password", fleet, operator, IN_SYSTEM),
        ("system user, wrong password", fleet, replace(operator, password=_WRONG), "denied: system_password"),
        (
            "system user, right password, no mTLS",
            node,
            replace(operator, certificate=None, key=None),
            "denied: system_token_missing",
        ),
    ]
    return [Attempt(what=what, url=url, credentials=given, expected=expected) for what, url, given, expected in rows]
