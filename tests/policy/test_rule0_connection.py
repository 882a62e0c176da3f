"""Rule 0: kind, type, TLS, contradicting tokens, and accepted chains."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import DNSName, IPAddress, ObjectIdentifier, RFC822Name, UniformResourceIdentifier
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker_auth.audit.record import make_record
from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.certificates.verifier import PeerVerifier
from broker_auth.deploy.pki import CertificateAuthority, Pair, private_key
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest, ClientTLS
from tests.builders.clock import DAY, HOUR, NOW
from tests.builders.peers import (
    FLEET_NAME,
    LONG,
    PROVISIONER_NAME,
    Chain,
    authority,
    chain,
    client,
    custom,
    ed25519_authority,
    fleet_chain,
    foreign_chain,
    intermediate,
    parsed,
    pem,
    validity,
    verifier,
)
from tests.builders.policies import issuer_policy
from tests.builders.requests import client as client_request
from tests.builders.requests import fleet, node, provisioner, request, system
from tests.builders.tokens import CLIENT_SIGNER, ORG, client_claims, sign
from tests.policy.grants import ALICE, NODE, UNRESTRICTED
from tests.policy.table import ISSUER, PEER_ENDS, TOKEN_ENDS, TOKEN_ID, X509, Row, Table, deny, rows

CONNECTION, NONE = Rule.CONNECTION, Rule.NONE


def fleet_row(
    asked: AuthorizationRequest, name: str = FLEET_NAME, expires: float = PEER_ENDS, **changes: object
) -> Row:
    """Return a row in which the peer is verified: in x509 mode it is a fleet member, unrestricted."""
    admitted = Row(
        request=asked,
        policy=X509,
        rule=Rule.VERIFIED_TLS,
        account="choria",
        name=name,
        grant=UNRESTRICTED,
        expires=expires,
        verified=True,
    )
    return replace(admitted, **changes)  # type: ignore[arg-type]


def unverified(*certificates: Pair | CertificateAuthority, **changes: object) -> Row:
    """Return a row in which the peer counts as unverified, and has no other credential."""
    asked = fleet(chains=(chain(*certificates),))
    return replace(deny(asked, NONE, DenyCode.NO_CREDENTIAL), **changes)  # type: ignore[arg-type]


KINDS: Table = {
    f"rule0-kind-{kind or 'empty'}": deny(fleet(kind=kind), CONNECTION, DenyCode.KIND)
    for kind in ("Leafnode", "Router", "Gateway", "System", "JetStream", "Account", "client", "Client ", "")
}
TYPES: Table = {
    f"rule0-type-{type_ or 'empty'}": deny(fleet(type=type_), CONNECTION, DenyCode.TYPE)
    for type_ in ("mqtt", "NATS", "unknown", "")
}
WITHOUT_TLS: Table = {
    f"rule0-no-tls-{name}": deny(asked, CONNECTION, DenyCode.NO_TLS, policy)
    for name, asked, policy in (
        ("nothing", request(tls=None), X509),
        ("provisioner", provisioner(tls=None, chains=()), X509),
        ("system", system(tls=None, chains=()), X509),
        ("provisioning-token", node(tls=None), X509),
        ("client-token", client_request(tls=None), ISSUER),
    )
}
JWT = sign(client_claims(), ORG)
CONNECTIONS: Table = {
    "rule0-type-websocket": fleet_row(fleet(type="websocket")),
    "rule0-kind-before-type": deny(fleet(kind="Leafnode", type="mqtt"), CONNECTION, DenyCode.KIND),
    "rule0-kind-leafnode-with-token": deny(node(kind="Leafnode"), CONNECTION, DenyCode.KIND),
    "rule0-kind-leafnode-provisioner": deny(provisioner(kind="Leafnode"), CONNECTION, DenyCode.KIND),
    "rule0-type-mqtt-system-user": deny(system(type="mqtt"), CONNECTION, DenyCode.TYPE),
    "rule0-jwt-differs": deny(client_request(jwt="x"), CONNECTION, DenyCode.JWT_DIFFERS, ISSUER),
    "rule0-jwt-alone": deny(request(jwt=JWT), CONNECTION, DenyCode.JWT_DIFFERS, ISSUER),
    "rule0-jwt-alone-on-verified-tls": deny(fleet(jwt=JWT), CONNECTION, DenyCode.JWT_DIFFERS),
    "rule0-jwt-with-the-provisioner": deny(provisioner(jwt=JWT), CONNECTION, DenyCode.JWT_DIFFERS),
    "rule0-jwt-same": Row(
        request=client_request(jwt=JWT),
        policy=ISSUER,
        rule=Rule.CLIENT,
        account="choria",
        name="up=alice",
        grant=ALICE,
        expires=TOKEN_ENDS,
        token_id=TOKEN_ID,
        signer="organization",
    ),
}

EXPIRED_CA = CertificateAuthority.create("expired CA", validity=validity(NOW - 9 * DAY, NOW - 1))
SHORT_CA = CertificateAuthority.create("short CA", validity=validity(NOW - DAY, NOW + DAY))
MIDDLE = intermediate()
SHORT_MIDDLE = authority().intermediate("short intermediate", validity=validity(NOW - DAY, NOW + HOUR))
EXPIRED_MIDDLE = authority().intermediate("old intermediate", validity=validity(NOW - 2 * DAY, NOW - DAY))
BELOW_MIDDLE = MIDDLE.client(FLEET_NAME, validity=LONG)
ROOT = authority().pair
NOT_A_CA = client("not a CA")
ED_ROOT = ed25519_authority()
ED_LEAF = custom(ED_ROOT, key=private_key("ed25519"))
ED_POLICY = replace(X509, peers=verifier(ED_ROOT))
# the same name as ED_ROOT, another key
ED_FALSE_ROOT = custom(None, subject=((NameOID.COMMON_NAME, "Ed25519 CA"),), ca=True, key=private_key("ed25519"))
ED_FALSE_LEAF = custom(ED_FALSE_ROOT, key=private_key("ed25519"))
ED_NOT_A_CA = custom(ED_ROOT, subject=((NameOID.COMMON_NAME, "leaf"),), key=private_key("ed25519"))
ED_BELOW_LEAF = custom(ED_NOT_A_CA, key=private_key("ed25519"))
ED_OLD_LEAF = custom(ED_ROOT, key=private_key("ed25519"), holds=validity(NOW - DAY, NOW - 1))
TLS_WITH_CERTS = msgspec.convert({"version": "1.3", "cipher": "X", "certs": list(fleet_chain())}, ClientTLS)


def usage(*usages: ObjectIdentifier) -> Pair:
    return custom(ROOT, usages=usages)


CHAINS: Table = {
    "rule0-chain-of-another-ca-is-unverified": unverified(client(ca="foreign CA"), authority("foreign CA")),
    "rule0-chain-of-another-ca-with-our-root-appended": unverified(client(ca="foreign CA"), authority()),
    "rule0-chain-our-root-alone-in-a-second-chain": deny(
        fleet(chains=(foreign_chain(), chain(authority()))), NONE, DenyCode.NO_CREDENTIAL
    ),
    "rule0-chain-second-leads-to-our-ca": fleet_row(
        fleet(chains=(chain(BELOW_MIDDLE), chain(BELOW_MIDDLE, MIDDLE, authority())))
    ),
    "rule0-any-chain-counts-without-a-ca": fleet_row(
        fleet(chains=(foreign_chain("other.example.net"),)),
        "other.example.net",
        policy=replace(X509, peers=PeerVerifier([])),
    ),
    "rule0-without-a-ca-expired-still-is": unverified(
        EXPIRED_CA.client(FLEET_NAME, validity=validity(NOW - 2 * DAY, NOW - 1)),
        policy=replace(X509, peers=PeerVerifier([])),
    ),
    "rule0-empty-verified-chains": deny(
        request(tls=ClientTLS(version="1.3", cipher="X", verified_chains=())), NONE, DenyCode.NO_CREDENTIAL
    ),
    "rule0-certs-alone-are-unverified": deny(request(tls=TLS_WITH_CERTS), NONE, DenyCode.NO_CREDENTIAL),
    "rule0-certs-alone-provisioning-token": Row(
        request=node(tls=TLS_WITH_CERTS),
        policy=X509,
        rule=Rule.PROVISIONING,
        account="provisioning",
        name="new1.example.net",
        grant=NODE,
        expires=TOKEN_ENDS,
        token_id=TOKEN_ID,
        signer="provisioning signer",
    ),
    "rule0-foreign-chain-provisioning-token": Row(
        request=node(chains=(foreign_chain(),)),
        policy=X509,
        rule=Rule.PROVISIONING,
        account="provisioning",
        name="new1.example.net",
        grant=NODE,
        expires=TOKEN_ENDS,
        token_id=TOKEN_ID,
        signer="provisioning signer",
    ),
    "rule0-foreign-chain-provisioner": deny(
        provisioner(chains=(foreign_chain(PROVISIONER_NAME),)), Rule.PROVISIONER, DenyCode.PROVISIONER_NOT_VERIFIED
    ),
    "rule0-foreign-chain-system": deny(system(chains=(foreign_chain(),)), Rule.SYSTEM, DenyCode.SYSTEM_TOKEN_MISSING),
    "rule0-foreign-chain-issuer-mode": deny(fleet(chains=(foreign_chain(),)), NONE, DenyCode.NO_CREDENTIAL, ISSUER),
    "rule0-unparsable-chain": deny(fleet(chains=(("garbage",),)), CONNECTION, DenyCode.CHAIN_UNUSABLE),
    "rule0-unparsable-chain-with-token": deny(node(chains=(("x",),)), CONNECTION, DenyCode.CHAIN_UNUSABLE),
    "rule0-unparsable-chain-with-client-token": deny(
        client_request(CLIENT_SIGNER, chains=(("x",),)), CONNECTION, DenyCode.CHAIN_UNUSABLE
    ),
    "rule0-empty-chain": deny(fleet(chains=((),)), CONNECTION, DenyCode.CHAIN_UNUSABLE),
    "rule0-expired-ca": unverified(
        EXPIRED_CA.client(FLEET_NAME, validity=LONG), EXPIRED_CA, policy=replace(X509, peers=verifier(EXPIRED_CA))
    ),
    "rule0-ca-that-expires-first-ends-the-session": fleet_row(
        fleet(chains=(chain(SHORT_CA.client(FLEET_NAME, validity=LONG), SHORT_CA),)),
        expires=NOW + DAY,
        policy=replace(X509, peers=verifier(SHORT_CA)),
    ),
    "rule0-expired-leaf": unverified(
        authority().client(FLEET_NAME, validity=validity(NOW - DAY, NOW - 1)), authority()
    ),
    "rule0-leaf-not-yet-valid": unverified(
        authority().client(FLEET_NAME, validity=validity(NOW + 1, NOW + DAY)), authority()
    ),
    "rule0-leaf-in-its-last-second": fleet_row(
        fleet(chains=(chain(authority().client(FLEET_NAME, validity=validity(NOW - DAY, NOW + 1)), authority()),)),
        expires=NOW + 1,
    ),
    "rule0-leaf-valid-from-now": fleet_row(
        fleet(chains=(chain(authority().client(FLEET_NAME, validity=validity(NOW, NOW + DAY)), authority()),)),
        expires=NOW + DAY,
    ),
    "rule0-through-an-intermediate": fleet_row(fleet(chains=(chain(BELOW_MIDDLE, MIDDLE, authority()),))),
    "rule0-root-left-out": fleet_row(fleet(chains=(chain(BELOW_MIDDLE, MIDDLE),))),
    "rule0-intermediate-left-out": unverified(BELOW_MIDDLE, authority()),
    "rule0-intermediate-that-expires-first": fleet_row(
        fleet(chains=(chain(SHORT_MIDDLE.client(FLEET_NAME, validity=LONG), SHORT_MIDDLE, authority()),)),
        expires=NOW + HOUR,
    ),
    "rule0-intermediate-expired": unverified(
        EXPIRED_MIDDLE.client(FLEET_NAME, validity=LONG), EXPIRED_MIDDLE, authority()
    ),
    "rule0-issuer-is-a-leaf": unverified(custom(NOT_A_CA), NOT_A_CA, authority()),
    "rule0-self-signed": unverified(custom(None)),
    "rule0-without-sans": fleet_row(fleet(chains=(chain(client(FLEET_NAME, ()), authority()),))),
    "rule0-without-usages": fleet_row(fleet(chains=(chain(usage(), authority()),))),
    "rule0-any-usage": fleet_row(
        fleet(chains=(chain(usage(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE), authority()),))
    ),
    "rule0-servers-only": unverified(usage(ExtendedKeyUsageOID.SERVER_AUTH), authority()),
    "rule0-ed25519": fleet_row(fleet(chains=(chain(ED_LEAF, ED_ROOT),)), policy=ED_POLICY),
    "rule0-ed25519-root-left-out": fleet_row(fleet(chains=(chain(ED_LEAF),)), policy=ED_POLICY),
    "rule0-ed25519-false-root": unverified(ED_FALSE_LEAF, ED_FALSE_ROOT, policy=ED_POLICY),
    "rule0-ed25519-false-root-of-the-same-name": unverified(ED_FALSE_LEAF, ED_ROOT, policy=ED_POLICY),
    "rule0-ed25519-issuer-is-a-leaf": unverified(ED_BELOW_LEAF, ED_NOT_A_CA, ED_ROOT, policy=ED_POLICY),
    "rule0-ed25519-second-chain-is-anothers": deny(
        fleet(chains=(foreign_chain(), chain(ED_LEAF, ED_ROOT))), NONE, DenyCode.NO_CREDENTIAL, ED_POLICY
    ),
    "rule0-second-chain-is-anothers": deny(
        fleet(chains=(foreign_chain(), fleet_chain())), NONE, DenyCode.NO_CREDENTIAL
    ),
    "rule0-ed25519-expired": unverified(ED_OLD_LEAF, ED_ROOT, policy=ED_POLICY),
    "rule0-ed25519-leaf-of-another-ca": unverified(ED_LEAF, ED_ROOT),
}
ORGANIZATION = NameOID.ORGANIZATION_NAME
NO_NAME = custom(ROOT, subject=((ORGANIZATION, "Example"),))
NAMES: Table = {
    "rule0-name-first-san": fleet_row(
        fleet(chains=(chain(custom(ROOT, subject=((ORGANIZATION, "x"),), sans=(DNSName("a.example"), DNSName("b")))),)),
        "a.example",
    ),
    "rule0-name-mail": fleet_row(
        fleet(chains=(chain(custom(ROOT, subject=(), sans=(RFC822Name("a@example.net"),))),)), "a@example.net"
    ),
    "rule0-name-uri": fleet_row(
        fleet(chains=(chain(custom(ROOT, subject=(), sans=(UniformResourceIdentifier("spiffe://x/y"),))),)),
        "spiffe://x/y",
    ),
    "rule0-name-fingerprint": fleet_row(
        fleet(chains=(chain(NO_NAME),)),
        "sha256:" + NO_NAME.certificate.fingerprint(SHA256()).hex(),
    ),
    "rule0-last-of-two-common-names": fleet_row(
        fleet(chains=(chain(custom(ROOT, subject=((NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "b")))),)), "b"
    ),
}

TABLES = (KINDS, TYPES, WITHOUT_TLS, CONNECTIONS, CHAINS, NAMES)


@rows(*TABLES)
def test_rule_0(row: Row) -> None:
    row.check()


def test_cached_peer_expires() -> None:
    policy = issuer_policy(peers=verifier())
    short = authority().client(FLEET_NAME, validity=validity(NOW - DAY, NOW + 10))
    asked = fleet(chains=(chain(short, authority()),))
    before = deny(asked, NONE, DenyCode.NO_CREDENTIAL, policy, NOW - DAY - 1)
    during = replace(fleet_row(asked, expires=NOW + 10, policy=replace(policy, issuer_mode=False)), now=NOW + 9)
    after = deny(asked, NONE, DenyCode.NO_CREDENTIAL, policy, NOW + 10)
    for row in (before, during, during, after, after, during, before):
        row.check()


def test_refused_peer_stays_refused() -> None:
    policy = replace(X509, peers=verifier())
    row = deny(fleet(chains=(foreign_chain(),)), NONE, DenyCode.NO_CREDENTIAL, policy)
    for now in (NOW, NOW, NOW + 1, NOW + HOUR):
        replace(row, now=now).check()


def test_peers_that_differ_only_in_the_leaf_are_distinguished() -> None:
    peers = verifier()
    good = peers.identify((fleet_chain(),), NOW)
    assert isinstance(good, PeerIdentity)
    assert isinstance(peers.identify((chain(client(ca="foreign CA"), authority()),), NOW), RefusedPeer)
    assert pem(authority()) in fleet_chain()


@pytest.mark.parametrize("count", [1, 5])
def test_peer_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("broker_auth.certificates.verifier.PEER_CACHE", 4)
    peers = verifier()
    asked: list[Chain] = [(*fleet_chain(), *[pem(authority())] * extra) for extra in range(count)]
    assert all(isinstance(peers.identify((one,), NOW), PeerIdentity) for one in asked)
    assert len(peers._known) == min(count, 4)


def test_sans_of_all_textual_kinds_are_names() -> None:
    sans = (DNSName("d"), RFC822Name("m@d"), UniformResourceIdentifier("u:d"), IPAddress(ip_address("2001:db8::1")))
    peer = verifier().identify((chain(custom(ROOT, sans=sans)),), NOW)
    assert isinstance(peer, PeerIdentity)
    assert peer.all_names == (FLEET_NAME, "d", "m@d", "u:d", "2001:db8::1")
    assert peer.names == ("d", "uri:u:d", "email:m@d", "ip:2001:db8::1")


@pytest.mark.parametrize(
    ("asked", "policy"),
    [
        (fleet(chains=(foreign_chain(),)), X509),
        (provisioner(chains=(foreign_chain(),)), X509),
        (system(chains=(foreign_chain(),)), X509),
    ],
    ids=["nothing else", "provisioner", "system user"],
)
def test_denial_contains_the_problem_of_the_certificate(asked: AuthorizationRequest, policy: Policy) -> None:
    decision = decide(asked, policy, NOW)
    assert isinstance(decision, Deny)
    leaf = parsed(client(ca="foreign CA"))
    assert decision.fingerprint == leaf.fingerprint
    assert decision.certificate_names == (FLEET_NAME, FLEET_NAME)
    problem = "it does not lead to client_ca: its issuer 'CN=foreign CA' is not one of these CAs"
    assert decision.certificate_problem == problem
    assert decision.detail.endswith(f"; certificate '{FLEET_NAME}' (sha256:{leaf.fingerprint[:16]}…): {problem}")
    record = make_record(asked, decision, NOW, 1)
    assert (record.tls, record.fingerprint) == ("unverified", leaf.fingerprint)
    assert (record.certificate_names, record.certificate_problem) == ((FLEET_NAME, FLEET_NAME), problem)


def test_denial_of_a_verified_peer_contains_its_certificate() -> None:
    asked = provisioner(chains=(fleet_chain(),))
    decision = decide(asked, X509, NOW)
    assert isinstance(decision, Deny)
    assert (decision.certificate_names, decision.certificate_problem) == ((FLEET_NAME, FLEET_NAME), "")
    assert make_record(asked, decision, NOW, 1).tls == "verified"


def test_record_contains_a_bounded_number_of_certificate_names() -> None:
    names = tuple(DNSName("x" * 300 + str(number)) for number in range(100))
    stranger = custom(authority("foreign CA").pair, sans=names)
    asked = fleet(chains=(chain(stranger, authority("foreign CA")),))
    record = make_record(asked, decide(asked, X509, NOW), NOW, 1)
    assert len(record.certificate_names) == 16
    assert max(map(len, record.certificate_names)) == 256
    assert len(record.reason) < 400
