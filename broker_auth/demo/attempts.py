"""Who tries to get in, and what must happen: one real connection each.

The outcome is read from the service's audit records, which are written within moments of the answer: a
connection that failed without a record never got as far as being asked about.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from broker_auth.demo.outcome import TLS_REFUSED, Outcome
from broker_auth.deploy.pki import signer
from broker_auth.deploy.plan import Topology
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.holders import DAY, Holder, Issuer
from broker_auth.sandbox.site import Site
from broker_auth.tokens.issue import load_signing_key, new_seed, signing_key_from_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One connection. ``expected`` is ``in ACCOUNT``, ``denied: CODE`` or :data:`TLS_REFUSED`."""

    what: str
    url: str
    credentials: Credentials
    expected: str


async def try_all(site: Site, tried: list[Attempt]) -> list[Outcome]:
    """Make each attempt, one after the other."""
    return [await try_one(site, attempt, f"attempt-{number}") for number, attempt in enumerate(tried, 1)]


async def try_one(site: Site, attempt: Attempt, name: str) -> Outcome:
    """Connect as ``name``, and find out what was decided."""
    try:
        client = await connect(attempt.url, name, attempt.credentials)
    except ConnectRefusedError as error:
        asked = "authorization" in str(error).lower()
        record = site.audit_record(name) if asked else site.audit_record(name, _GRACE_SECONDS)
        missing = "no answer" if asked else TLS_REFUSED
        happened = missing if record is None else f"denied: {record.code}"
    else:
        await client.close()
        record = site.audit_record(name)
        happened = f"in {record.account}" if record and record.decision == "admit" else "in, without a decision"
    return Outcome(what=attempt.what, expected=attempt.expected, happened=happened)


_GRACE_SECONDS: Final = 0.2
_WRONG: Final = "guessed"
WRONG_PASSWORD: Final = "denied: provisioner_password"
IN_FLEET: Final = "in choria"
IN_PROVISIONING: Final = "in provisioning"
IN_SYSTEM: Final = "in system"
Row = tuple[str, str, Credentials, str]


def attempts(site: Site) -> list[Attempt]:
    """Everything that is tried on a site of this topology."""
    rows = _issuer_rows(site) if site.topology is Topology.SINGLE else _x509_rows(site)
    return [Attempt(what=what, url=url, credentials=given, expected=expected) for what, url, given, expected in rows]


def _x509_rows(site: Site) -> list[Row]:
    """Where the fleet has certificates: the edge and the websocket topology."""
    fleet, node = site.fleet_url, site.node_url
    edge = site.topology is Topology.EDGE
    good, plain = site.credentials("node"), Credentials(ca=site.ca)
    member, provisioner, operator = (site.credentials(who) for who in ("fleet", "provisioner", "system"))
    foreign = site.foreign_pair("provisioner.example.net")
    foreign_signer = Issuer(load_signing_key(signer("foreign signer").key_pem, "foreign signer"))
    return [
        ("fleet member, mTLS", fleet, member, IN_FLEET),
        ("fleet listener, no certificate", fleet, plain, TLS_REFUSED),
        ("unprovisioned node with its token", node, good, IN_PROVISIONING),
        ("node without a token", node, plain, "denied: no_credential"),
        (
            "node, token of a foreign signer",
            node,
            replace(good, token=foreign_signer.node_token()),
            "denied: token_signature",
        ),
        ("node, expired token", node, replace(good, token=_expired(site)), "denied: token_expired"),
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
            "denied: edge_provisioner" if edge else "denied: provisioner_not_verified",
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
            "denied: edge_provisioner" if edge else WRONG_PASSWORD,
        ),
        ("system user, mTLS and password", fleet, operator, IN_SYSTEM),
        ("system user, wrong password", fleet, replace(operator, password=_WRONG), "denied: system_password"),
        (
            "system user, right password, no mTLS",
            node,
            replace(operator, certificate=None, key=None),
            "denied: edge_system_user" if edge else "denied: system_token_missing",
        ),
        *_token_rows(site, fleet, member),
    ]


def _issuer_rows(site: Site) -> list[Row]:
    """Where nobody has a certificate and everyone a token: the single topology."""
    url, plain = site.fleet_url, Credentials(ca=site.ca)
    node, provisioner, operator = (site.credentials(who) for who in ("node", "provisioner", "system"))
    powerless = site.issuer.client("up=bob")
    chained = site.issuer.client_by_chain("up=carol", "fleet_management")
    forged = site.issuer.client_by_chain("up=mallory", "org_admin", foreign=True)
    return [
        ("nobody", url, plain, "denied: no_credential"),
        *_token_rows(site, url, plain),
        ("client, token by a chain issuer", url, _held(plain, chained), IN_FLEET),
        ("client, chain of another organization", url, _held(plain, forged), "denied: chain_org_signature"),
        ("unprovisioned node with its token", url, node, IN_PROVISIONING),
        (
            "node of an unknown organization",
            url,
            replace(node, token=site.issuer.node_token(organization="other")),
            "denied: token_issuer_unknown",
        ),
        ("node, expired token", url, replace(node, token=_expired(site)), "denied: token_expired"),
        ("provisioner, password and token", url, provisioner, IN_PROVISIONING),
        ("provisioner, wrong password", url, replace(provisioner, password=_WRONG), WRONG_PASSWORD),
        (
            "provisioner, password alone",
            url,
            replace(provisioner, token="", seed=b""),
            "denied: provisioner_not_verified",
        ),
        (
            "provisioner, token that is not for it",
            url,
            _held(provisioner, powerless),
            "denied: provisioner_claim",
        ),
        ("system user, password and token", url, operator, IN_SYSTEM),
        ("system user, token that is not for it", url, _held(operator, powerless), "denied: system_claim"),
    ]


def _token_rows(site: Site, url: str, given: Credentials) -> list[Row]:
    """Servers and clients by JWT, each with the nonce signed by its own key."""
    foreign = Issuer(signing_key_from_seed(new_seed(), "foreign issuer"))
    server = site.issuer.server("server1.example.net", "streams")
    client = site.issuer.client("up=alice", "fleet_management")
    stolen = replace(_held(given, client), seed=bytes(32))
    return [
        ("server, token and nonce", url, _held(given, server), IN_FLEET),
        ("client, token and nonce", url, _held(given, client), IN_FLEET),
        ("client, nonce not signed", url, replace(given, token=client.token), "denied: nonce_unsigned"),
        ("client's token, stolen without its key", url, stolen, "denied: nonce_signature"),
        ("client, token of a foreign issuer", url, _held(given, foreign.client("up=eve")), "denied: token_signature"),
    ]


def _held(given: Credentials, holder: Holder) -> Credentials:
    return replace(given, token=holder.token, seed=holder.seed)


def _expired(site: Site) -> str:
    return site.node_issuer.node_token(issued=time.time() - 2 * DAY)
