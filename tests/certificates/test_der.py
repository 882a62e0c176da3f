"""The DER parser and certificates: hostile bytes cause one kind of error, quickly."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker_auth.certificates import der, extensions
from broker_auth.certificates import names as distinguished
from broker_auth.certificates.certificate import Certificate, CertificateError, certificates_from_pem, parse_certificate
from broker_auth.certificates.signatures import check_key, issued_by
from tests.builders import certificates as c
from tests.builders.certificate_kinds import kinds

VALID = [kind.leaf.der for kind in kinds().values()] + [kind.root.der for kind in kinds().values()]

ASKED = ("alternative_names", "authority", "path_length", "may_sign_certificates", "is_for_clients", "is_for_servers")


def use(certificate: Certificate) -> None:
    """Use every property of a certificate."""
    assert certificate.common_name.isprintable() or not certificate.common_name
    for text in (certificate.subject_text, certificate.issuer_text, repr(certificate)):
        assert text.isprintable()
        assert len(text) < 300
    assert certificate.begins.tzinfo
    assert certificate.expires.tzinfo
    for name in ASKED:
        with contextlib.suppress(CertificateError):
            getattr(certificate, name)
    with contextlib.suppress(CertificateError):
        check_key(certificate)
    issued_by(certificate, certificate)


@given(st.sampled_from(VALID), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4))
def test_mutated_certificate_is_read_or_refused(data: bytes, changes: list[tuple[int, int]]) -> None:
    mutated = bytearray(data)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    with contextlib.suppress(CertificateError):
        use(parse_certificate(bytes(mutated)))


@given(st.sampled_from(VALID), st.integers(0, 2000), st.binary(max_size=40))
def test_spliced_certificate_is_read_or_refused(data: bytes, at: int, spliced: bytes) -> None:
    cut = at % len(data)
    with contextlib.suppress(CertificateError):
        use(parse_certificate(data[:cut] + spliced + data[cut + len(spliced) :]))


@given(st.binary(max_size=300))
@example(b"0" * 200)
@example(b"\x30\x80" + b"\0" * 10)
def test_arbitrary_bytes_raise_the_errors_of_the_reader(data: bytes) -> None:
    with pytest.raises(CertificateError):
        parse_certificate(data)
    for read in (
        distinguished.alternative_names,
        extensions.basic_constraints,
        extensions.may_sign_certificates,
        extensions.is_for_clients,
        lambda value: der.children(value, 0, len(value), 50),
    ):
        with contextlib.suppress(der.DerError):
            read(data)
    assert distinguished.readable(data).isprintable()
    assert distinguished.common_name(data).isprintable() or not distinguished.common_name(data)


@given(st.binary(max_size=400), st.integers(0x01, 0x1E))
def test_encoded_element_is_read_back(content: bytes, tag: int) -> None:
    element = der.only(der.encode(tag, content), tag)
    assert der.encode(tag, content)[element.content : element.end] == content


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\x00\x00",  # indefinite
        b"\x30\x81\x01\x00",  # length not in its shortest form
        b"\x30\x82\x00\x80" + bytes(128),
        b"\x30\x84\x00\x00\x00\x80" + bytes(128),
        b"\x3f\x00",  # long tag
        b"\x30\x00\x00",  # bytes follow
    ],
)
def test_element_that_is_not_der_is_refused(data: bytes) -> None:
    with pytest.raises(der.DerError):
        der.only(data, der.SEQUENCE)


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xff\xff", b"\x00\x01", b"\x00\x7f"])
def test_number_that_is_negative_or_padded_is_refused(content: bytes) -> None:
    data = der.encode(der.INTEGER, content)
    with pytest.raises(der.DerError):
        der.unsigned(data, der.only(data, der.INTEGER))


TIMES = {
    "230102030405Z": 1672628645.0,
    "2301020304Z": 1672628640.0,
    "230102030405+0100": 1672625045.0,
    "230102030405-0130": 1672634045.0,
    "500101000000Z": -631152000.0,
    "491231235959Z": 2524607999.0,
}
LONG_TIMES = {
    "20230102030405Z": 1672628645.0,
    "19500101000000Z": -631152000.0,
    "00000101000000Z": -62135596800.0,
    "99991231235959Z": 253402300799.0,
    "99991231235959-2359": 253402300799.0,
}
NO_TIMES = [
    "",
    "Z",
    "230102030405",
    "231302030405Z",
    "230230030405Z",
    "230102240405Z",
    "2301020304055Z",
    "२30102030405Z",
]


@pytest.mark.parametrize(
    ("tag", "text", "moment"),
    [(0x17, *item) for item in TIMES.items()] + [(0x18, *item) for item in LONG_TIMES.items()],
)
def test_time(tag: int, text: str, moment: float) -> None:
    data = der.encode(tag, text.encode())
    assert der.time(data, der.only(data, tag)) == moment


@pytest.mark.parametrize("tag", [0x17, 0x18, 0x0C])
@pytest.mark.parametrize("text", NO_TIMES)
def test_malformed_time_is_refused(tag: int, text: str) -> None:
    data = der.encode(tag, text.encode())
    with pytest.raises(der.DerError):
        der.time(data, der.only(data, tag))


def test_certificate_over_the_size_limit_of_tls_is_refused() -> None:
    names = c.alternative_names(*(c.dns(f"{number:060}.example.net") for number in range(4000)))
    with pytest.raises(CertificateError, match="larger than 262144 bytes"):
        parse_certificate(c.make(extensions=(*c.CLIENT, names)).der)


def test_error_names_the_unreadable_certificate_of_a_file() -> None:
    good, bad = c.make(), c.make(end=b"\0")
    with pytest.raises(CertificateError, match=r"^certificate 2 cannot be read: it is malformed"):
        certificates_from_pem((good.pem + bad.pem).encode())
