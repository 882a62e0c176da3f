"""Rule 1: the user ``provisioner``."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from cryptography.x509 import DNSName, GeneralName, IPAddress, RFC822Name, UniformResourceIdentifier
from cryptography.x509.oid import NameOID

from broker_auth.policy.decision import DenyCode, Rule
from broker_auth.policy.model import IdentityPatterns, Policy, SystemUser
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.secret import Secret
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.peers import PROVISIONER_NAME, authority, chain, custom, fleet_chain
from tests.builders.policies import PASSWORD, SYSTEM_PASSWORD, changed
from tests.builders.requests import fleet, gauge, provisioner
from tests.builders.tokens import (
    ABSENT,
    CLIENT_SIGNER,
    FOREIGN,
    HOLDER,
    NONCE,
    ORG,
    Key,
    client_claims,
    nonce_signature,
    provisioning_claims,
    provisioning_signer,
    server_claims,
    sign,
)
from tests.policy.grants import UNRESTRICTED
from tests.policy.table import ISSUER, PEER_ENDS, TOKEN_ENDS, TOKEN_ID, X509, Row, Table, deny, rows

PROVISIONER = Rule.PROVISIONER
WITHOUT_TOKEN = changed(ISSUER, provisioner_without_token=True)
WITHOUT_MTLS = changed(ISSUER, require_mtls=False)
NEITHER = changed(ISSUER, require_mtls=False, provisioner_without_token=True)
CLAIM = {"permissions": {"provisioner": True}}


def with_token(key: Key = ORG, signer: Key = HOLDER, claims: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Return the provisioner with a client token that has ``provisioner``, and the nonce signed."""
    token = sign(client_claims(**(CLAIM | (claims or {}))), key)
    return provisioner(**({"auth_token": token, "nonce": NONCE, "sig": nonce_signature(signer)} | changes))


def admitted(asked: AuthorizationRequest, policy: Policy = X509, **changes: Any) -> Row:
    """Return a row that expects admission by password and mTLS alone."""
    row = Row(
        request=asked,
        policy=policy,
        rule=PROVISIONER,
        account="provisioning",
        name=PROVISIONER_NAME,
        grant=UNRESTRICTED,
        expires=PEER_ENDS,
        verified=True,
    )
    return replace(row, **changes)


def with_token_admitted(asked: AuthorizationRequest, policy: Policy, signer: str, **changes: Any) -> Row:
    row = admitted(asked, policy, name="up=alice", expires=TOKEN_ENDS, token_id=TOKEN_ID, signer=signer)
    return replace(row, **changes)


def refused(asked: AuthorizationRequest, code: DenyCode | TokenFault, policy: Policy = X509) -> Row:
    return deny(asked, PROVISIONER, code, policy)


def allowing(*literals: str, expressions: tuple[str, ...] = ()) -> Policy:
    patterns = IdentityPatterns(literals=frozenset(literals), expressions=tuple(map(re.compile, expressions)))
    return changed(X509, identities=patterns)


def named(name: str, *sans: str) -> AuthorizationRequest:
    return provisioner(chains=(fleet_chain(name, sans or (name,)),))


URI = UniformResourceIdentifier("spiffe://e/p")


def bare(name: str) -> AuthorizationRequest:
    """Return a certificate without alternative names."""
    return provisioner(chains=(fleet_chain(name, ()),))


def holding(name: str, *sans: GeneralName) -> AuthorizationRequest:
    """Return a certificate with this common name and these alternative names."""
    leaf = custom(authority().pair, subject=((NameOID.COMMON_NAME, name),), sans=sans)
    return provisioner(chains=(chain(leaf, authority()),))


PASSWORDS: Table = {
    f"rule1-password-{name}-{mode}": refused(provisioner(password=password), DenyCode.PROVISIONER_PASSWORD, policy)
    for mode, policy in (("x509", X509), ("issuer", ISSUER))
    for name, password in {
        "empty": "",
        "wrong": "wrong",
        "longer": PASSWORD + " ",
        "shorter": PASSWORD[:-1],
        "other-case": PASSWORD.upper(),
        "system": SYSTEM_PASSWORD,
        "null": PASSWORD + "\0",
    }.items()
}
ROTATED = changed(X509, passwords=(Secret("old"), Secret(PASSWORD)))
EMPTY_SECRET = changed(X509, passwords=(Secret(""), Secret(PASSWORD)))
PASSWORD_ROWS: Table = {
    "rule1-password": admitted(provisioner()),
    "rule1-where-nodes-find-no-place": admitted(provisioner(), changed(X509, gauge=gauge(1000))),
    "rule1-password-rotated-old": admitted(provisioner(password="old"), ROTATED),
    "rule1-password-rotated-new": admitted(provisioner(), ROTATED),
    "rule1-password-rotated-other": refused(provisioner(password="older"), DenyCode.PROVISIONER_PASSWORD, ROTATED),
    "rule1-password-empty-secret": refused(provisioner(password=""), DenyCode.PROVISIONER_PASSWORD, EMPTY_SECRET),
    "rule1-password-none-configured": refused(
        provisioner(), DenyCode.PROVISIONER_PASSWORD, changed(X509, passwords=())
    ),
    "rule1-not-enabled-x509": refused(provisioner(), DenyCode.PROVISIONING_DISABLED, changed(X509, enabled=False)),
    "rule1-not-enabled-issuer": refused(with_token(), DenyCode.PROVISIONING_DISABLED, changed(ISSUER, enabled=False)),
    "rule1-no-other-rule-sees-this-user-verified-tls": refused(
        fleet(user="provisioner"), DenyCode.PROVISIONER_PASSWORD
    ),
    "rule1-no-other-rule-sees-this-user-client-token": refused(
        with_token(password=""), DenyCode.PROVISIONER_PASSWORD, ISSUER
    ),
    "rule1-no-other-rule-sees-this-user-provisioning-token": refused(
        provisioner(chains=(), password="", auth_token=sign(provisioning_claims(), provisioning_signer())),
        DenyCode.PROVISIONER_PASSWORD,
    ),
    "rule1-no-other-rule-sees-this-user-system": refused(
        provisioner(password=SYSTEM_PASSWORD),
        DenyCode.PROVISIONER_PASSWORD,
        replace(X509, system=SystemUser(user="provisioner", passwords=(Secret(SYSTEM_PASSWORD),))),
    ),
    "rule1-another-user-of-like-name": admitted(
        provisioner(user="Provisioner"), rule=Rule.VERIFIED_TLS, account="choria"
    ),
}
TLS: Table = {
    "rule1-unverified-x509": refused(provisioner(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED),
    "rule1-unverified-issuer": refused(provisioner(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED, ISSUER),
    "rule1-unverified-with-token-x509": refused(
        with_token(CLIENT_SIGNER, chains=()), DenyCode.PROVISIONER_NOT_VERIFIED
    ),
    "rule1-unverified-with-token-issuer": refused(with_token(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED, ISSUER),
    "rule1-unverified-without-token": refused(provisioner(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED, WITHOUT_TOKEN),
}
IDENTITY = DenyCode.PROVISIONER_IDENTITY
IDENTITIES: Table = {
    "rule1-identity-any-by-default": admitted(named("any.example.net"), allowing(), name="any.example.net"),
    "rule1-identity-not-listed": refused(named("node1.example.net"), IDENTITY),
    "rule1-identity-not-listed-issuer": refused(with_token(chains=(fleet_chain(),)), IDENTITY, ISSUER),
    "rule1-identity-common-name": admitted(bare("p"), allowing("x", "p"), name="p"),
    "rule1-identity-common-name-beside-sans": refused(named("p", "other"), IDENTITY, allowing("p")),
    "rule1-identity-common-name-beside-a-uri": refused(holding("p", URI), IDENTITY, allowing("p")),
    "rule1-identity-uri-is-no-name": refused(holding("x", UniformResourceIdentifier("p")), IDENTITY, allowing("p")),
    "rule1-identity-uri": admitted(holding("x", URI), allowing("uri:spiffe://e/p"), name="x"),
    "rule1-identity-uri-by-prefix-only": refused(holding("x", URI), IDENTITY, allowing("spiffe://e/p")),
    "rule1-identity-dns-name-that-looks-like-a-uri": refused(
        holding("x", DNSName("uri:spiffe://e/p")), IDENTITY, allowing("uri:spiffe://e/p")
    ),
    "rule1-identity-common-name-that-looks-like-a-uri": refused(
        bare("uri:spiffe://e/p"), IDENTITY, allowing("uri:spiffe://e/p")
    ),
    "rule1-identity-email": admitted(holding("x", RFC822Name("a@e")), allowing("email:a@e"), name="x"),
    "rule1-identity-email-by-prefix-only": refused(holding("x", RFC822Name("a@e")), IDENTITY, allowing("a@e")),
    "rule1-identity-ip": admitted(holding("x", IPAddress(ip_address("192.0.2.7"))), allowing("ip:192.0.2.7"), name="x"),
    "rule1-identity-expression-of-dns-names-and-a-uri": refused(
        holding("x", UniformResourceIdentifier("a.example.net")), IDENTITY, allowing(expressions=(r".*\.example\.net",))
    ),
    "rule1-identity-expression-of-uris": admitted(
        holding("x", URI), allowing(expressions=("uri:spiffe://e/.*",)), name="x"
    ),
    "rule1-identity-expression-of-uris-and-a-dns-name": refused(
        holding("x", DNSName("uri:spiffe://e/p")), IDENTITY, allowing(expressions=("uri:.*",))
    ),
    "rule1-identity-san": admitted(named("other", "a", "p"), allowing("p"), name="other"),
    "rule1-identity-literal-is-no-prefix": refused(named("p.example.net"), IDENTITY, allowing("p")),
    "rule1-identity-literal-is-no-expression": refused(named("pxexample"), IDENTITY, allowing("p.example")),
    "rule1-identity-case-counts": refused(named("P"), IDENTITY, allowing("p")),
    "rule1-identity-expression": admitted(named("p7"), allowing(expressions=(r"p\d",)), name="p7"),
    "rule1-identity-expression-in-a-san": admitted(named("x", "p7"), allowing(expressions=(r"p\d",)), name="x"),
    "rule1-identity-expression-matches-the-whole": refused(named("p77"), IDENTITY, allowing(expressions=(r"p\d",))),
    "rule1-identity-expression-matches-the-whole-start": refused(
        named("xp7"), IDENTITY, allowing(expressions=(r"p\d",))
    ),
    "rule1-identity-expression-alternatives-match-the-whole": refused(
        named("a.evil.org"), IDENTITY, allowing(expressions=("a|b",))
    ),
    "rule1-identity-after-password": refused(
        provisioner(password="", chains=(fleet_chain(),)), DenyCode.PROVISIONER_PASSWORD
    ),
}
KIND = DenyCode.PROVISIONER_TOKEN_KIND
X509_TOKENS: Table = {
    "rule1-x509-token-not-needed-but-fine": with_token_admitted(with_token(CLIENT_SIGNER), X509, "client signer"),
    "rule1-x509-token-needs-no-claim": with_token_admitted(
        with_token(CLIENT_SIGNER, claims={"permissions": {}}), X509, "client signer"
    ),
    "rule1-x509-presented-token-must-verify": refused(with_token(FOREIGN), TokenFault.SIGNATURE),
    "rule1-x509-presented-token-must-be-one": refused(with_token(auth_token="x"), TokenFault.NOT_COMPACT),
    "rule1-x509-presented-token-nonce": refused(with_token(CLIENT_SIGNER, FOREIGN), TokenFault.NONCE_SIGNATURE),
    "rule1-x509-unverified-with-token-though-mtls-not-required": refused(
        # the configuration refuses this combination, but the decision fails closed too
        with_token(CLIENT_SIGNER, claims={"permissions": {}}, chains=()),
        DenyCode.PROVISIONER_CLAIM,
        changed(X509, require_mtls=False),
    ),
}
ISSUER_TOKENS: Table = {
    "rule1-issuer-token": with_token_admitted(with_token(), ISSUER, "organization"),
    "rule1-issuer-token-missing": refused(provisioner(), DenyCode.PROVISIONER_TOKEN_MISSING, ISSUER),
    "rule1-issuer-claim-absent": refused(
        with_token(claims={"permissions": ABSENT}), DenyCode.PROVISIONER_CLAIM, ISSUER
    ),
    "rule1-issuer-claim-false": refused(
        with_token(claims={"permissions": {"provisioner": False}}), DenyCode.PROVISIONER_CLAIM, ISSUER
    ),
    "rule1-issuer-org-admin-is-not-enough": refused(
        with_token(claims={"permissions": {"org_admin": True, "system_user": True}}),
        DenyCode.PROVISIONER_CLAIM,
        ISSUER,
    ),
    "rule1-issuer-nonce-not-signed": refused(with_token(sig=""), TokenFault.NONCE_UNSIGNED, ISSUER),
    "rule1-issuer-nonce-signed-by-another": refused(with_token(ORG, FOREIGN), TokenFault.NONCE_SIGNATURE, ISSUER),
    "rule1-issuer-unknown-signer": refused(with_token(FOREIGN), TokenFault.SIGNATURE, ISSUER),
    "rule1-issuer-unknown-organization": refused(with_token(claims={"ou": "x"}), TokenFault.ISSUER_UNKNOWN, ISSUER),
    "rule1-issuer-expired": refused(with_token(claims={"exp": NOW}), TokenFault.EXPIRED, ISSUER),
    "rule1-issuer-server-token": refused(with_token(auth_token=sign(server_claims(), ORG)), KIND, ISSUER),
    "rule1-issuer-provisioning-token": refused(with_token(auth_token=sign(provisioning_claims(), ORG)), KIND, ISSUER),
    "rule1-issuer-unknown-purpose": refused(with_token(claims={"purpose": "x"}), TokenFault.PURPOSE, ISSUER),
    "rule1-without-token": admitted(provisioner(), WITHOUT_TOKEN),
    "rule1-without-token-presented-must-verify": refused(with_token(FOREIGN), TokenFault.SIGNATURE, WITHOUT_TOKEN),
    "rule1-without-token-presented-nonce": refused(with_token(sig=""), TokenFault.NONCE_UNSIGNED, WITHOUT_TOKEN),
    "rule1-without-token-presented-needs-no-claim": with_token_admitted(
        with_token(claims={"permissions": {}}), WITHOUT_TOKEN, "organization"
    ),
    "rule1-without-token-identity": refused(provisioner(chains=(fleet_chain(),)), IDENTITY, WITHOUT_TOKEN),
}
STANDS_IN: Table = {
    "rule1-without-mtls-token-stands-in": with_token_admitted(
        with_token(chains=()), WITHOUT_MTLS, "organization", verified=False
    ),
    "rule1-without-mtls-claim": refused(
        with_token(chains=(), claims={"permissions": {}}), DenyCode.PROVISIONER_CLAIM, WITHOUT_MTLS
    ),
    "rule1-without-mtls-nonce": refused(with_token(chains=(), sig=""), TokenFault.NONCE_UNSIGNED, WITHOUT_MTLS),
    "rule1-without-mtls-password-alone": refused(
        provisioner(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED, WITHOUT_MTLS
    ),
    "rule1-without-mtls-wrong-password": refused(
        with_token(chains=(), password="x"), DenyCode.PROVISIONER_PASSWORD, WITHOUT_MTLS
    ),
    "rule1-without-mtls-verified-all-the-same": with_token_admitted(with_token(), WITHOUT_MTLS, "organization"),
    "rule1-without-mtls-verified-identity-counts": refused(with_token(chains=(fleet_chain(),)), IDENTITY, WITHOUT_MTLS),
    "rule1-without-mtls-verified-token-missing": refused(
        provisioner(), DenyCode.PROVISIONER_TOKEN_MISSING, WITHOUT_MTLS
    ),
    "rule1-neither-password-alone": refused(provisioner(chains=()), DenyCode.PROVISIONER_NOT_VERIFIED, NEITHER),
    "rule1-neither-token": with_token_admitted(with_token(chains=()), NEITHER, "organization", verified=False),
    "rule1-neither-claim": refused(
        with_token(chains=(), claims={"permissions": {}}), DenyCode.PROVISIONER_CLAIM, NEITHER
    ),
    "rule1-neither-mtls": admitted(provisioner(), NEITHER),
}
RENAMED: Table = {
    "rule1-account-as-configured": admitted(
        provisioner(), replace(X509, accounts=replace(X509.accounts, provisioning="PROV")), account="PROV"
    ),
}

TABLES = (PASSWORDS, PASSWORD_ROWS, TLS, IDENTITIES, X509_TOKENS, ISSUER_TOKENS, STANDS_IN, RENAMED)


@rows(*TABLES)
def test_rule_1(row: Row) -> None:
    row.check()
