"""Provisioners' identities, and certificates of every kind in the files that a configuration names."""

from __future__ import annotations

import pytest

from broker_auth.certificates.certificate import CertificateError, parse_certificate
from broker_auth.daemon.expiry import expiries
from broker_auth.settings.checks.identities import identity_patterns
from broker_auth.settings.keys import broker as broker_keys
from broker_auth.settings.policy import build_policy
from tests.builders import certificates as c
from tests.builders.certificate_kinds import kinds
from tests.builders.certificates import CLIENT, Made, make, name
from tests.settings.builder import Directory, P

IDENTITIES = f"{P}provisioner.identities"


def present(directory: Directory, *alternatives: bytes, common_name: str = "provisioner.example.net") -> None:
    """Let the service present a certificate of these names."""
    extension = (c.alternative_names(*alternatives),) if alternatives else ()
    made: Made = make(subject=name(("CN", common_name)), extensions=(*CLIENT, *extension), own=c.key("ec", 70))
    directory.write("service.pem", made.pem)
    directory.write("service.key", made.key_pem)


def readable(made: Made) -> bool:
    try:
        return bool(parse_certificate(made.der))
    except CertificateError:
        return False


def warnings(directory: Directory) -> list[str]:
    report = directory.check()
    assert report.problems == ()
    return [warning.what for warning in report.warnings]


def test_warning_of_a_common_name_that_does_not_count(directory: Directory) -> None:
    present(directory, c.dns("service.example.net"), c.uri("spiffe://x"))
    said = directory.check().warnings
    assert [(problem.line, "is the common name of" in problem.what) for problem in said] == [
        (directory.line(IDENTITIES), True)
    ]
    assert "service.example.net, uri:spiffe://x" in said[0].remedy


@pytest.mark.parametrize(
    ("identities", "alternatives"),
    [
        ("provisioner.example.net", ()),
        ("provisioner.example.net", (c.dns("provisioner.example.net"),)),
        ("provisioner.example.net, a", (c.dns("a"),)),
        ("other.example.net", (c.dns("a"),)),
        ("/a.*/, provisioner.example.net", (c.dns("abc"),)),
    ],
)
def test_no_warning_where_no_common_name_is_depended_on(
    directory: Directory, identities: str, alternatives: tuple[bytes, ...]
) -> None:
    present(directory, *alternatives)
    directory.set({IDENTITIES: identities})
    assert warnings(directory) == []


def test_warning_of_an_expression_that_only_the_common_name_matches(directory: Directory) -> None:
    present(directory, c.dns("a"))
    directory.set({IDENTITIES: r"/provisioner\..*/"})
    assert len(warnings(directory)) == 1


@pytest.mark.parametrize(
    ("identity", "literal"),
    [
        ("URI:spiffe://x", "uri:spiffe://x"),
        ("Email: a@b", "email:a@b"),
        ("ip:2001:DB8:0::1", "ip:2001:db8::1"),
        ("ip:nonsense", "ip:nonsense"),
        ("Node.example.net", "Node.example.net"),
        ("urn:x", "urn:x"),
    ],
)
def test_prefix_of_a_literal_is_normalized(identity: str, literal: str) -> None:
    assert identity_patterns([identity]).literals == {literal}


def test_every_kind_of_ca_can_be_configured(directory: Directory) -> None:
    """Nothing in a certificate crashes anything, and none of these is refused."""
    roots = [root for kind in kinds().values() for root in kind.configured]
    odd = make(subject=name(("CN", "negative")), serial=c.tlv(0x02, b"\xff\x01"), extensions=c.CA)
    directory.write("odd.pem", "".join(root.pem for root in (*roots, odd)))
    directory.set({f"{P}client_ca": "odd.pem", f"{P}tls.ca": "odd.pem"})
    report = directory.check()
    assert report.problems == ()
    assert report.settings
    assert build_policy(report.settings)
    assert expiries(report.settings)


def test_look_at_edges_certificates_takes_every_kind(directory: Directory) -> None:
    """It follows chains, and must not end with an odd one."""
    made = [item for kind in kinds().values() for item in (kind.leaf, *kind.between, kind.root)]
    directory.write("odd.pem", "".join(item.pem for item in made if readable(item)))
    listen, authority = broker_keys.LEAF_LISTEN.of("default"), broker_keys.LEAF_CA.of("default")
    directory.set({f"{P}client_ca": "odd.pem", listen: "127.0.0.1:7422", authority: "odd.pem"})
    said = [problem.what for problem in (*directory.check().problems, *directory.check().warnings)]
    assert any("leaf certificates are issued by the fleet's CA" in what for what in said), said
