"""Rule 4: no token but verified TLS; rule 5: everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broker_auth.policy.decision import DenyCode, Rule
from broker_auth.policy.model import Policy
from tests.builders.peers import FLEET_NAME
from tests.builders.policies import PASSWORD, hosts
from tests.builders.requests import fleet, request
from tests.policy.grants import DEFAULT_SERVER, PUB_SUB, UNRESTRICTED
from tests.policy.table import ISSUER, PEER_ENDS, X509, Grant, Row, Table, deny, rows


def admitted(grant: Grant, policy: Policy, account: str = "choria", **changes: Any) -> Row:
    return Row(
        request=fleet(**changes),
        policy=policy,
        rule=Rule.VERIFIED_TLS,
        account=account,
        name=FLEET_NAME,
        grant=grant,
        expires=PEER_ENDS,
        verified=True,
    )


def from_host(host: str, *entries: str, listed: bool) -> Row:
    policy = replace(X509, client_hosts=hosts(*entries))
    return admitted(UNRESTRICTED if listed else DEFAULT_SERVER, policy, host=host)


HOSTS: Table = {
    "rule4-hosts-v4": from_host("192.0.2.1", "192.0.2.1", listed=True),
    "rule4-hosts-v4-other": from_host("192.0.2.2", "192.0.2.1", listed=False),
    "rule4-hosts-second-entry": from_host("192.0.2.2", "192.0.2.1", "192.0.2.2", listed=True),
    "rule4-hosts-cidr-first": from_host("198.51.100.0", "198.51.100.0/24", listed=True),
    "rule4-hosts-cidr-last": from_host("198.51.100.255", "198.51.100.0/24", listed=True),
    "rule4-hosts-cidr-after": from_host("198.51.101.0", "198.51.100.0/24", listed=False),
    "rule4-hosts-cidr-before": from_host("198.51.99.255", "198.51.100.0/24", listed=False),
    "rule4-hosts-v6": from_host("2001:db8::1", "2001:db8::1", listed=True),
    "rule4-hosts-v6-long": from_host("2001:0DB8:0:0:0:0:0:1", "2001:db8::1", listed=True),
    "rule4-hosts-v6-other": from_host("2001:db8::2", "2001:db8::1", listed=False),
    "rule4-hosts-v6-cidr": from_host("2001:db8:1::9", "2001:db8:1::/48", listed=True),
    "rule4-hosts-v6-cidr-after": from_host("2001:db8:2::", "2001:db8:1::/48", listed=False),
    "rule4-hosts-mapped": from_host("::ffff:192.0.2.1", "192.0.2.1", listed=True),
    "rule4-hosts-mapped-cidr": from_host("::ffff:c000:209", "192.0.2.0/24", listed=True),
    "rule4-hosts-mapped-other": from_host("::ffff:192.0.3.1", "192.0.2.0/24", listed=False),
    "rule4-hosts-zone": from_host("fe80::1%eth0", "fe80::/64", listed=True),
    "rule4-hosts-zone-other": from_host("fe81::1%eth0", "fe80::/64", listed=False),
    "rule4-hosts-v4-is-not-all-of-v6": from_host("192.0.2.1", "::/0", listed=False),
    "rule4-hosts-v6-is-not-all-of-v4": from_host("2001:db8::1", "0.0.0.0/0", listed=False),
    "rule4-hosts-no-address": from_host("node1.example.net", "0.0.0.0/0", "::/0", listed=False),
    "rule4-hosts-empty": from_host("", "0.0.0.0/0", "::/0", listed=False),
    "rule4-hosts-spaces": from_host(" 192.0.2.1", "192.0.2.1", listed=False),
    "rule4-hosts-with-port": from_host("192.0.2.1:4222", "192.0.2.1", listed=False),
    "rule4-hosts-octal": from_host("192.0.2.01", "192.0.2.1", listed=False),
}
NO_SERVERS = replace(X509, deny_servers=True, client_hosts=hosts("192.0.2.1"))
VERIFIED: Table = {
    "rule4-no-servers-listed-host": admitted(UNRESTRICTED, NO_SERVERS, host="192.0.2.1"),
    "rule4-no-servers-other-host": deny(fleet(host="192.0.2.2"), Rule.VERIFIED_TLS, DenyCode.CLIENT_HOST, NO_SERVERS),
    "rule4-no-servers-other-host-issuer": admitted(
        PUB_SUB, replace(ISSUER, deny_servers=True, client_hosts=hosts("192.0.2.1")), host="192.0.2.2"
    ),
    "rule4-x509": admitted(UNRESTRICTED, X509),
    "rule4-x509-any-host-without-client-hosts": admitted(UNRESTRICTED, X509, host="no address"),
    "rule4-x509-websocket": admitted(UNRESTRICTED, X509, type="websocket"),
    "rule4-x509-user-and-password-change-nothing": admitted(UNRESTRICTED, X509, user="x", password=PASSWORD),
    "rule4-x509-name-is-the-certificates": admitted(UNRESTRICTED, X509, name="other.example.net"),
    "rule4-x509-servers-denied-are-those-with-tokens": admitted(UNRESTRICTED, replace(X509, deny_servers=True)),
    "rule4-x509-provisioning-not-enabled": admitted(
        UNRESTRICTED, replace(X509, provisioning=replace(X509.provisioning, enabled=False))
    ),
    "rule4-x509-pub-sub-means-nothing": admitted(UNRESTRICTED, replace(X509, pub_sub=True)),
    "rule4-issuer-pub-sub": admitted(PUB_SUB, ISSUER),
    "rule4-issuer-client-hosts-mean-nothing": admitted(PUB_SUB, replace(ISSUER, client_hosts=hosts("10.0.0.1"))),
    "rule4-issuer-without-ca": deny(
        fleet(), Rule.VERIFIED_TLS, DenyCode.PUB_SUB_DISABLED, replace(ISSUER, pub_sub=False)
    ),
    "rule4-account-as-configured": admitted(
        UNRESTRICTED, replace(X509, accounts=replace(X509.accounts, fleet="FLEET")), account="FLEET"
    ),
}
NOTHING: Table = {
    f"rule5-{name}-{mode}": deny(asked, Rule.NONE, DenyCode.NO_CREDENTIAL, policy)
    for mode, policy in (
        ("x509", X509),
        ("issuer", ISSUER),
        ("disabled", replace(X509, provisioning=replace(X509.provisioning, enabled=False))),
    )
    for name, asked in {
        "nothing": request(),
        "websocket": request(type="websocket"),
        "user-and-password": request(user="x", password=PASSWORD),
        "password-without-user": request(password=PASSWORD),
        "name": request(name="node1.example.net"),
        "nkey": request(nkey="UABC", sig="x", nonce="y"),
        "listed-host": request(host="192.0.2.1"),
    }.items()
}
NOTHING["rule5-listed-host-is-no-credential"] = deny(
    request(host="192.0.2.1"), Rule.NONE, DenyCode.NO_CREDENTIAL, replace(X509, client_hosts=hosts("192.0.2.1"))
)

TABLES = (HOSTS, VERIFIED, NOTHING)


@rows(*TABLES)
def test_rules_4_and_5(row: Row) -> None:
    row.check()
