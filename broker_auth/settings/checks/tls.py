"""This service's TLS files for connections to brokers; those of nats-server are in :mod:`.server_tls`."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from broker_auth.certificates.files import read_bundle, read_private_key
from broker_auth.certificates.pemfile import Bundle, belong_together
from broker_auth.files.reading import BadValue
from broker_auth.settings.checks import certificates as chains
from broker_auth.settings.checks.certificates import Doubt
from broker_auth.settings.keys.key import Key
from broker_auth.settings.source import Source


class Named(NamedTuple):
    """A TLS file with the configuration key that names it, for problems."""

    key: Key[Path | None]
    broker: str
    path: Path | None


def warn(source: Source, named: Named, doubts: Iterable[Doubt]) -> None:
    """Report doubts about a file as warnings at its configuration key."""
    for doubt in doubts:
        source.warning(named.key, f"{named.path}: {doubt.what}", doubt.remedy, named.broker)


def check_client_tls(source: Source, ca: Named, certificate: Named, key: Named, now: datetime) -> None:
    """Check the CAs that verify a broker and the certificate presented to it; each file must be usable."""
    if (ca_path := ca.path) is not None:
        bundle = source.attempt(lambda: read_bundle(ca_path), ca.key, ca.broker)
        if bundle is not None:
            for doubts in chains.of_authorities(bundle, now), chains.python_faults(bundle):
                warn(source, ca, doubts)
    check_both_set(source, certificate, key)
    if (path := certificate.path) is None or (key_path := key.path) is None:
        return
    chain = source.attempt(lambda: read_bundle(path), certificate.key, certificate.broker)
    private = source.attempt(lambda: read_private_key(key_path), key.key, key.broker)
    if chain is None:
        return
    for doubts in (chains.order(chain), chains.lifetimes(chain, now)):
        warn(source, certificate, doubts)
    warn(source, certificate, chains.usage(chain.certificates[0], server=False, client=True))
    if private is None:
        return
    if not belong_together(chain.certificates[0], private):
        what, remedy = mismatch(path, chain, [belong_together(item, private) for item in chain.certificates])
        source.problem(key.key, what, remedy, key.broker)
    else:
        source.attempt(lambda: _load(path, key_path, chain), certificate.key, certificate.broker)


def check_both_set(source: Source, certificate: Named, key: Named) -> None:
    """Report a certificate without a key, or a key without a certificate."""
    for here, other in ((certificate, key), (key, certificate)):
        if source.is_set(here.key, here.broker) and not source.is_set(other.key, other.broker):
            missing = other.key.of(other.broker)
            source.problem(here.key, f"is set, but {missing} is not", "set both or neither", here.broker)


def mismatch(path: Path, chain: Bundle, matches: list[bool]) -> Doubt:
    """Return the doubt about a key that does not belong to a file's first certificate."""
    for item, matching in zip(chain.entries, matches, strict=True):
        if matching:
            return Doubt(
                f"is the key of the certificate in line {item.line} of {path}, but only the first certificate counts",
                "put that certificate first in its file, followed by its issuers",
            )
    return Doubt(f"is not the key of {path}", "give the key that belongs to it")


def _load(path: Path, key_path: Path, chain: Bundle) -> None:
    """Load the pair with OpenSSL, as it will be used: OpenSSL is stricter about the format than this program."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key_path, password=_no_passphrase)
    except (OSError, ValueError) as error:
        lines = [f"line {line}: {reason}" for line, reason in chain.faults]
        lines += [f"line {item.line}: {item.as_authority}" for item in chain.entries if item.as_authority]
        reason = "; ".join(lines[: chains.MOST]) or getattr(error, "reason", None) or type(error).__name__
        raise BadValue(
            f"{path} cannot be used with {key_path} by this service's TLS ({reason})",
            "write both again with: openssl x509, openssl pkey",
        ) from None


def _no_passphrase() -> str:
    """Raise an error instead of letting OpenSSL prompt on the terminal."""
    raise ValueError("a passphrase is needed")
