"""The values that operators revoke: as they are written, or read from a file with the token or certificate."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from broker_auth.audit.unsigned import parse_unsigned
from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.files import read_certificates
from broker_auth.errors import InputError
from broker_auth.files.reading import read
from broker_auth.policy.revocations import RevocationError, RevocationKind, normalized
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import MAX_TOKEN_BYTES, Jws


def value_of(kind: str, written: str, issuer: Path | None) -> tuple[RevocationKind, str]:
    """Return the kind and the normalized value of what an operator wrote.

    Args:
        kind: a kind of revocation, or ``token`` for a file with one.
        written: the value, or the path of a file with the token or certificate.
        issuer: for serial numbers: the certificate of the issuing CA.

    Raises:
        InputError: nothing can be revoked by it.
    """
    if (kind == RevocationKind.SERIAL) != (issuer is not None):
        raise InputError("give the issuing CA's certificate by --issuer for serial, and for serial only")
    if kind == "token":
        return RevocationKind.TOKEN_SHA256, _token(Path(written))[0]
    chosen = RevocationKind(kind)
    try:
        if issuer is not None:
            return chosen, normalized(chosen, f"{hashlib.sha256(_leaf(issuer).subject).hexdigest()}/{_serial(written)}")
        if chosen is RevocationKind.CERTIFICATE and not re.fullmatch(r"[0-9a-fA-F:]{64,95}", written):
            return chosen, _leaf(Path(written)).fingerprint
        return chosen, normalized(chosen, written)
    except RevocationError as error:
        raise InputError(f"{kind} {written[:64]!r}: {error}") from error


def token_ids_of(files: Iterable[str]) -> dict[str, str]:
    """Return the id of the token in each file by the token's digest, as far as tokens have one.

    Raises:
        InputError: a file does not hold a token.
    """
    tokens = [_token(Path(file)) for file in files]
    return {digest: jws.claims["jti"] for digest, jws in tokens if isinstance(jws.claims.get("jti"), str)}


def _token(path: Path) -> tuple[str, Jws]:
    """Return a token with the SHA-256 of its signed part, which stays the same however the signature is written."""
    text = read(path, 2 * MAX_TOKEN_BYTES).data.decode("ascii", "replace").strip()
    try:
        jws = parse_unsigned(text)
    except TokenRejected as rejected:
        raise InputError(f"{path} is not a token: {rejected}") from rejected
    return hashlib.sha256(text.rpartition(".")[0].encode()).hexdigest(), jws


def _leaf(path: Path) -> Certificate:
    return read_certificates(path)[0]


def _serial(written: str) -> str:
    """Return a serial number in whole bytes of hex, without leading zeros, as OpenSSL writes it or with colons."""
    text = written.lower().replace(":", "").removeprefix("0x").lstrip("0") or "0"
    return text.zfill(len(text) + len(text) % 2)
