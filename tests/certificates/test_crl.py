"""CRLs: complete, signed by a trusted CA and wholly understood, or refused."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.certificates import crl as module
from broker_auth.certificates.certificate import Certificate, parse_certificate
from broker_auth.certificates.crl import MAX_SERIAL, Crl, CrlError, SerialNumbers, parse_crls, too_many
from broker_auth.settings.crls import completed
from tests.builders import crls
from tests.builders.certificates import (
    CA,
    NOT_AFTER,
    NOT_BEFORE,
    SHA1_RSA,
    TELETEX,
    Made,
    extension,
    integer,
    key,
    make,
    name,
    root,
    rsa_algorithm,
    tlv,
)
from tests.builders.crls import crl, distribution_point, entry, pem, reason

ROOT = root()
RSA_ROOT = make(subject=name(("CN", "RSA CA")), own=key("rsa2048"), extensions=CA)
ED_ROOT = make(subject=name(("CN", "Ed CA")), own=key("ed25519"), extensions=CA)
ODD_NAME = root(name(("O", "M&M\xe9", TELETEX), ("CN", "odd")))
INTERMEDIATE = make(ROOT, subject=name(("CN", "intermediate")), own=key("ec", 5), extensions=CA)
BELOW = make(INTERMEDIATE, subject=name(("CN", "below")), own=key("ec", 6), extensions=CA)
STRANGER = root(name(("CN", "stranger")), 9)
TWIN = root(number=10)  # has the name of ROOT
SIGNS_ONLY_CERTIFICATES = root(
    name(("CN", "no lists")), extensions=(*CA, extension("551d0f", tlv(0x03, b"\x02\x04"), critical=True))
)
LEAF = make(ROOT)
ROOTS = tuple(one.parsed for one in (ROOT, RSA_ROOT, ED_ROOT, ODD_NAME, SIGNS_ONLY_CERTIFICATES))


def read(data: bytes, roots: tuple[Certificate, ...] = ROOTS) -> tuple[Crl, ...]:
    return completed(parse_crls(data, roots))


def certificate_pem(made: Made) -> bytes:
    return made.pem.encode()


READABLE: dict[str, tuple[bytes, list[list[int]]]] = {
    "empty": (crl(ROOT), [[]]),
    "some": (crl(ROOT, 1, 77, 2**159), [[1, 77, 2**159]]),
    "version 1": (crl(ROOT, 5, version=1), [[5]]),
    "without nextUpdate": (crl(ROOT, 5, next_update=None), [[5]]),
    "RSA": (crl(RSA_ROOT, 5), [[5]]),
    "Ed25519": (crl(ED_ROOT, 5), [[5]]),
    "name as other programs refuse it": (crl(ODD_NAME, 5), [[5]]),
    "PEM": (pem(crl(ROOT, 5)), [[5]]),
    "joined PEM, with text around": (b"Issuer: me\n" + pem(crl(ROOT, 5), crl(RSA_ROOT, 6)) + b"end\n", [[5], [6]]),
    "joined without line ends": (pem(crl(ROOT, 5)).rstrip() + pem(crl(RSA_ROOT, 6)).rstrip(), [[5], [6]]),
    "of an intermediate CA": (certificate_pem(INTERMEDIATE) + pem(crl(INTERMEDIATE, 5)), [[5]]),
    "of one below it, in any order": (
        pem(crl(BELOW, 5)) + certificate_pem(BELOW) + certificate_pem(INTERMEDIATE),
        [[5]],
    ),
    "beside the root's certificate": (certificate_pem(ROOT) + pem(crl(ROOT, 5)), [[5]]),
    "reasons": (crl(ROOT, entry(5, reason(crls.KEY_COMPROMISE)), entry(6, reason(crls.ON_HOLD))), [[5, 6]]),
    "removed": (crl(ROOT, entry(5, reason(crls.REMOVED)), entry(6)), [[6]]),
    "user certificates only": (crl(ROOT, 5, extensions=[distribution_point(tlv(0x81, b"\xff"))]), [[5]]),
    "unknown, not critical": (crl(ROOT, 5, extensions=[extension(crls.UNKNOWN, b"")]), [[5]]),
    "unknown in an entry, not critical": (crl(ROOT, entry(5, extension(crls.UNKNOWN, b""))), [[5]]),
    "twice": (crl(ROOT, 5, 5), [[5]]),
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "holds no CRL: it is empty"),
    "text": (b"hello\n", "holds no CRL: it holds no PEM block"),
    "a certificate": (certificate_pem(INTERMEDIATE), "holds no CRL: it holds certificates only"),
    "a certificate as DER": (ROOT.der, "cannot be read: it is not a CRL"),
    "another CA's": (crl(STRANGER, 5), "was issued by 'CN=stranger', which is not a CA in client_ca"),
    "another CA's of the same name": (crl(TWIN, 5), "is not signed by 'O=Example, CN=handmade CA'"),
    "forged": (crl(ROOT, 5, signs=key("ec", 9)), "is not signed by"),
    "signed with a key of another kind": (crl(ROOT, 5, signs=key("ed25519")), "is not signed by"),
    "signed by a member": (crl(LEAF, 5), "which is not a CA in client_ca"),
    "a member's certificate beside it": (
        certificate_pem(LEAF) + pem(crl(LEAF, 5)),
        "line 1: the certificate of 'CN=node1.example.net' is not a CA",
    ),
    "an intermediate CA's without its certificate": (crl(INTERMEDIATE, 5), "which is not a CA in client_ca"),
    "a strange CA's certificate beside it": (
        certificate_pem(STRANGER) + pem(crl(STRANGER, 5)),
        "line 1: the certificate of 'CN=stranger' is not signed by a CA in client_ca",
    ),
    "not allowed by the key usage": (crl(SIGNS_ONLY_CERTIFICATES, 5), "which may not sign CRLs"),
    "SHA-1": (crl(RSA_ROOT, 5, algorithm=rsa_algorithm(SHA1_RSA)), r"RSA with SHA-1\) is not accepted"),
    "delta": (crl(ROOT, 5, extensions=[extension(crls.DELTA, integer(1), critical=True)]), "is a delta CRL"),
    "indirect": (crl(ROOT, 5, extensions=[distribution_point(tlv(0x84, b"\xff"))]), "is an indirect CRL"),
    "indirect by an entry": (
        crl(ROOT, entry(5, extension(crls.CERTIFICATE_ISSUER, tlv(0x30, tlv(0x82, b"a")), critical=True))),
        "is an indirect CRL",
    ),
    "attribute certificates": (crl(ROOT, 5, extensions=[distribution_point(tlv(0x85, b"\xff"))]), "about attribute"),
    "critical and unknown": (
        crl(ROOT, 5, extensions=[extension(crls.UNKNOWN, b"", critical=True)]),
        "has the critical extension 1.2.3.4, which is not known",
    ),
    "critical and unknown in an entry": (
        crl(ROOT, 6, entry(5, extension(crls.UNKNOWN, b"", critical=True))),
        "has an entry with the critical extension 1.2.3.4",
    ),
    "an extension twice": (crl(ROOT, 5, extensions=[crls.CRL_NUMBER] * 2), "cannot be read"),
    "a malformed reason": (crl(ROOT, entry(5, extension(crls.REASON, b"\xff"))), "cannot be read"),
    "a huge serial number": (crl(ROOT, 1 << (8 * MAX_SERIAL)), "serial number of more than 64 bytes"),
    "bytes behind it": (crl(ROOT, 5) + b"\0", "cannot be read: bytes follow an element"),
    "cut": (crl(ROOT, 5)[:-1], "cannot be read"),
    "one good, one damaged": (pem(crl(ROOT, 5)) + pem(crl(ROOT, 6)).replace(b"END", b"BEND"), "line "),
    "damaged base64": (pem(crl(ROOT, 5)).replace(b"MI", b"!!", 1), "line 1: cannot be read: its base64 is damaged"),
    "more than a file may hold": (pem(crl(ROOT)) * 129, "more than 128 PEM blocks"),
    "blocks without an end": (b"-----BEGIN X509 CRL-----\n" * 257, "more than 128 PEM blocks"),
    "ends without a block": (b"-----END X509 CRL-----\n" * 257, "more than 128 PEM blocks"),
    "lines without number": (pem(crl(ROOT, 5)) + b":\n" * 500_001, "more than 500000 lines"),
    "old line ends without number": (pem(crl(ROOT, 5)) + b":\r" * 500_001, "more than 500000 lines"),
}


@pytest.mark.parametrize("what", READABLE)
def test_list_is_read(what: str) -> None:
    data, expected = READABLE[what]
    lists = read(data)
    for one, numbers in zip(lists, expected, strict=True):
        serials = [make(ROOT, serial=integer(number)).parsed.serial for number in numbers]
        assert len(one.serials) == len(numbers)
        assert all(serial in one.serials for serial in serials)
        assert b"\x99" not in one.serials


@pytest.mark.parametrize("what", REFUSED)
def test_list_is_refused_as_a_whole(what: str) -> None:
    data, message = REFUSED[what]
    with pytest.raises(CrlError, match=message) as refused:
        read(data)
    assert refused.value.remedy
    assert "\n" not in str(refused.value)


def test_list_names_its_issuer_as_certificates_do() -> None:
    (one,) = read(crl(ODD_NAME, 5))
    member = make(ODD_NAME, serial=integer(5)).parsed
    assert one.issuer + member.serial == member.issuer_and_serial
    assert one.name == "O=M&M\xe9, CN=odd"
    assert (one.this_update, one.next_update) == (NOT_BEFORE, NOT_AFTER)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, -1, -127, -129, 2**159, 2**160 - 1])
def test_serial_number_is_compared_as_it_is_encoded(number: int) -> None:
    serial = make(ROOT, serial=integer(number)).parsed.serial
    assert module._serial(number) == serial
    assert serial in SerialNumbers.of([serial, b"\x07", b"\x01" * 20])


def test_list_that_openssl_made_is_read(tmp_path: Path) -> None:
    """A CA of OpenSSL's ``ca`` command, as docs/issuing-certificates.md describes."""
    (tmp_path / "ca.pem").write_bytes(certificate_pem(RSA_ROOT))
    private = RSA_ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ca.key").write_bytes(private)
    member = make(RSA_ROOT, subject=name(("CN", "stolen")), serial=integer(0x1F039A))
    (tmp_path / "stolen.pem").write_bytes(certificate_pem(member))
    (tmp_path / "index.txt").touch()
    (tmp_path / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=30\ncertificate=ca.pem\n"
        "private_key=ca.key\n"
    )
    for arguments in (
        ["-revoke", "stolen.pem", "-crl_reason", "keyCompromise"],
        ["-gencrl", "-out", "crl.pem"],
    ):
        subprocess.run(
            ["openssl", "ca", "-config", "ca.conf", *arguments], cwd=tmp_path, check=True, capture_output=True
        )
    (one,) = read((tmp_path / "crl.pem").read_bytes())
    assert member.parsed.serial in one.serials
    assert len(one.serials) == 1


def test_long_list_is_read_in_steps_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    data = crl(ROOT, *crls.many(2500))
    assert len(list(_steps(data))) >= 3
    monkeypatch.setattr(module, "MAX_ENTRIES", 2499)
    with pytest.raises(CrlError, match="more than 2499 entries"):
        read(data)
    (one,) = read(crl(ROOT, *crls.many(1500)))
    assert too_many([one]) is None
    assert too_many([one, one])
    assert too_many([read(crl(ROOT))[0]] * 65)


def _steps(data: bytes) -> Iterator[None]:
    yield from parse_crls(data, ROOTS)


SAMPLE = crl(ROOT, 5, entry(6, reason(crls.ON_HOLD)), extensions=[crls.CRL_NUMBER, distribution_point()])


def _with_another_byte(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([byte]) + data[at + 1 :]


@given(
    st.binary(max_size=300)
    | st.builds(_with_another_byte, st.sampled_from([SAMPLE, pem(SAMPLE)]), st.integers(0, 9999), st.integers(0, 255))
)
def test_any_content_is_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except CrlError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(st.binary(max_size=60), st.integers(0, 9999), st.integers(0, 255), st.booleans())
def test_any_content_that_the_ca_signed_is_read_or_refused(noise: bytes, at: int, byte: int, in_entry: bool) -> None:
    """Behind a valid signature everything may stand: a CA's program may have faults."""
    if in_entry:
        data = crl(ROOT, _with_another_byte(entry(6, reason(1), extension(crls.INVALIDITY, noise)), at, byte))
    else:
        parts = [_with_another_byte(distribution_point(noise), at, byte), extension("551d23", noise)]
        data = crl(ROOT, 5, extensions=parts)
    try:
        read(data)
    except CrlError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_packed_set_is_exact_over_many_blocks() -> None:
    """Numbers whose parts look like other numbers, in more than one block."""
    numbers = {number.to_bytes(2, "big") for number in range(0x0100, 0x1000, 3)}
    packed = SerialNumbers.of(numbers)
    assert len(packed) == len(numbers)
    for number in range(0x0100, 0x1100):
        assert (number.to_bytes(2, "big") in packed) == (number.to_bytes(2, "big") in numbers)


@given(st.sets(st.binary(min_size=1, max_size=24).map(lambda b: b.lstrip(b"\0") or b"\0"), max_size=30))
def test_packed_set_has_what_was_put_in(numbers: set[bytes]) -> None:
    packed = SerialNumbers.of(numbers)
    assert len(packed) == len(numbers)
    assert all(number in packed for number in numbers)
    for number in numbers:
        other = hashlib.sha256(number).digest()
        assert (other in packed) == (other in numbers)
    assert b"\0" * 25 not in packed


def test_certificates_of_the_builders_are_those_of_the_service() -> None:
    assert parse_certificate(ROOT.der) == ROOTS[0]
