"""Login attempts with their expected outcome, each a real connection.

The outcome is read from the service's audit records, which are written within milliseconds after the answer. A failed
connection without a record never reached the callout.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from broker_auth.demo.observation import SERVER_REFUSED, TLS_REFUSED, Observation
from broker_auth.deploy.pki import signer
from broker_auth.deploy.plan import Topology
from broker_auth.operate.answers import request_json
from broker_auth.sandbox.client import ConnectRefusedError, Credentials, connect
from broker_auth.sandbox.identities import DAY, Identity, Issuer
from broker_auth.sandbox.sandbox import Sandbox
from broker_auth.tokens.issue import load_signing_key, new_seed, signing_key_from_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A login attempt.

    Attributes:
        expected: ``in ACCOUNT``, ``denied: CODE``, :data:`TLS_REFUSED` or :data:`SERVER_REFUSED`.
        decided: whether this service decides; servers of a static fleet decide by themselves.
    """

    what: str
    url: str
    credentials: Credentials
    expected: str
    decided: bool = True


async def try_all(sandbox: Sandbox, tried: list[Attempt]) -> list[Observation]:
    """Make the attempts, one after the other."""
    return [await try_one(sandbox, attempt, f"attempt-{number}") for number, attempt in enumerate(tried, 1)]


async def try_one(sandbox: Sandbox, attempt: Attempt, name: str) -> Observation:
    """Connect as ``name``, and return the outcome."""
    happened = await (_recorded(sandbox, attempt, name) if attempt.decided else _seen(attempt, name))
    example = attempt.what not in _SIMILAR
    return Observation(what=attempt.what, expected=attempt.expected, happened=happened, example=example)


async def _recorded(sandbox: Sandbox, attempt: Attempt, name: str) -> str:
    """Return the outcome that the service has recorded."""
    try:
        client = await connect(attempt.url, name, attempt.credentials)
    except ConnectRefusedError as error:
        asked = "authorization" in str(error).lower()
        record = sandbox.audit_record(name) if asked else sandbox.audit_record(name, _GRACE_SECONDS)
        missing = "no answer" if asked else TLS_REFUSED
        return missing if record is None else f"denied: {record.code}"
    await client.close()
    record = sandbox.audit_record(name)
    return f"in {record.account}" if record and record.decision == "admit" else "in, without a decision"


async def _seen(attempt: Attempt, name: str) -> str:
    """Return the outcome as the client sees it, which is all there is of a decision by nats-server itself."""
    try:
        client = await connect(attempt.url, name, attempt.credentials)
    except ConnectRefusedError as error:
        return SERVER_REFUSED if "authorization" in str(error).lower() else TLS_REFUSED
    try:
        answer = await request_json(client, "$SYS.REQ.USER.INFO")
    finally:
        await client.close()
    return f"in {answer['data']['account']}"


_GRACE_SECONDS: Final = 0.2
_WRONG: Final = "guessed"
_SIMILAR: Final = {  # to another row
    "node, token of a foreign signer",
    "provisioner, certificate of a foreign CA",
    "node as user provisioner",
    "system user, wrong password",
    "system user, right password, no mTLS",
    "client, nonce not signed",
    "client, token of a foreign issuer",
}
_MEMBER_AS_PROVISIONER: Final = "fleet member as provisioner, right password"
WRONG_PASSWORD: Final = "denied: provisioner_password"
IN_FLEET: Final = "in choria"
IN_PROVISIONING: Final = "in provisioning"
IN_SYSTEM: Final = "in system"
Row = tuple[str, str, Credentials, str]


def attempts(sandbox: Sandbox) -> list[Attempt]:
    """Return all attempts for the topology of a sandbox."""
    rows = _issuer_rows(sandbox) if sandbox.topology is Topology.SINGLE else _x509_rows(sandbox)
    tried = [
        Attempt(what=what, url=url, credentials=credentials, expected=expected)
        for what, url, credentials, expected in rows
    ]
    static = sandbox.settings.fleet_is_static
    return [_at_static_fleet(item) if static and item.url == sandbox.fleet_url else item for item in tried]


def _at_static_fleet(attempt: Attempt) -> Attempt:
    """Return the attempt as a static fleet answers it: no token counts, and any member may be the provisioner."""
    if attempt.what == _MEMBER_AS_PROVISIONER:
        expected = IN_PROVISIONING
    elif attempt.expected.startswith("denied") or attempt.credentials.token:
        expected = SERVER_REFUSED
    else:
        expected = attempt.expected
    return replace(attempt, expected=expected, decided=False)


def _x509_rows(sandbox: Sandbox) -> list[Row]:
    """Return the attempts for topologies whose fleet has certificates: edge, websocket and mixed."""
    fleet, node = sandbox.fleet_url, sandbox.node_url
    edge, mixed = sandbox.topology is Topology.EDGE, sandbox.topology is Topology.MIXED
    good, plain = sandbox.credentials("node"), Credentials(ca=sandbox.ca)
    member, provisioner, operator = (sandbox.credentials(who) for who in ("fleet", "provisioner", "system"))
    foreign = sandbox.foreign_pair("provisioner.example.net")
    foreign_signer = Issuer(load_signing_key(signer("foreign signer").key_pem, "foreign signer"))
    return [
        ("fleet member, mTLS", fleet, member, IN_FLEET),
        ("fleet listener, no certificate", fleet, plain, "denied: no_credential" if mixed else TLS_REFUSED),
        ("unprovisioned node with its token", node, good, IN_PROVISIONING),
        ("node without a token", node, plain, "denied: no_credential"),
        (
            "node, token of a foreign signer",
            node,
            replace(good, token=foreign_signer.node_token()),
            "denied: token_signature",
        ),
        ("node, expired token", node, replace(good, token=_expired(sandbox)), "denied: token_expired"),
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
            _MEMBER_AS_PROVISIONER,
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
        *_token_rows(sandbox, fleet, member),
    ]


def _issuer_rows(sandbox: Sandbox) -> list[Row]:
    """Return the attempts for the single topology, where clients have tokens instead of certificates."""
    url, plain = sandbox.fleet_url, Credentials(ca=sandbox.ca)
    node, provisioner, operator = (sandbox.credentials(who) for who in ("node", "provisioner", "system"))
    powerless = sandbox.issuer.client("up=bob")
    chained = sandbox.issuer.client_by_chain("up=carol", "fleet_management")
    forged = sandbox.issuer.client_by_chain("up=mallory", "org_admin", foreign=True)
    return [
        ("client without a credential", url, plain, "denied: no_credential"),
        *_token_rows(sandbox, url, plain),
        ("client, token by a chain issuer", url, _with_token(plain, chained), IN_FLEET),
        ("client, chain of another organization", url, _with_token(plain, forged), "denied: chain_org_signature"),
        ("unprovisioned node with its token", url, node, IN_PROVISIONING),
        (
            "node of an unknown organization",
            url,
            replace(node, token=sandbox.issuer.node_token(organization="other")),
            "denied: token_issuer_unknown",
        ),
        ("node, expired token", url, replace(node, token=_expired(sandbox)), "denied: token_expired"),
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
            _with_token(provisioner, powerless),
            "denied: provisioner_claim",
        ),
        ("system user, password and token", url, operator, IN_SYSTEM),
        ("system user, token that is not for it", url, _with_token(operator, powerless), "denied: system_claim"),
    ]


def _token_rows(sandbox: Sandbox, url: str, credentials: Credentials) -> list[Row]:
    """Return the attempts of servers and clients with a token and a signature of the nonce."""
    foreign = Issuer(signing_key_from_seed(new_seed(), "foreign issuer"))
    server = sandbox.issuer.server("server1.example.net", "streams")
    client = sandbox.issuer.client("up=alice", "fleet_management")
    stolen = replace(_with_token(credentials, client), seed=bytes(32))
    return [
        ("server, token and nonce", url, _with_token(credentials, server), IN_FLEET),
        ("client, token and nonce", url, _with_token(credentials, client), IN_FLEET),
        ("client, nonce not signed", url, replace(credentials, token=client.token), "denied: nonce_unsigned"),
        ("client's token, stolen without its key", url, stolen, "denied: nonce_signature"),
        (
            "client, token of a foreign issuer",
            url,
            _with_token(credentials, foreign.client("up=eve")),
            "denied: token_signature",
        ),
    ]


def _with_token(credentials: Credentials, identity: Identity) -> Credentials:
    return replace(credentials, token=identity.token, seed=identity.seed)


def _expired(sandbox: Sandbox) -> str:
    return sandbox.node_issuer.node_token(issued=time.time() - 2 * DAY)
