"""Rule 3: a token is present. Its signers, required claims, times, and subjects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker_auth.policy.decision import Code, DenyCode, Rule
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys
from tests.builders import requests
from tests.builders.clock import DAY, HOUR, NOW
from tests.builders.peers import authority, chain, fleet_chain, validity
from tests.builders.policies import changed, issuer_keys
from tests.builders.requests import NODE_NAME, gauge, node, presenting
from tests.builders.tokens import (
    ABSENT,
    CLIENT_SIGNER,
    CREATOR,
    FOREIGN,
    HOLDER,
    NONCE,
    ORG,
    ORGANIZATION,
    SERVER_SIGNER,
    Key,
    client_claims,
    creator_claims,
    ec_key,
    ed25519_key,
    issued,
    ksuid,
    nonce_signature,
    provisioning_claims,
    provisioning_signer,
    rsa_key,
    server_claims,
    sign,
)
from tests.policy.grants import ALICE, NO_QUEUE, NODE, NODE_AGENTS, NODE_PUBLISH, SERVER, SHARED_NODE
from tests.policy.table import ISSUER, TOKEN_ENDS, TOKEN_ID, X509, Row, Table, deny, grant, rows

CLIENT, SERVERS, NODES, TOKEN = Rule.CLIENT, Rule.SERVER, Rule.PROVISIONING, Rule.TOKEN
F = TokenFault


def trusting(policy: Policy, **keys: Any) -> Policy:
    """Return ``policy`` with other signers."""
    issuers = {ORGANIZATION: ORG.verifies} if policy.issuer_mode else {}
    return replace(policy, tokens=TokenVerifier(TrustedKeys(**({"issuers": issuers} | keys))))


def client(asked: AuthorizationRequest, policy: Policy = ISSUER, signer: str = "organization", **changes: Any) -> Row:
    row = Row(
        request=asked,
        policy=policy,
        rule=CLIENT,
        account="choria",
        name="up=alice",
        grant=ALICE,
        expires=TOKEN_ENDS,
        token_id=TOKEN_ID,
        signer=signer,
    )
    return replace(row, **changes)


def server(asked: AuthorizationRequest, policy: Policy = ISSUER, signer: str = "organization", **changes: Any) -> Row:
    return client(asked, policy, signer, **({"rule": SERVERS, "name": "node1.example.net", "grant": SERVER} | changes))


def waiting(
    asked: AuthorizationRequest, policy: Policy = X509, signer: str = "provisioning signer", **changes: Any
) -> Row:
    own = {"rule": NODES, "account": "provisioning", "name": NODE_NAME, "grant": NODE}
    return client(asked, policy, signer, **(own | changes))


def no_client(code: Code, policy: Policy = ISSUER, key: Key = ORG, now: float = NOW, **claims: Any) -> Row:
    return deny(requests.client(key, claims), CLIENT, code, policy, now)


def no_server(code: Code, policy: Policy = ISSUER, key: Key = ORG, **claims: Any) -> Row:
    return deny(requests.server(key, claims), SERVERS, code, policy)


def no_node(code: Code, policy: Policy = X509, key: Key | None = None, **claims: Any) -> Row:
    return deny(node(sign(provisioning_claims(**claims), key or provisioning_signer())), NODES, code, policy)


def times(admitted: Any, refused: Any, policy: Policy, name: str) -> Table:
    """Make the rows of docs/policy.md#times from claims, by ``admitted`` and ``refused``."""
    table: Table = {
        f"{name}-exp-now": refused(F.EXPIRED, exp=NOW),
        f"{name}-exp-past": refused(F.EXPIRED, exp=NOW - 1),
        f"{name}-exp-zero": refused(F.EXPIRED, exp=0),
        f"{name}-exp-a-moment-later": admitted({"exp": NOW + 0.5}, expires=NOW + 0.5),
        f"{name}-exp-absent": refused(F.NO_EXPIRY, exp=ABSENT),
        f"{name}-exp-null": refused(F.NO_EXPIRY, exp=None),
        f"{name}-exp-text": refused(F.CLAIM_TYPE, exp=str(NOW + HOUR)),
        f"{name}-exp-true": refused(F.CLAIM_TYPE, exp=True),
        f"{name}-issexp-now": refused(F.ISSUER_EXPIRED, issexp=NOW),
        f"{name}-issexp-later": admitted({"issexp": NOW + 1}, expires=NOW + 1),
        f"{name}-nbf-and-iat-absent": admitted({"nbf": ABSENT, "iat": ABSENT}),
    }
    for claim, code in (("nbf", F.NOT_YET_VALID), ("iat", F.ISSUED_IN_FUTURE)):
        table |= {
            f"{name}-{claim}-now": admitted({claim: NOW}),
            f"{name}-{claim}-later": refused(code, **{claim: NOW + 1}),
            f"{name}-{claim}-a-moment-later": refused(code, **{claim: NOW + 0.001}),
        }
        for leeway in (30.0, 60.0):
            lenient = replace(policy, token_leeway=leeway)
            table |= {
                f"{name}-{claim}-leeway-{leeway}": replace(admitted({claim: NOW + leeway}), policy=lenient),
                f"{name}-{claim}-beyond-{leeway}": replace(refused(code, **{claim: NOW + leeway + 1}), policy=lenient),
            }
    lenient = replace(policy, token_leeway=60.0)
    table[f"{name}-exp-has-no-leeway"] = replace(refused(F.EXPIRED, exp=NOW), policy=lenient)
    table[f"{name}-issexp-has-no-leeway"] = replace(refused(F.ISSUER_EXPIRED, issexp=NOW), policy=lenient)
    return table


TIMES: Table = (
    times(lambda claims, **c: client(requests.client(ORG, claims), **c), no_client, ISSUER, "rule3-client")
    | times(lambda claims, **c: server(requests.server(ORG, claims), **c), no_server, ISSUER, "rule3-server")
    | times(
        lambda claims, **c: waiting(node(sign(provisioning_claims(**claims), provisioning_signer())), **c),
        no_node,
        X509,
        "rule3-node",
    )
)

P256, P384 = ec_key("client"), ec_key("client", 384)
TWO = trusting(X509, client=(CLIENT_SIGNER.verifies, P256.verifies, P384.verifies, rsa_key("client").verifies))
RSA_ISSUERS_POLICY = trusting(ISSUER, client=(rsa_key("client").verifies,))
ON_MTLS: dict[str, Any] = {"chains": (fleet_chain(),)}
SHORT_PEER: dict[str, Any] = {
    "chains": (chain(authority().client("x", validity=validity(NOW - DAY, NOW + 60)), authority()),),
}
CLIENTS: Table = {
    "rule3-client-x509": client(requests.client(CLIENT_SIGNER), X509, "client signer"),
    "rule3-client-x509-any-signer-p256": client(requests.client(P256), TWO, "client"),
    "rule3-client-x509-any-signer-p384": client(requests.client(P384), TWO, "client"),
    "rule3-client-x509-any-signer-rsa": client(requests.client(rsa_key("client")), TWO, "client"),
    "rule3-client-x509-ou-absent": client(requests.client(CLIENT_SIGNER, {"ou": ABSENT}), X509, "client signer"),
    "rule3-client-x509-ou-not-in-a-subject": client(
        requests.client(CLIENT_SIGNER, {"ou": "Example Corp."}), X509, "client signer"
    ),
    "rule3-client-x509-foreign": no_client(F.SIGNATURE, X509, FOREIGN),
    "rule3-client-x509-signed-by-the-server-signer": no_client(F.SIGNATURE, X509, SERVER_SIGNER),
    "rule3-client-x509-signed-by-the-provisioning-signer": no_client(F.ALGORITHM, X509, provisioning_signer()),
    "rule3-client-x509-no-signer": no_client(F.NO_SIGNER, trusting(X509), CLIENT_SIGNER),
    "rule3-client-x509-chains-are-not-followed": deny(
        presenting(sign(issued(client_claims()), CREATOR)), CLIENT, F.CHAIN_ISSUER, X509
    ),
    "rule3-client-issuer": client(requests.client()),
    "rule3-client-issuer-foreign": no_client(F.SIGNATURE, key=FOREIGN),
    "rule3-client-issuer-ignores-client-signers": no_client(F.ALGORITHM, RSA_ISSUERS_POLICY, rsa_key("client")),
    "rule3-client-issuer-ou-missing": no_client(F.ISSUER_MISSING, ou=ABSENT),
    "rule3-client-issuer-ou-empty": no_client(F.ISSUER_MISSING, ou=""),
    "rule3-client-issuer-ou-unknown": no_client(F.ISSUER_UNKNOWN, ou="Choria"),
    "rule3-client-issuer-chain-issuer": client(
        presenting(sign(creator_claims(), ORG), CREATOR),
        name="up=creator",
        expires=NOW + 10 * HOUR,
        token_id=ksuid(payload=b"fedcba9876543210"),
        grant=grant(
            "$SYS.REQ.USER.INFO",
            # MD5 and SHA-256 of "up=creator", by md5sum and sha256sum
            "*.reply.f52cbb910cbd27226d7792b82d0ea6b0.> "
            "*.reply.b147ff477e6076f992b2d0b15ac92de3e321ab3e59f8cd38addad3048b8d768d.>",
        ),
    ),
    "rule3-client-issuer-chained": client(
        presenting(sign(issued(client_claims()), CREATOR)),
        signer=f"organization via {ksuid(payload=b'fedcba9876543210')}",
    ),
    "rule3-client-issuer-chained-issuer-expired": deny(
        presenting(sign(issued(client_claims(), creator_token=creator_claims(exp=NOW)), CREATOR)),
        CLIENT,
        F.ISSUER_EXPIRED,
        ISSUER,
    ),
    "rule3-client-callerid-absent": no_client(F.CLAIM_MISSING, callerid=ABSENT),
    "rule3-client-callerid-empty": no_client(F.CLAIM_MISSING, callerid=""),
    "rule3-client-public-key-absent": no_client(F.CLAIM_MISSING, public_key=ABSENT),
    "rule3-client-public-key-short": no_client(F.PUBLIC_KEY, public_key=HOLDER.hex[:-2]),
    "rule3-client-public-key-not-hex": no_client(F.PUBLIC_KEY, public_key="g" + HOLDER.hex[1:]),
    "rule3-client-nonce-not-signed": deny(requests.client(sig=""), CLIENT, F.NONCE_UNSIGNED, ISSUER),
    "rule3-client-nonce-missing": deny(requests.client(nonce=""), CLIENT, F.NONCE_MISSING, ISSUER),
    "rule3-client-nonce-of-another": deny(
        requests.client(sig=nonce_signature(HOLDER, "another")), CLIENT, F.NONCE_SIGNATURE, ISSUER
    ),
    "rule3-client-nonce-signed-by-another": deny(
        requests.client(sig=nonce_signature(FOREIGN)), CLIENT, F.NONCE_SIGNATURE, ISSUER
    ),
    "rule3-client-nonce-padded": deny(
        requests.client(sig=nonce_signature() + "=="), CLIENT, F.NONCE_SIGNATURE_FORMAT, ISSUER
    ),
    "rule3-client-nonce-not-base64": deny(requests.client(sig="!" * 86), CLIENT, F.NONCE_SIGNATURE_FORMAT, ISSUER),
    "rule3-client-nonce-short": deny(
        requests.client(sig=nonce_signature()[:-1]), CLIENT, F.NONCE_SIGNATURE_FORMAT, ISSUER
    ),
    "rule3-client-on-verified-tls": client(requests.client(**ON_MTLS), verified=True),
    "rule3-client-on-verified-tls-ends-with-its-certificate": client(
        requests.client(**SHORT_PEER), verified=True, expires=NOW + 60
    ),
    "rule3-client-bad-token-on-verified-tls": deny(requests.client(FOREIGN, **ON_MTLS), CLIENT, F.SIGNATURE, ISSUER),
    "rule3-client-when-provisioning-is-not-enabled": client(requests.client(), changed(ISSUER, enabled=False)),
    "rule3-client-when-servers-are-denied": client(requests.client(), replace(ISSUER, deny_servers=True)),
}
SERVER_ROWS: Table = {
    "rule3-server-x509": server(requests.server(SERVER_SIGNER), X509, "server signer"),
    "rule3-server-x509-ou-absent": server(requests.server(SERVER_SIGNER, {"ou": ABSENT}), X509, "server signer"),
    "rule3-server-x509-ou-not-in-a-subject": server(
        requests.server(SERVER_SIGNER, {"ou": "Example Corp."}), X509, "server signer"
    ),
    "rule3-server-x509-signed-by-the-client-signer": no_server(F.SIGNATURE, X509, CLIENT_SIGNER),
    "rule3-server-x509-no-signer": no_server(F.NO_SIGNER, trusting(X509, client=(CLIENT_SIGNER.verifies,)), ORG),
    "rule3-server-issuer": server(requests.server()),
    "rule3-server-issuer-foreign": no_server(F.SIGNATURE, key=FOREIGN),
    "rule3-server-issuer-ou-missing": no_server(F.ISSUER_MISSING, ou=ABSENT),
    "rule3-server-issuer-chained": server(
        presenting(sign(issued(server_claims()), CREATOR)),
        signer=f"organization via {ksuid(payload=b'fedcba9876543210')}",
    ),
    "rule3-server-identity-absent": no_server(F.CLAIM_MISSING, identity=ABSENT),
    "rule3-server-identity-empty": no_server(F.CLAIM_MISSING, identity=""),
    "rule3-server-public-key-absent": no_server(F.CLAIM_MISSING, public_key=ABSENT),
    "rule3-server-collectives-absent": no_server(F.CLAIM_MISSING, collectives=ABSENT),
    "rule3-server-collectives-empty": no_server(F.CLAIM_MISSING, collectives=[]),
    "rule3-server-collectives-null": no_server(F.CLAIM_MISSING, collectives=None),
    "rule3-server-nonce-not-signed": deny(requests.server(sig=""), SERVERS, F.NONCE_UNSIGNED, ISSUER),
    "rule3-server-nonce-signed-by-another": deny(
        requests.server(sig=nonce_signature(FOREIGN)), SERVERS, F.NONCE_SIGNATURE, ISSUER
    ),
    "rule3-server-denied-issuer": no_server(DenyCode.SERVERS_DENIED, replace(ISSUER, deny_servers=True)),
    "rule3-server-denied-x509": no_server(DenyCode.SERVERS_DENIED, replace(X509, deny_servers=True), SERVER_SIGNER),
    "rule3-server-denied-on-verified-tls": deny(
        requests.server(**ON_MTLS), SERVERS, DenyCode.SERVERS_DENIED, replace(ISSUER, deny_servers=True)
    ),
    "rule3-server-on-verified-tls": server(requests.server(**ON_MTLS), verified=True),
}

ED_SIGNER = ed25519_key("Ed25519 provisioning signer")
EC_SIGNER = ec_key("EC provisioning signer")
ROTATING = trusting(
    X509,
    provisioning=(rsa_key("old").verifies, provisioning_signer().verifies, ED_SIGNER.verifies, EC_SIGNER.verifies),
)


def with_key(key: Key, **claims: Any) -> AuthorizationRequest:
    return node(sign(provisioning_claims(**claims), key))


LASTING = changed(X509, allow_non_expiring_tokens=True)
BY_SUB = {"purpose": ABSENT, "sub": "choria_provisioning"}
NODE_ROWS: Table = {
    "rule3-node-x509": waiting(node()),
    "rule3-node-websocket": waiting(node(type="websocket")),
    "rule3-node-rs384": waiting(node(sign(provisioning_claims(), provisioning_signer(), alg="RS384"))),
    "rule3-node-rs512": waiting(node(sign(provisioning_claims(), provisioning_signer(), alg="RS512"))),
    "rule3-node-x509-rotated-second": waiting(node(), ROTATING),
    "rule3-node-x509-rotated-first": waiting(with_key(rsa_key("old")), ROTATING, "old"),
    "rule3-node-x509-eddsa": waiting(with_key(ED_SIGNER), ROTATING, ED_SIGNER.name),
    "rule3-node-x509-es256": waiting(with_key(EC_SIGNER), ROTATING, EC_SIGNER.name),
    "rule3-node-x509-eddsa-without-such-a-signer": no_node(F.ALGORITHM, key=ED_SIGNER),
    "rule3-node-x509-foreign": no_node(F.SIGNATURE, key=rsa_key("old")),
    "rule3-node-x509-no-signer": no_node(F.NO_SIGNER, trusting(X509)),
    "rule3-node-issuer-rsa-by-the-signer": waiting(node(), ISSUER),
    "rule3-node-issuer-rsa-ou-means-nothing": waiting(with_key(provisioning_signer(), ou="x"), ISSUER),
    "rule3-node-issuer-rsa-no-signer": no_node(F.NO_SIGNER, trusting(ISSUER)),
    "rule3-node-issuer-rsa-foreign": no_node(F.SIGNATURE, ISSUER, rsa_key("old")),
    "rule3-node-issuer-eddsa": waiting(with_key(ORG), ISSUER, "organization"),
    "rule3-node-issuer-eddsa-ou-missing": no_node(F.ISSUER_MISSING, ISSUER, ORG, ou=ABSENT),
    "rule3-node-issuer-eddsa-ou-unknown": no_node(F.ISSUER_UNKNOWN, ISSUER, ORG, ou="x"),
    "rule3-node-issuer-eddsa-foreign": no_node(F.SIGNATURE, ISSUER, FOREIGN),
    "rule3-node-issuer-eddsa-signer-does-not-count": no_node(
        F.SIGNATURE, trusting(ISSUER, provisioning=(ED_SIGNER.verifies,)), ED_SIGNER
    ),
    "rule3-node-issuer-es256-by-the-signer": waiting(
        with_key(EC_SIGNER), trusting(ISSUER, provisioning=(EC_SIGNER.verifies,)), EC_SIGNER.name
    ),
    "rule3-node-issuer-eddsa-chains-are-not-followed": deny(
        with_key(CREATOR, iss=f"C-{creator_claims()['jti']}.{CREATOR.hex}"), NODES, F.SIGNATURE, ISSUER
    ),
    "rule3-node-by-sub": waiting(with_key(provisioning_signer(), **BY_SUB)),
    "rule3-node-by-sub-purpose-empty": waiting(with_key(provisioning_signer(), **(BY_SUB | {"purpose": ""}))),
    "rule3-node-by-sub-foreign": no_node(F.SIGNATURE, X509, rsa_key("old"), **BY_SUB),
    "rule3-node-not-enabled-x509": no_node(DenyCode.PROVISIONING_DISABLED, changed(X509, enabled=False)),
    "rule3-node-not-enabled-issuer": no_node(DenyCode.PROVISIONING_DISABLED, changed(ISSUER, enabled=False), ORG),
    "rule3-node-on-verified-tls-x509": deny(node(**ON_MTLS), NODES, DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS),
    "rule3-node-on-verified-tls-issuer": deny(
        node(**ON_MTLS), NODES, DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS, ISSUER
    ),
    "rule3-node-needs-no-nonce": waiting(node(nonce=NONCE, sig="garbage")),
    "rule3-node-non-expiring-allowed": waiting(with_key(provisioning_signer(), exp=ABSENT), LASTING, expires=None),
    "rule3-node-non-expiring-allowed-others-expire": deny(
        with_key(provisioning_signer(), exp=NOW), NODES, F.EXPIRED, LASTING
    ),
    "rule3-node-non-expiring-allowed-not-for-clients": deny(
        requests.client(CLIENT_SIGNER, {"exp": ABSENT}), CLIENT, F.NO_EXPIRY, LASTING
    ),
    "rule3-node-non-expiring-allowed-not-for-servers": deny(
        requests.server(SERVER_SIGNER, {"exp": ABSENT}), SERVERS, F.NO_EXPIRY, LASTING
    ),
    "rule3-node-shared": waiting(node(), changed(X509, isolate_nodes=False), grant=SHARED_NODE),
    "rule3-node-shared-any-name": waiting(
        node(name="a b"), changed(X509, isolate_nodes=False), grant=SHARED_NODE, name="unnamed-node"
    ),
    "rule3-node-jti-absent": waiting(with_key(provisioning_signer(), jti=ABSENT), token_id=""),
    "rule3-node-password-means-nothing": waiting(node(user="x", password="y")),
}

FIT_NAMES = {
    "dots": "a.b.c",
    "one-letter": "a",
    "253-long": "a" * 253,
    "253-wide": "é" * 253,
    "dollar": "$SYS",
    "hyphen": "new-1_x",
}
UNFIT_NAMES = {
    "empty": "",
    "254-long": "a" * 254,
    "star": "*",
    "star-within": "a.*.b",
    "star-in-a-word": "a*",
    "all": ">",
    "all-last": "a.>",
    "all-in-a-word": "a>",
    "space": "a b",
    "space-before": " a",
    "space-after": "a ",
    "tab": "a\tb",
    "line": "a\nb",
    "return": "a\r",
    "null": "a\0",
    "escape": "a\x1b[0m",
    "delete": "a\x7f",
    "c1-control": "a\x9b",
    "next-line": "a\x85",
    "no-break-space": "a\xa0b",
    "em-space": "a\u2003b",
    "ideographic-space": "a\u3000b",
    "line-separator": "a\u2028b",
    "paragraph-separator": "a\u2029b",
    "ogham-space": "a\u1680b",
    "byte-order-mark": "\ufeffa",
    "dot": ".",
    "dot-first": ".a",
    "dot-last": "a.",
    "two-dots": "a..b",
}
NAMES: Table = {
    f"rule3-node-name-{label}": waiting(
        node(name=name),
        name=name,
        grant=replace(grant(NODE_PUBLISH, f"{NODE_AGENTS} provisioning.node.{name}"), no_subscribe=NO_QUEUE),
    )
    for label, name in FIT_NAMES.items()
}
NAMES |= {
    f"rule3-node-name-{label}": deny(node(name=name), NODES, DenyCode.NODE_NAME) for label, name in UNFIT_NAMES.items()
}
NAMES["rule3-node-name-comes-after-the-token"] = deny(node("x", name=""), TOKEN, F.NOT_COMPACT)
NAMES["rule3-node-name-of-a-foreign-token"] = deny(
    node(sign(provisioning_claims(), rsa_key("old")), name=""), NODES, F.SIGNATURE
)

PURPOSES: Table = {
    f"rule3-purpose-{name}-{mode}": deny(presenting(sign(claims, ORG)), TOKEN, F.PURPOSE, policy)
    for mode, policy in (("x509", X509), ("issuer", ISSUER))
    for name, claims in {
        "absent": client_claims(purpose=ABSENT),
        "empty": client_claims(purpose=""),
        "unknown": client_claims(purpose="choria"),
        "provisioning-by-sub-only-if-absent": client_claims(purpose="other", sub="choria_provisioning"),
        "client-by-sub": client_claims(purpose=ABSENT, sub="choria_client_id"),
        "server-by-sub": server_claims(purpose=ABSENT, sub="choria_server"),
    }.items()
}
PURPOSES |= {
    "rule3-purpose-sub-does-not-change-a-client": client(requests.client(ORG, {"sub": "choria_provisioning"})),
    "rule3-purpose-picks-the-verifier": deny(
        # a client token that claims to be a provisioning token is checked with the signers of provisioning tokens
        node(sign(client_claims(purpose="choria_provisioning"), CLIENT_SIGNER)),
        NODES,
        F.ALGORITHM,
    ),
    "rule3-purpose-provisioning-signed-client": deny(
        presenting(sign(provisioning_claims(purpose="choria_client_id"), provisioning_signer())), CLIENT, F.ALGORITHM
    ),
    "rule3-garbage-on-verified-tls": deny(requests.fleet(auth_token="x"), TOKEN, F.NOT_COMPACT),
}
ACCOUNTS: Table = {
    "rule3-client-account-as-configured": client(
        requests.client(), replace(ISSUER, accounts=replace(ISSUER.accounts, fleet="F")), account="F"
    ),
    "rule3-server-account-as-configured": server(
        requests.server(), replace(ISSUER, accounts=replace(ISSUER.accounts, fleet="F")), account="F"
    ),
    "rule3-node-account-as-configured": waiting(
        node(), replace(X509, accounts=replace(X509.accounts, provisioning="P")), account="P"
    ),
}

PLACES: Table = {
    "rule3-node-takes-the-last-place": waiting(node(), policy=changed(X509, gauge=gauge(2))),
    "rule3-node-finds-no-place": deny(node(), NODES, DenyCode.PROVISIONING_FULL, changed(X509, gauge=gauge(3))),
    "rule3-node-where-nothing-is-reported": waiting(node(), policy=changed(X509, gauge=ConnectionGauge(0))),
    "rule3-places-come-after-the-name": deny(node(name=""), NODES, DenyCode.NODE_NAME, changed(X509, gauge=gauge(3))),
    "rule3-places-come-after-the-token": deny(node("x"), TOKEN, F.NOT_COMPACT, changed(X509, gauge=gauge(3))),
}

TABLES = (PLACES, TIMES, CLIENTS, SERVER_ROWS, NODE_ROWS, NAMES, PURPOSES, ACCOUNTS)


@rows(*TABLES)
def test_rule_3(row: Row) -> None:
    row.check()


def test_organizations_sign_only_their_own_tokens() -> None:
    other = ed25519_key("other organization")
    keys = issuer_keys({ORGANIZATION: ORG.verifies, "other": other.verifies})
    policy = replace(ISSUER, tokens=TokenVerifier(keys))
    client(requests.client(other, {"ou": "other"}), policy, other.name).check()
    no_client(F.SIGNATURE, policy, ORG, ou="other").check()
    no_client(F.SIGNATURE, policy, other).check()


@pytest.mark.parametrize("later", [0, 1, HOUR])
def test_cached_token_expires(later: int) -> None:
    policy = trusting(ISSUER)
    asked = requests.client()
    for now in (NOW, NOW + 1, TOKEN_ENDS - 1):
        client(asked, policy, now=now).check()
    deny(asked, CLIENT, F.EXPIRED, policy, TOKEN_ENDS + later).check()
    client(asked, policy).check()
    deny(asked, CLIENT, F.NOT_YET_VALID, policy, NOW - 1 - later).check()
