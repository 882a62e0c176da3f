"""Files of signers and signing keys, in formats found in practice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker_auth.deploy.pki import CertificateAuthority, signer
from broker_auth.errors import InputError
from broker_auth.tokens.keys import load_verification_key
from broker_auth.tokens.signing import load_signing_key
from tests.builders import pemshapes
from tests.builders.pemshapes import BOTH_READ, NEITHER, PYTHON_ONLY, Shape

ONE, OTHER = signer("one"), signer("other")
AUTHORITY = CertificateAuthority.create("CA of signers")
ISSUED = AUTHORITY.client("signer")
PUBLIC = ONE.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SINGLE = (
    "plain",
    "byte-order mark before text",
    "no final newline",
    "EC parameters",
    "trailing blanks",
    "one long line",
    "an example in a comment",
    "byte-order mark",
    "X509 CERTIFICATE",
    "TRUSTED CERTIFICATE",
    "indented",
    "headers",
    "text on the BEGIN line",
)
SHAPES: dict[str, Shape] = {**BOTH_READ, **PYTHON_ONLY, **NEITHER}


@pytest.mark.parametrize("name", SINGLE)
def test_signer_certificate_is_accepted_in_any_format(name: str) -> None:
    data = SHAPES[name](ONE.certificate_pem, b"")
    assert load_verification_key(data, "signer.pem").kind == "RSA"


@pytest.mark.parametrize("before", [pemshapes.TEXT, pemshapes.BAG, b"\xef\xbb\xbf", pemshapes.EC_PARAMETERS, b"\r\n"])
def test_text_before_a_public_key_is_ignored(before: bytes) -> None:
    assert load_verification_key(before + PUBLIC, "signer.pem").kind == "RSA"


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(OTHER.certificate_pem, id="certificate"),
        pytest.param(pemshapes.TEXT + OTHER.certificate_pem, id="behind text"),
        pytest.param(signer("one").certificate_pem, id="renewed with a new key"),
        pytest.param(AUTHORITY.certificate_pem, id="a CA that did not issue it"),
        pytest.param(
            OTHER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), id="public key"
        ),
    ],
)
def test_second_signer_in_a_file_is_refused_with_name_and_line(second: bytes) -> None:
    with pytest.raises(InputError, match="second signer in line") as caught:
        load_verification_key(ONE.certificate_pem + second, "signer.pem")
    line = int(str(caught.value).split("in line ")[1].split()[0])
    assert (ONE.certificate_pem + second).splitlines()[line - 1].startswith(b"-----BEGIN")
    assert "commas" in str(caught.value)


def test_issuers_after_a_signer_are_not_signers() -> None:
    key = load_verification_key(ISSUED.certificate_pem + AUTHORITY.certificate_pem, "signer.pem")
    assert key.not_after == ISSUED.certificate.not_valid_after_utc.timestamp()
    with pytest.raises(InputError, match="second signer"):
        load_verification_key(AUTHORITY.certificate_pem + ISSUED.certificate_pem, "signer.pem")


def test_the_same_key_twice_is_one_signer() -> None:
    assert load_verification_key(ONE.certificate_pem * 2, "signer.pem").kind == "RSA"
    assert load_verification_key(ONE.certificate_pem + PUBLIC, "signer.pem").kind == "RSA"


def test_a_private_key_anywhere_in_a_signers_file_is_refused() -> None:
    with pytest.raises(InputError, match="holds a private key") as caught:
        load_verification_key(ONE.certificate_pem + pemshapes.TEXT + ONE.key_pem, "signer.pem")
    assert "MII" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pemshapes.BROKEN, "line 1"),
        (pemshapes.TEXT + pemshapes.BROKEN, "line 5"),
        (ONE.certificate_pem[:400], "no END line"),
        (pemshapes.decoded(ONE.certificate_pem), "DER"),
        (ONE.certificate_pem.decode().encode("utf-16"), "UTF-16"),
        (pemshapes.relabelled(ONE.certificate_pem, "CERTIFICATE REQUEST"), "CERTIFICATE REQUEST"),
    ],
)
def test_problem_of_a_signer_file_is_reported(data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_verification_key(data, "signer.pem")


@pytest.mark.parametrize(
    "around",
    [
        lambda key: key,
        lambda key: pemshapes.BAG + key,
        lambda key: b"\xef\xbb\xbf" + key,
        lambda key: ONE.certificate_pem + key,
        lambda key: pemshapes.EC_PARAMETERS + key,
        lambda key: pemshapes.indented(key),
        lambda key: pemshapes.relabelled(key, "RSA PRIVATE KEY"),
    ],
)
def test_signing_key_is_accepted_in_any_format(around: Callable[[bytes], bytes]) -> None:
    assert load_signing_key(around(ONE.key_pem), "signer.key").algorithm == "RS256"


def test_seed_after_a_byte_order_mark_is_accepted() -> None:
    assert load_signing_key(b"\xef\xbb\xbf" + b"0f" * 32 + b"\r\n", "seed").algorithm == "EdDSA"
