"""docs/certificates.md beside the code: which certificates count, which do not, and what is said of them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from broker_auth.certificates import certificate
from broker_auth.certificates import paths as chains
from broker_auth.certificates import signatures as issued
from broker_auth.certificates.peer import PeerIdentity, RefusedPeer
from broker_auth.certificates.verifier import PeerVerifier
from tests.builders import certificates as c
from tests.builders.certificate_kinds import Kind, kinds
from tests.builders.certificates import CA, CLIENT, Made, make, name, root
from tests.builders.clock import DAY, NOW
from tests.policy.markdown import tables

ROWS = tables("certificates.md")["Accepted and refused"][0][1:]
ROOT = root()
MIDDLE = make(ROOT, subject=name(("CN", "issuing")), own=c.key("ec", 2), extensions=CA)


def identify(*chain: Made, roots: tuple[Made, ...] = (ROOT,), now: float = NOW) -> PeerIdentity | RefusedPeer:
    return PeerVerifier([made.parsed for made in roots]).identify((tuple(made.pem for made in chain),), now)


def verdict(kind: Kind) -> PeerIdentity | RefusedPeer:
    return PeerVerifier([made.parsed for made in kind.configured]).identify((kind.chain,), NOW)


# --- The page


def test_every_kind_is_documented_once() -> None:
    assert [row[0] for row in ROWS] == list(kinds())


@pytest.mark.parametrize(("label", "said"), [(row[0], row[2]) for row in ROWS])
def test_documented_verdict(label: str, said: str) -> None:
    peer = verdict(kinds()[label])
    assert {"accepts": PeerIdentity, "refuses": RefusedPeer}[said] is type(peer), peer
    if isinstance(peer, RefusedPeer):
        assert peer.fingerprint == certificate.pem_fingerprint(kinds()[label].leaf.pem)
        assert len(peer.description) <= 256


def test_documented_bounds() -> None:
    documented = [int(value) for _, value in tables("certificates.md")["Bounds"][0][1:]]
    assert documented == [
        certificate.MAX_DER,
        chains.MAX_CHAINS,
        chains.MAX_CERTIFICATES,
        chains.MAX_CHAIN_LENGTH,
        chains.MAX_PATHS,
        chains.MAX_SIGNATURES,
        issued.MIN_RSA_BITS,
        issued.MAX_RSA_BITS,
        issued.MAX_ROOT_RSA_BITS,
        issued.MAX_RSA_EXPONENT,
    ]


REASONS = {
    "expired, at any place in the chain": "its CA 'CN=issuing",
    "not yet valid": "it is not valid before 2037-01-11",
    "for TLS servers only": "clientAuth",
    "an issuer without the CA flag": "not a CA (basicConstraints)",
    "an intermediate CA of X.509 version 1": "version 1, which only a CA in client_ca may be",
    "an issuer that may not sign certificates (keyUsage)": "(keyUsage)",
    "more CAs below another than it allows (pathLen)": "allows 0 CAs below it, not 1",
    "an issuer of the same name with another key": "was not signed by 'O=Example, CN=CA",
    "signed with SHA-1 or MD5": "RSA with SHA-1",
    "RSA of more than 8192 bits": "16384 bits; 1024 to 8192",
    "an RSA exponent above 2147483647": "public exponent",
    "one algorithm named within, another outside": "differs from the signed one",
    "bytes behind the certificate": "bytes follow",
}


@pytest.mark.parametrize("label", [row[0] for row in ROWS if row[2] == "refuses"])
def test_refusal_says_what_is_wrong(label: str) -> None:
    peer = verdict(kinds()[label])
    assert isinstance(peer, RefusedPeer)
    assert REASONS[label] in peer.reason


# --- Attackers


STRANGER = root(number=3)  # of the root's name, with another key
LEAF = make(ROOT, subject=name(("CN", "leaf")), own=c.key("ec", 4))


def issuing(issuer: Made | None, called: bytes, **changes: Any) -> Made:
    return make(issuer, **({"subject": called, "own": c.key("ec", 6), "extensions": CA} | changes))


def trailing(made: Made) -> Made:
    parts = made.parsed
    signature = c.tlv(0x03, b"\0" + parts.signature)
    return Made(c.sequence(parts.tbs, parts.algorithm, signature, c.tlv(0x05)), made.subject, made.key)


FOREIGN = issuing(root(subject=name(("CN", "foreign"))), MIDDLE.subject)
FAKE = issuing(ROOT, name(("CN", "fake")), signs=c.key("ec", 6))
LOW = issuing(ROOT, name(("CN", "low")), extensions=(c.basic_constraints(ca=False),))
TWICE = issuing(ROOT, name(("CN", "twice")), extensions=(*CA, *CA))
FORGED: dict[str, tuple[Made, ...]] = {
    "leaf that signs another": (make(LEAF, own=c.key("ec", 5)), LEAF, ROOT),
    "leaf with the CA flag of another's signature": (make(MIDDLE, signs=c.key("ec", 5)), MIDDLE, ROOT),
    "CA of the root's name": (make(STRANGER), STRANGER),
    "CA of the root's name, the root shown behind it": (make(STRANGER), STRANGER, ROOT),
    "self-signed leaf of the root's name": (make(subject=c.CA_NAME, own=c.key("ec", 5)),),
    "self-signed leaf of the root's name, the root behind it": (make(subject=c.CA_NAME, own=c.key("ec", 5)), ROOT),
    "self-signed CA of the root's name as leaf": (STRANGER, ROOT),
    "issuer's name differs in its string type": (
        make(ROOT, issuer_name=name(("O", "Example", c.PRINTABLE), ("CN", "handmade CA", c.PRINTABLE))),
        ROOT,
    ),
    "issuer's name is another": (make(ROOT, issuer_name=name(("CN", "other"))), ROOT),
    "issuer's name is another than that of the CA that signed": (
        make(MIDDLE, issuer_name=name(("CN", "other"))),
        MIDDLE,
        ROOT,
    ),
    "leaf with a key of 16384 bits": (make(ROOT, spki=c.rsa_public((1 << 16384) - 1, 65537)), ROOT),
    "leaf with an even exponent": (make(ROOT, spki=c.rsa_public((1 << 2048) - 1, 65536)), ROOT),
    "bytes within the certificate, behind its signature": (trailing(make(ROOT)), ROOT),
    "intermediate left out": (make(MIDDLE), ROOT),
    "intermediate of a foreign root": (
        make(
            foreign := make(
                root(subject=name(("CN", "foreign"))), subject=MIDDLE.subject, own=c.key("ec", 6), extensions=CA
            )
        ),
        foreign,
        ROOT,
    ),
    "intermediate signed by nobody": (
        make(FAKE),
        FAKE,
        ROOT,
    ),
    "CA flag false": (
        make(
            low := make(
                ROOT, subject=name(("CN", "low")), own=c.key("ec", 6), extensions=(c.basic_constraints(ca=False),)
            )
        ),
        low,
        ROOT,
    ),
    "CA flag given twice": (
        make(TWICE),
        TWICE,
        ROOT,
    ),
    "RSA signature by an EC key's name": (make(ROOT, algorithm=c.rsa_algorithm()), ROOT),
    "Ed25519 signature by an EC key's name": (make(ROOT, algorithm=c.sequence(c.oid(c.ED25519))), ROOT),
    "signature algorithm nobody knows": (make(ROOT, algorithm=c.sequence(c.oid("2a03"))), ROOT),
    "signature algorithm with SHA-1": (make(ROOT, algorithm=c.sequence(c.oid(c.SHA1_EC))), ROOT),
}


@pytest.mark.parametrize("chain", FORGED.values(), ids=FORGED)
def test_forged_chain_is_refused(chain: tuple[Made, ...]) -> None:
    peer = identify(*chain)
    assert isinstance(peer, RefusedPeer)
    assert peer.reason


def test_valid_chain_of_the_same_builders_is_accepted() -> None:
    for chain in (
        (make(ROOT), ROOT),
        (make(ROOT),),
        (make(MIDDLE), MIDDLE, ROOT),
        (make(MIDDLE), MIDDLE),
        (LEAF, ROOT),
    ):
        assert isinstance(identify(*chain), PeerIdentity)


def test_root_without_the_ca_flag_counts_for_itself_alone() -> None:
    pinned = make(own=c.key("ec", 5))
    assert isinstance(identify(pinned, roots=(pinned,)), PeerIdentity)
    assert isinstance(identify(make(pinned, subject=name(("CN", "x"))), pinned, roots=(pinned,)), RefusedPeer)


def test_version_1_root_counts_only_where_it_is_configured() -> None:
    old = root(subject=name(("CN", "old")), number=7, version=1)
    assert isinstance(identify(make(old), old, roots=(old,)), PeerIdentity)
    below = make(ROOT, subject=name(("CN", "old")), own=old.key, version=1)
    assert isinstance(identify(make(below), below, ROOT), RefusedPeer)


# --- Several chains, and the session's end


def test_longest_of_several_paths_ends_the_session() -> None:
    renewed = root(not_after=c.utc_time(NOW + 9 * DAY), serial=c.integer(7))
    leaf, old = make(ROOT), root(not_after=c.utc_time(NOW + DAY), serial=c.integer(5))
    gone = root(not_after=c.utc_time(NOW - DAY), serial=c.integer(6))
    peers = PeerVerifier([made.parsed for made in (gone, old, renewed)])
    peer = peers.identify(((leaf.pem, gone.pem), (leaf.pem, old.pem), (leaf.pem, renewed.pem)), NOW)
    assert isinstance(peer, PeerIdentity)
    assert peer.not_after == NOW + 9 * DAY
    assert isinstance(peers.identify(((leaf.pem, renewed.pem),), NOW + 9 * DAY), RefusedPeer)


@pytest.mark.parametrize("count", [8, 60])
def test_ca_renewed_often_is_looked_through(count: int) -> None:
    generations = [root(serial=c.integer(number + 1)) for number in range(count)]
    leaf = make(MIDDLE)
    reported = tuple((leaf.pem, MIDDLE.pem, made.pem) for made in generations)
    peer = PeerVerifier([generations[-1].parsed]).identify(reported, NOW)
    assert isinstance(peer, PeerIdentity)


def test_chains_beyond_the_bound_are_named_in_the_reason() -> None:
    stranger = (make(STRANGER).pem, STRANGER.pem)
    peer = PeerVerifier([ROOT.parsed]).identify((stranger,) * 65, NOW)
    assert isinstance(peer, RefusedPeer)
    assert "the first 64 of 65 chains" in peer.reason


def test_intermediate_is_remembered_only_for_those_it_signed() -> None:
    peers = PeerVerifier([ROOT.parsed])
    assert isinstance(peers.identify(((make(MIDDLE).pem, MIDDLE.pem),), NOW), PeerIdentity)
    forged = make(MIDDLE, signs=c.key("ec", 9), subject=name(("CN", "forged")))
    assert isinstance(peers.identify(((forged.pem, MIDDLE.pem),), NOW), RefusedPeer)
    assert isinstance(peers.identify(((make(MIDDLE).pem, MIDDLE.pem),), c.NOT_AFTER), RefusedPeer)


def test_intermediates_are_not_remembered_where_nothing_is_verified() -> None:
    peers = PeerVerifier([])
    fake = make(subject=name(("CN", "fake")), spki=c.rsa_public((1 << 16384) - 1, 3), extensions=CA)
    below = make(issuer_name=fake.subject, subject=name(("CN", "below")), spki=c.rsa_public((1 << 16384) - 1, 3))
    leaf = make(issuer_name=below.subject, subject=name(("CN", "any")))
    assert isinstance(peers.identify(((leaf.pem, below.pem, fake.pem),), NOW), PeerIdentity)
    assert peers._roots.vouched.certificate(below.pem) is None


# --- The cache


def test_same_bytes_cut_differently_are_not_one_peer() -> None:
    leaf = make(MIDDLE)
    for poison in (
        ((leaf.pem + MIDDLE.pem,),),
        ((leaf.pem + "\0" + MIDDLE.pem,),),
        ((leaf.pem,), (MIDDLE.pem,)),
        ((leaf.pem, MIDDLE.pem[:9], MIDDLE.pem[9:]),),
        ((leaf.pem[:9], leaf.pem[9:] + MIDDLE.pem),),
    ):
        peers = PeerVerifier([ROOT.parsed])
        assert isinstance(peers.identify(poison, NOW), RefusedPeer)
        assert isinstance(peers.identify(((leaf.pem, MIDDLE.pem),), NOW), PeerIdentity)


def test_refused_chains_displace_no_peer() -> None:
    peers = PeerVerifier([ROOT.parsed])
    good = ((make(ROOT).pem, ROOT.pem),)
    peers.identify(good, NOW)
    for number in range(3000):
        peers.identify(((f"{number}",),), NOW)
    assert (len(peers._known), len(peers._refused)) == (1, 512)


def test_peers_with_very_many_names_are_not_remembered() -> None:
    many = c.alternative_names(*(c.dns(f"n{number}.example.net") for number in range(5000)))
    peers = PeerVerifier([ROOT.parsed])
    peer = peers.identify(((make(ROOT, extensions=(*CLIENT, many)).pem,),), NOW)
    assert isinstance(peer, PeerIdentity)
    assert len(peer.names) == 4096
    assert len(peers._known) == 0


# --- What a stolen broker can cost

_HUGE = (1 << 16384) - 1


def costly(modulus: int, exponent: int) -> tuple[str, ...]:
    """Nine CAs with such keys below one another, the last by the root's name: fresh ones on each call."""
    links = [
        make(ROOT, subject=c.CA_NAME, spki=c.rsa_public(modulus - 2 * number, exponent), extensions=CA)
        for number in range(9)
    ]
    return tuple(made.pem for made in (make(ROOT, signs=c.key("ec", 9)), *links))


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [(_HUGE, 65537), (_HUGE, 2**63 + 1), ((1 << 8192) - 1, 2**63 + 1), ((1 << 8192) - 1, 2**31 - 1), (1 << 100_000, 3)],
    ids=["16384 bits", "16384 bits, 64-bit exponent", "64-bit exponent", "largest that is taken", "100000 bits"],
)
def test_chain_of_costly_keys_is_refused_at_once(modulus: int, exponent: int) -> None:
    chain = costly(modulus, exponent)
    peers = PeerVerifier([ROOT.parsed])
    start = time.process_time()
    assert isinstance(peers.identify((chain,), NOW), RefusedPeer)
    assert time.process_time() - start < 0.05  # one signature by such a key took 0.1 to 0.8 s


def test_work_for_one_connection_is_bounded() -> None:
    """CAs that all call themselves the root, in every order, beside eight roots of one name."""
    roots = [root(serial=c.integer(number + 1), number=20 + number) for number in range(8)]
    links = [make(subject=c.CA_NAME, own=c.key("ec", 40 + number), extensions=CA).pem for number in range(9)]
    leaf = make(issuer_name=c.CA_NAME).pem
    asked = tuple((leaf, *links[shift:], *links[:shift]) for shift in range(9)) * 8
    peers = PeerVerifier([made.parsed for made in roots])
    start = time.process_time()
    assert isinstance(peers.identify(asked, NOW), RefusedPeer)
    assert time.process_time() - start < 0.1


# --- Names


def names(leaf: Made, *between: Made, roots: tuple[Made, ...] = (ROOT,)) -> tuple[str, ...]:
    peer = identify(leaf, *between, roots=roots)
    assert isinstance(peer, PeerIdentity), peer
    return peer.names


def named(*alternatives: bytes, cn: str = "cn") -> Made:
    extension = (c.alternative_names(*alternatives),) if alternatives else ()
    return make(ROOT, subject=name(("CN", cn)), extensions=(*CLIENT, *extension))


def test_common_name_counts_only_without_alternative_names() -> None:
    assert names(named()) == ("cn",)
    assert names(named(c.dns("d"))) == ("d",)
    assert names(named(c.tlv(0x88, b"\x2a"))) == ()  # of a kind that no rule can name
    assert names(make(ROOT, subject=name(("CN", "cn")), extensions=(*CLIENT, c.alternative_names()))) == ()


def test_common_name_does_not_count_below_constrained_names() -> None:
    constraints = c.extension("551d1e", c.sequence(c.tlv(0xA0, c.sequence(c.dns("x")))), critical=True)
    bound = make(ROOT, subject=name(("CN", "bound")), own=c.key("ec", 5), extensions=(*CA, constraints))
    leaf = make(bound, subject=name(("CN", "provisioner.example.net")))
    assert names(leaf, bound) == ()
    alone = root(subject=name(("CN", "alone")), number=6, extensions=(*CA, constraints))
    assert names(make(alone), roots=(alone,)) == ()


def test_kinds_of_names_are_told_apart() -> None:
    everything = (c.dns("d"), c.email("m@d"), c.uri("spiffe://d"), c.tlv(0x87, bytes((192, 0, 2, 7))))
    assert names(named(*everything)) == ("d", "uri:spiffe://d", "email:m@d", "ip:192.0.2.7")
    for text in ("uri:spiffe://d", "email:m@d", "ip:192.0.2.7"):
        assert names(named(c.dns(text))) == ()
        assert names(named(cn=text)) == ()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (("CN", "Müller", c.TELETEX), "Müller"),
        (("CN", "Größe", c.BMP), "Größe"),
        (("CN", "Größe", c.UNIVERSAL), "Größe"),
        (("CN", "Müller", c.UTF8), "Müller"),
        (("CN", b"M\xfcller", c.UTF8), "M�ller"),
        (("CN", "a\x1b[31m\nb", c.UTF8), "a�[31m�b"),
        (("CN", "a\u202eb\u0085", c.UTF8), "a�b�"),
        (("CN", "a\x00b", c.PRINTABLE), "a�b"),
        (("CN", b"\xd8\x00", c.BMP), "�"),
    ],
)
def test_text_is_read_by_its_type_and_stays_on_its_line(written: tuple[str, str | bytes, int], shown: str) -> None:
    peer = identify(make(ROOT, subject=name(written)))
    assert isinstance(peer, PeerIdentity)
    assert peer.display_name == shown


def test_long_names_are_cut_in_reasons() -> None:
    stranger = root(subject=name(("CN", "x" * 5000)))
    peer = identify(make(stranger, subject=name(("CN", "y" * 5000))), stranger)
    assert isinstance(peer, RefusedPeer)
    assert len(peer.description) <= 256
    assert "x" * 40 in peer.description


def test_kinds_do_not_mix() -> None:
    """The table's builders share nothing that one row could spoil for another."""
    kind = kinds()["X.509 version 1"]
    assert kind.leaf.parsed.version == 1
    assert isinstance(verdict(replace(kind, root=ROOT)), RefusedPeer)
