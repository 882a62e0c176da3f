"""Tokens and certificates in files, as the requests of those who would connect with them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from broker_auth.certificates.certificate import CertificateError
from broker_auth.certificates.pemfile import MAX_BYTES, PemError, read_bundle
from broker_auth.errors import InputError
from broker_auth.files.reading import read
from broker_auth.operate.stored import NONCE, Stored
from broker_auth.policy.request import AuthorizationRequest, ClientInfo, ClientTLS, ConnectOpts, ServerId
from broker_auth.policy.rules import SERVED_KIND
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import MAX_TOKEN_BYTES, parse

_NODE_NAME: Final = "replay.example.net"  # any name that a node may have


class FileRequest(NamedTuple):
    """The request that a file stands for, None if it holds nothing to connect with; ``name`` is the file's."""

    name: str
    stored: Stored | None


def token_requests(directory: Path, zone: str) -> Iterator[FileRequest]:
    """Yield a request for each file of a directory: over TLS without a certificate, with the file's token.

    Raises:
        InputError: the directory or a file in it cannot be read.
    """
    for path in _files(directory):
        text = read(path, MAX_BYTES).data.decode("utf-8", "replace").strip()
        try:
            parse(text[: MAX_TOKEN_BYTES + 1])
        except TokenRejected:
            yield FileRequest(str(path), None)
            continue
        yield FileRequest(str(path), _stored(zone, ClientTLS(), auth_token=text, name=_NODE_NAME))


def certificate_requests(directory: Path, zone: str) -> Iterator[FileRequest]:
    """Yield a request for each file of a directory: over verified TLS, with the file's certificate and its chain.

    Certificates of CAs stand for nobody.

    Raises:
        InputError: the directory or a file in it cannot be read.
    """
    for path in _files(directory):
        try:
            chain = read_bundle(read(path, MAX_BYTES).data).certificates
            usable = not chain[0].authority
        except (PemError, CertificateError):
            usable = False
        if not usable:
            yield FileRequest(str(path), None)
            continue
        pems = tuple(ssl.DER_cert_to_PEM_cert(certificate.der) for certificate in chain)
        yield FileRequest(str(path), _stored(zone, ClientTLS(verified_chains=(pems,)), name=""))


def _files(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{directory} cannot be read: {error.strerror}; give a directory") from error


def _stored(zone: str, tls: ClientTLS, *, name: str, auth_token: str = "") -> Stored:
    request = AuthorizationRequest(
        server_id=ServerId(id=""),
        user_nkey="",
        client_info=ClientInfo(name=name, kind=SERVED_KIND, type="nats"),
        connect_opts=ConnectOpts(auth_token=auth_token, name=name),
        client_tls=tls,
    )
    return Stored(request=request, redacted=frozenset({NONCE}), zone=zone)
