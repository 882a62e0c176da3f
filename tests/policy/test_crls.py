"""Certificates in a CRL of their CA are not admitted; expired CRLs stay in force, or deny (docs/policy.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker_auth.certificates.crl import Crl, parse_crls
from broker_auth.deploy.pki import CertificateAuthority, Pair
from broker_auth.policy.crls import CrlSet
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.policy.revocation_index import NO_REVOCATIONS, Revocations
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.crls import completed
from tests.builders.clock import DAY, NOW
from tests.builders.crls import crl
from tests.builders.peers import FLEET_NAME, PROVISIONER_NAME, authority, chain, client, intermediate, parsed
from tests.builders.policies import issuer_policy
from tests.builders.requests import client as client_request
from tests.builders.requests import fleet, node, provisioner, system
from tests.policy.table import ISSUER, X509, Row, Table, deny, rows

ROOT, BELOW = authority(), intermediate()
MEMBER_BELOW = BELOW.client("below.example.net")
CHAIN_BELOW = chain(MEMBER_BELOW, BELOW, ROOT)
TRUSTED = [parsed(ROOT), parsed(BELOW)]


def number(pair: Pair | CertificateAuthority) -> int:
    return pair.certificate.serial_number


def crls_of(*contents: bytes) -> tuple[Crl, ...]:
    return tuple(one for content in contents for one in completed(parse_crls(content, TRUSTED)))


def by(policy: Policy, *contents: bytes, expired: str = "keep") -> Policy:
    """Return ``policy`` with these CRLs."""
    crls = CrlSet(crls_of(*contents), deny_expired=expired == "deny")
    return replace(policy, revocations=NO_REVOCATIONS.with_crls(crls))


MEMBER = fleet()
CLIENT_WITH_CERTIFICATE = client_request(chains=(chain(client(FLEET_NAME), ROOT),))
FLEET_CRL = crl(ROOT, number(client(FLEET_NAME)))
CA_CRL = crl(ROOT, number(BELOW))
OLD = crl(ROOT, number(client("other.example.net")), this_update=NOW - 2 * DAY, next_update=NOW)
CURRENT = crl(ROOT, this_update=NOW - DAY, next_update=NOW + DAY)

LISTED: Table = {
    "4-listed": deny(MEMBER, Rule.VERIFIED_TLS, DenyCode.REVOKED, by(X509, FLEET_CRL)),
    "4-listed-with-issuers": deny(MEMBER, Rule.VERIFIED_TLS, DenyCode.REVOKED, by(ISSUER, FLEET_CRL)),
    "1-listed": deny(
        provisioner(), Rule.PROVISIONER, DenyCode.REVOKED, by(X509, crl(ROOT, number(client(PROVISIONER_NAME))))
    ),
    "2-listed": deny(system(), Rule.SYSTEM, DenyCode.REVOKED, by(X509, crl(ROOT, number(client("admin.example.net"))))),
    "3-client-with-a-listed-certificate": deny(
        CLIENT_WITH_CERTIFICATE, Rule.CLIENT, DenyCode.REVOKED, by(ISSUER, FLEET_CRL)
    ),
    "4-ca-listed": deny(fleet(chains=(CHAIN_BELOW,)), Rule.VERIFIED_TLS, DenyCode.REVOKED, by(X509, CA_CRL)),
    "4-listed-by-the-intermediate": deny(
        fleet(chains=(CHAIN_BELOW,)), Rule.VERIFIED_TLS, DenyCode.REVOKED, by(X509, crl(BELOW, number(MEMBER_BELOW)))
    ),
    "4-ca-revoked-by-serial": deny(
        fleet(chains=(CHAIN_BELOW,)),
        Rule.VERIFIED_TLS,
        DenyCode.REVOKED,
        replace(
            X509,
            revocations=Revocations.of(
                [
                    Revocation(
                        kind=RevocationKind.SERIAL,
                        value=f"{parsed(BELOW).issuer_and_serial[:32].hex()}/{parsed(BELOW).issuer_and_serial[32:].hex()}",
                    )
                ]
            ),
        ),
    ),
    "4-listed-in-an-expired-list": deny(
        MEMBER,
        Rule.VERIFIED_TLS,
        DenyCode.REVOKED,
        by(X509, crl(ROOT, number(client(FLEET_NAME)), next_update=NOW - 1)),
    ),
    "4-listed-in-one-of-two": deny(MEMBER, Rule.VERIFIED_TLS, DenyCode.REVOKED, by(X509, CURRENT, FLEET_CRL)),
    "4-listed-from-the-future": deny(
        MEMBER,
        Rule.VERIFIED_TLS,
        DenyCode.REVOKED,
        by(X509, crl(ROOT, number(client(FLEET_NAME)), this_update=NOW + 1)),
    ),
    "4-expired-denies": deny(MEMBER, Rule.VERIFIED_TLS, DenyCode.CRL_EXPIRED, by(X509, OLD, expired="deny")),
    "4-expired-list-of-the-root-denies-below": deny(
        fleet(chains=(CHAIN_BELOW,)), Rule.VERIFIED_TLS, DenyCode.CRL_EXPIRED, by(X509, OLD, expired="deny")
    ),
}
TABLES = [LISTED]
ADMITTED: dict[str, tuple[AuthorizationRequest, Policy]] = {
    "not in the list": (MEMBER, by(X509, crl(ROOT, 1, 2, 3))),
    "its number in another CA's list": (MEMBER, by(X509, crl(BELOW, number(client(FLEET_NAME))))),
    "a number of another certificate of the CA": (fleet(chains=(CHAIN_BELOW,)), by(X509, FLEET_CRL)),
    "expired, kept": (MEMBER, by(X509, OLD)),
    "not quite expired": (MEMBER, by(X509, crl(ROOT, next_update=NOW + 1), expired="deny")),
    "expired beside a current one": (MEMBER, by(X509, OLD, CURRENT, expired="deny")),
    "never expires": (MEMBER, by(X509, OLD, crl(ROOT, next_update=None), expired="deny")),
    "another CA's is expired": (MEMBER, by(X509, crl(BELOW, next_update=NOW - 1), expired="deny")),
    "no certificate": (node(), by(X509, OLD, expired="deny")),
    "a token alone": (client_request(), by(issuer_policy(), OLD, FLEET_CRL, expired="deny")),
}


@rows(LISTED)
def test_listed_is_denied(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("name", LISTED)
def test_the_same_request_is_admitted_without_the_lists(name: str) -> None:
    row = LISTED[name]
    decision = decide(row.request, replace(row.policy, revocations=NO_REVOCATIONS), row.now)
    assert isinstance(decision, Admit), decision


@pytest.mark.parametrize("what", ADMITTED)
def test_nobody_else_is_affected(what: str) -> None:
    asked, policy = ADMITTED[what]
    assert decide(asked, policy, NOW) == decide(asked, replace(policy, revocations=NO_REVOCATIONS), NOW)
    assert isinstance(decide(asked, policy, NOW), Admit)


def test_denial_names_list_ca_and_serial_number_and_nothing_to_the_client() -> None:
    def detail(asked: AuthorizationRequest, policy: Policy) -> str:
        decision = decide(asked, policy, NOW)
        assert isinstance(decision, Deny)
        assert decision.phrase in ("credentials not sufficient", "certificate not accepted")
        return decision.detail

    serial = parsed(client(FLEET_NAME)).serial.hex()
    assert (
        detail(MEMBER, by(X509, FLEET_CRL)) == f"certificate with serial number {serial} is in the CRL of 'CN=fleet CA'"
    )
    below = detail(fleet(chains=(CHAIN_BELOW,)), by(X509, CA_CRL))
    assert (
        below == f"its CA's certificate with serial number {parsed(BELOW).serial.hex()} is in the CRL of 'CN=fleet CA'"
    )
    assert detail(MEMBER, by(X509, OLD, expired="deny")).startswith("the CRL of 'CN=fleet CA' expired on ")


def test_cached_peer_is_denied_once_it_is_listed_and_admitted_once_it_is_not() -> None:
    policy = by(X509, CURRENT)
    for content, expected in ((CURRENT, Admit), (FLEET_CRL, Deny), (CURRENT, Admit)):
        then = replace(policy, revocations=policy.revocations.with_crls(CrlSet(crls_of(content))))
        assert isinstance(decide(MEMBER, then, NOW), expected)


def test_other_revocations_and_lists_are_kept_by_one_another() -> None:
    listed = by(X509, FLEET_CRL).revocations
    both = listed.changed([Revocation(kind=RevocationKind.NODE, value="a")], (), "2")
    assert (both.crls, both.count, both.version) == (listed.crls, 1, "2")
    neither = both.with_crls(CrlSet())
    assert (neither.crls.crls, neither.count, neither.version) == ((), 1, "2")
