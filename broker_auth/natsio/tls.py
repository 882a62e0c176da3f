"""The TLS context for connections of the service and of commands to brokers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from broker_auth.certificates.files import read_certificates
from broker_auth.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """The PEM files of one side of a TLS connection; ``None`` where not configured."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def tls_context(files: TLSFiles) -> ssl.SSLContext | None:
    """Return a context with the client certificate and the trusted CAs; None if no file is configured.

    Raises:
        InputError: a file cannot be used.
    """
    if files == TLSFiles():
        return None
    context = ssl.create_default_context() if files.ca is None else _trusting(files.ca)
    if files.certificate is not None:
        try:
            context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise InputError(f"{files.certificate} and {files.key} cannot be used for TLS: {error}") from error
    return context


def _trusting(path: Path) -> ssl.SSLContext:
    """Return a client context that trusts only these certificates, each one directly, like nats-server.

    The file is not read by OpenSSL, which refuses a whole file for one block (docs/files.md). Python 3.13's
    default context is stricter than nats-server: it requires an authority key identifier and a key usage.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    loaded = 0
    for certificate in read_certificates(path):
        try:
            context.load_verify_locations(cadata=certificate.der)
            loaded += 1
        except (ssl.SSLError, ValueError):
            continue  # reported by `config check`
    if not loaded:
        raise InputError(f"{path} holds no certificate that can be used for TLS; run: broker-auth config check")
    return context


def _no_passphrase() -> str:
    """Raise an error instead of letting OpenSSL prompt on the terminal."""
    raise ValueError("the private key is encrypted")
