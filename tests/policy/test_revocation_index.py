"""Revoked credentials are not admitted, by any rule and from any cache; nothing else is affected."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.revocation_index import Revocations
from broker_auth.policy.revocations import (
    MAX_PATTERNS,
    Revocation,
    RevocationError,
    RevocationKind,
)
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys
from tests.builders.clock import DAY, NOW
from tests.builders.peers import FLEET_NAME, PROVISIONER_NAME, client, fleet_chain
from tests.builders.policies import SYSTEM_PASSWORD, SYSTEM_USER, changed, issuer_policy, x509_policy
from tests.builders.requests import HOST, NODE_NAME, fleet, node, presenting, provisioner, system
from tests.builders.requests import client as client_request
from tests.builders.requests import server as server_request
from tests.builders.tokens import (
    CREATOR,
    HOLDER,
    ORG,
    b64,
    client_claims,
    creator_claims,
    ec_key,
    issued,
    ksuid,
    sign,
    unb64,
)
from tests.policy.table import ISSUER, TOKEN_ID, X509, Row, Table, deny, rows

K = RevocationKind
CREATOR_ID = ksuid(payload=b"fedcba9876543210")


def revoked(kind: RevocationKind, value: str, *, before: float | None = None, until: float | None = None) -> Revocation:
    return Revocation(kind=kind, value=value, before=before, until=until)


def without(policy: Policy, *entries: Revocation) -> Policy:
    """Return ``policy`` with these revocations."""
    return replace(policy, revocations=Revocations.of(entries))


def signed_part(token: str) -> str:
    """Return the SHA-256 by which a token is revoked."""
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


def certificate(name: str = FLEET_NAME) -> x509.Certificate:
    return client(name).certificate


def fingerprint(name: str = FLEET_NAME) -> str:
    return hashlib.sha256(certificate(name).public_bytes(Encoding.DER)).hexdigest()


def serial(name: str = FLEET_NAME) -> str:
    leaf = certificate(name)
    issuer = hashlib.sha256(leaf.issuer.public_bytes()).hexdigest()
    number = leaf.serial_number
    return f"{issuer}/{number.to_bytes((number.bit_length() + 7) // 8, 'big').hex()}"


CLIENT = client_request()
SERVER = server_request()
BELOW_CHAIN = presenting(sign(issued(client_claims()), CREATOR))
CHAIN_ISSUER = presenting(sign(creator_claims(), ORG), key=CREATOR)
NODE = node()
STAND_IN = client_request(
    claims={"permissions": {"provisioner": True}}, user="provisioner", password="provisioner password"
)
OPERATOR = client_request(
    claims={"permissions": {"system_user": True}}, user=SYSTEM_USER, password=SYSTEM_PASSWORD, host=HOST
)
LENIENT = changed(ISSUER, require_mtls=False)
MAPPED = f"::ffff:{HOST}"

REQUESTS: dict[str, tuple[AuthorizationRequest, Policy, Rule]] = {
    "client": (CLIENT, ISSUER, Rule.CLIENT),
    "server": (SERVER, ISSUER, Rule.SERVER),
    "below a chain issuer": (BELOW_CHAIN, ISSUER, Rule.CLIENT),
    "chain issuer": (CHAIN_ISSUER, ISSUER, Rule.CLIENT),
    "node": (NODE, X509, Rule.PROVISIONING),
    "fleet": (fleet(), X509, Rule.VERIFIED_TLS),
    "fleet with issuers": (fleet(), ISSUER, Rule.VERIFIED_TLS),
    "provisioner": (provisioner(), X509, Rule.PROVISIONER),
    "provisioner by token": (STAND_IN, LENIENT, Rule.PROVISIONER),
    "system user": (system(), X509, Rule.SYSTEM),
    "system user by token": (OPERATOR, ISSUER, Rule.SYSTEM),
    "client with a certificate": (client_request(chains=(fleet_chain(),)), ISSUER, Rule.CLIENT),
}


def falls(who: str, *entries: Revocation) -> Table:
    """Return the row of a request that is denied because of these revocations."""
    asked, policy, rule = REQUESTS[who]
    what = "-".join(entry.kind for entry in entries)
    return {f"revoked-{who}-{what}": deny(asked, rule, DenyCode.REVOKED, without(policy, *entries))}


def table(*parts: Table) -> Table:
    """Merge tables; rows of the same name are numbered, because certificates differ in every run."""
    return {
        f"{name}-{number}": row for number, (name, row) in enumerate(item for part in parts for item in part.items())
    }


BY_TOKEN = (
    "client",
    "server",
    "below a chain issuer",
    "node",
    "provisioner by token",
    "system user by token",
    "client with a certificate",
)
TOKEN = CLIENT.connect_opts.auth_token
FALLS: Table = table(
    *(falls(who, revoked(K.TOKEN_ID, TOKEN_ID)) for who in BY_TOKEN),
    *(
        falls(who, revoked(K.TOKEN_SHA256, signed_part(REQUESTS[who][0].connect_opts.auth_token)))
        for who in BY_TOKEN
        if who != "client with a certificate"
    ),
    *(falls(who, revoked(K.KEY, HOLDER.hex)) for who in ("client", "server", "below a chain issuer")),
    *(falls(who, revoked(K.KEY, CREATOR.hex)) for who in ("chain issuer", "below a chain issuer")),
    *(falls(who, revoked(K.CHAIN_ISSUER, CREATOR_ID)) for who in ("chain issuer", "below a chain issuer")),
    falls("client", revoked(K.IDENTITY, "up=alice")),
    falls("server", revoked(K.IDENTITY, "node1.example.net")),
    falls("server", revoked(K.IDENTITY, r"/node\d\.example\.net/")),
    falls("fleet", revoked(K.IDENTITY, FLEET_NAME)),
    falls("fleet with issuers", revoked(K.IDENTITY, FLEET_NAME)),
    falls("provisioner", revoked(K.IDENTITY, PROVISIONER_NAME)),
    falls("provisioner by token", revoked(K.IDENTITY, "/up=.*/")),
    falls("client", revoked(K.SIGNER, "organization")),
    falls("client", revoked(K.SIGNER, "organization", before=NOW + 1)),
    falls("below a chain issuer", revoked(K.SIGNER, "organization", before=NOW + 1)),
    falls("below a chain issuer", revoked(K.SIGNER, f"organization via {CREATOR_ID}")),
    falls("node", revoked(K.SIGNER, "provisioning signer", before=NOW + 1)),
    *(falls(who, revoked(K.CERTIFICATE, fingerprint())) for who in ("fleet", "client with a certificate")),
    *(falls(who, revoked(K.SERIAL, serial())) for who in ("fleet", "fleet with issuers", "client with a certificate")),
    falls("system user", revoked(K.CERTIFICATE, fingerprint("admin.example.net"))),
    falls("node", revoked(K.NODE, NODE_NAME)),
    *(falls(who, revoked(K.NETWORK, f"{HOST}/32")) for who in REQUESTS),
    falls("node", revoked(K.NETWORK, "192.0.0.0/8")),
    falls("client", revoked(K.TOKEN_ID, TOKEN_ID, until=NOW + 1)),
    {
        "revoked-network-mapped": deny(
            node(host=MAPPED), Rule.PROVISIONING, DenyCode.REVOKED, without(X509, revoked(K.NETWORK, f"{HOST}/32"))
        ),
        "revoked-network-v6": deny(
            node(host="2001:db8::1%eth0"),
            Rule.PROVISIONING,
            DenyCode.REVOKED,
            without(X509, revoked(K.NETWORK, "2001:db8::/32")),
        ),
        "revoked-node-not-isolated": deny(
            node(name="a b"),
            Rule.PROVISIONING,
            DenyCode.REVOKED,
            without(changed(X509, isolate_nodes=False), revoked(K.NODE, "a b")),
        ),
        "revoked-key-in-capitals": deny(
            client_request(claims={"public_key": HOLDER.hex.upper()}),
            Rule.CLIENT,
            DenyCode.REVOKED,
            without(ISSUER, revoked(K.KEY, HOLDER.hex)),
        ),
        "revoked-signer-token-without-iat": deny(
            client_request(claims={"iat": None}),
            Rule.CLIENT,
            DenyCode.REVOKED,
            without(ISSUER, revoked(K.SIGNER, "organization", before=1.0)),
        ),
    },
)
TABLES = [FALLS]

PASSES: dict[str, tuple[str, Revocation]] = {
    "another token": ("client", revoked(K.TOKEN_ID, CREATOR_ID)),
    "an id in another kind": ("client", revoked(K.CHAIN_ISSUER, TOKEN_ID)),
    "the chain issuer's token id is not those below it": ("below a chain issuer", revoked(K.TOKEN_ID, CREATOR_ID)),
    "over": ("client", revoked(K.TOKEN_ID, TOKEN_ID, until=NOW)),
    "a pattern that is over": ("client", revoked(K.IDENTITY, "/up=.*/", until=NOW)),
    "a network that is over": ("client", revoked(K.NETWORK, "0.0.0.0/0", until=NOW)),
    "a pattern matches whole names": ("client", revoked(K.IDENTITY, "/alice/")),
    "a pattern of another kind of name": ("client", revoked(K.IDENTITY, "/uri:.*/")),
    "a signer's later token": ("client", revoked(K.SIGNER, "organization", before=NOW)),
    "another signer": ("client", revoked(K.SIGNER, "organisation")),
    "a certificate does not concern a token": ("client", revoked(K.CERTIFICATE, fingerprint())),
    "another certificate": ("fleet", revoked(K.CERTIFICATE, fingerprint("other.example.net"))),
    "another serial number": ("fleet", revoked(K.SERIAL, serial("other.example.net"))),
    "a node's name is not an identity": ("node", revoked(K.IDENTITY, NODE_NAME)),
    "an identity is not a node's name": ("server", revoked(K.NODE, "node1.example.net")),
    "a client's connection name is not a node's": ("client", revoked(K.NODE, "holder")),
    "another network": ("client", revoked(K.NETWORK, "192.0.3.0/24")),
    "all of the other family": ("client", revoked(K.NETWORK, "::/0")),
    "a token that is not needed": ("system user", revoked(K.TOKEN_ID, TOKEN_ID)),
}


@rows(FALLS)
def test_revoked_is_denied(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("name", FALLS)
def test_the_same_request_is_admitted_without_the_revocation(name: str) -> None:
    row = FALLS[name]
    decision = decide(row.request, replace(row.policy, revocations=Revocations()), row.now)
    assert isinstance(decision, Admit), decision


@pytest.mark.parametrize("name", PASSES)
def test_nothing_else_is_affected(name: str) -> None:
    who, entry = PASSES[name]
    asked, policy, _ = REQUESTS[who]
    assert decide(asked, without(policy, entry), NOW) == decide(asked, policy, NOW)


def test_cached_token_is_denied_once_it_is_revoked_and_admitted_again_once_restored() -> None:
    policy = issuer_policy()
    assert isinstance(decide(CLIENT, policy, NOW), Admit)
    then = replace(policy, revocations=policy.revocations.changed([revoked(K.TOKEN_ID, TOKEN_ID)], (), "1"))
    assert then.tokens is policy.tokens
    assert isinstance(decide(CLIENT, then, NOW), Deny)
    after = replace(then, revocations=then.revocations.changed((), [revoked(K.TOKEN_ID, TOKEN_ID)], "2"))
    assert isinstance(decide(CLIENT, after, NOW), Admit)
    assert after.revocations.count == 0


def test_ecdsa_signature_written_in_another_way_is_the_same_token() -> None:
    """(r, n - s) is valid wherever (r, s) is, so a digest of the whole token would not stop a thief."""
    key = ec_key("client")
    token = sign(client_claims(), key)
    signed, _, signature = token.rpartition(".")
    raw = unb64(signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")))
    other = f"{signed}.{b64(r.to_bytes(32, 'big') + (order - s).to_bytes(32, 'big'))}"
    assert other != token
    policy = replace(x509_policy(), tokens=TokenVerifier(TrustedKeys(issuers={}, client=(key.verifies,))))
    for written in (token, other):
        assert isinstance(decide(presenting(written), policy, NOW), Admit)
        decision = decide(presenting(written), without(policy, revoked(K.TOKEN_SHA256, signed_part(token))), NOW)
        assert isinstance(decision, Deny)
        assert decision.code is DenyCode.REVOKED


def test_denial_says_what_was_revoked_and_nothing_to_the_client() -> None:
    decision = decide(CLIENT, without(ISSUER, revoked(K.TOKEN_ID, TOKEN_ID)), NOW)
    assert isinstance(decision, Deny)
    assert decision.detail == f"the token id {TOKEN_ID} was revoked"
    assert decision.token_id == TOKEN_ID
    assert decision.phrase == "credentials not sufficient"


# --- Sequences

CATALOGUE: tuple[Revocation, ...] = tuple(
    dict.fromkeys(
        [
            revoked(K.TOKEN_ID, TOKEN_ID),
            revoked(K.TOKEN_ID, CREATOR_ID),
            revoked(K.TOKEN_SHA256, signed_part(TOKEN)),
            revoked(K.KEY, HOLDER.hex),
            revoked(K.KEY, CREATOR.hex),
            revoked(K.CHAIN_ISSUER, CREATOR_ID),
            revoked(K.IDENTITY, "up=alice"),
            revoked(K.IDENTITY, "/node1.*/"),
            revoked(K.SIGNER, "organization", before=NOW + 1),
            revoked(K.CERTIFICATE, fingerprint()),
            revoked(K.SERIAL, serial(PROVISIONER_NAME)),
            revoked(K.NODE, NODE_NAME),
            revoked(K.NETWORK, "192.0.2.0/24", until=NOW + DAY),
            revoked(K.NETWORK, "198.51.100.0/24"),
        ]
    )
)


def concerned(entry: Revocation) -> frozenset[str]:
    """Return the requests that a revocation alone denies."""
    return frozenset(
        who
        for who, (asked, policy, _) in REQUESTS.items()
        if isinstance(decide(asked, without(policy, entry), NOW), Deny)
    )


CONCERNED = {entry: concerned(entry) for entry in CATALOGUE}


def test_catalogue_concerns_everybody_and_not_always() -> None:
    assert frozenset[str]().union(*CONCERNED.values()) == set(REQUESTS)
    assert len({*CONCERNED.values()}) > 8


@given(st.lists(st.tuples(st.booleans(), st.sets(st.sampled_from(CATALOGUE), max_size=5)), max_size=8))
def test_sequence_of_changes_denies_the_revoked_and_nobody_else(steps: list[tuple[bool, set[Revocation]]]) -> None:
    """The order of earlier changes does not matter."""
    held: set[Revocation] = set()
    revocations = Revocations()
    for number, (adding, entries) in enumerate(steps):
        held = held | entries if adding else held - entries
        added, removed = (entries, set[Revocation]()) if adding else (set[Revocation](), entries)
        revocations = revocations.changed(added, removed, str(number))
    assert revocations.count == len(held)
    denied = frozenset[str]().union(*(CONCERNED[entry] for entry in held))
    for who, (asked, policy, _) in REQUESTS.items():
        decision = decide(asked, replace(policy, revocations=revocations), NOW)
        assert isinstance(decision, Deny) == (who in denied), (who, held)


def test_patterns_are_bounded_because_each_costs_every_admission() -> None:
    many = [revoked(K.IDENTITY, f"/a{number}/") for number in range(MAX_PATTERNS)]
    held = Revocations.of(many)
    with pytest.raises(RevocationError):
        held.changed([revoked(K.IDENTITY, "/b/")], (), "")
