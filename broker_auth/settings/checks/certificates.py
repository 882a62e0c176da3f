"""Warnings about the certificates of a file: their validity, order, usage and names."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from datetime import datetime
from ipaddress import ip_address
from typing import Final, NamedTuple

from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.files import validity
from broker_auth.certificates.pemfile import Bundle, FileCertificate

MAX_AUTHORITIES: Final = 500  # certificates checked; the Web's bundle has 150
MOST: Final = 5  # doubts of one kind about one file; a bundle holds hundreds of certificates


class Doubt(NamedTuple):
    """A possible problem, and its remedy."""

    what: str
    remedy: str


def of_authorities(bundle: Bundle, now: datetime) -> Iterator[Doubt]:
    """Yield each doubt about a file of CA certificates."""
    yield from faults(bundle)
    yield from skipped((item.line, item.as_authority) for item in bundle.entries)
    yield from newer(bundle)
    yield from lifetimes(bundle, now)
    for item in bundle.entries[:MAX_AUTHORITIES]:
        try:
            if item.certificate.authority is False:
                yield Doubt(f"{_named(item)} is not a CA's certificate", "use the CA's certificate")
        except CertificateError as error:
            yield Doubt(f"{_named(item)}: {error}", "issue it again")


def skipped(reasons: Iterable[tuple[int, str]]) -> Iterator[Doubt]:
    """Yield a doubt for each certificate that nats-server skips, with its line and the reason."""
    for _, (line, reason) in zip(range(MOST), ((line, why) for line, why in reasons if why), strict=False):
        what, remedy = parted(reason)
        yield Doubt(f"line {line}: nats-server skips the certificate: {what}", remedy)


def newer(bundle: Bundle) -> Iterator[Doubt]:
    """Yield a doubt for each certificate that nats-server refuses since 2.11 and accepted before (Go 1.23)."""
    for item in bundle.entries:
        if item.newer:
            what, remedy = parted(item.newer)
            yield Doubt(f"line {item.line}: nats-server 2.11 and newer refuses the certificate: {what}", remedy)
            return


def parted(reason: str) -> Doubt:
    """Split a reason of :mod:`broker_auth.certificates.pemfile` into the problem and its remedy."""
    what, _, remedy = reason.partition("; ")
    return Doubt(what, remedy or "issue or write it again (docs/files.md)")


def faults(bundle: Bundle) -> Iterator[Doubt]:
    """Yield a doubt for each block that no program can read."""
    for line, reason in bundle.faults[:MOST]:
        yield Doubt(f"line {line}: skipped: {reason}", "replace or remove it")


def python_faults(bundle: Bundle) -> Iterator[Doubt]:
    """Yield a doubt for each certificate that OpenSSL, and so this service's TLS, cannot read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for item in bundle.entries:
        try:
            context.load_verify_locations(cadata=item.certificate.der)
        except (ssl.SSLError, ValueError):
            yield Doubt(f"line {item.line}: this service's TLS cannot read the certificate", "issue it again")


def lifetimes(bundle: Bundle, now: datetime) -> Iterator[Doubt]:
    """Yield a doubt for each certificate that has expired, expires soon, or is not yet valid."""
    several = len(bundle.entries) > 1
    expiring = ((item, message) for item in bundle.entries if (message := validity(item.certificate, now)))
    for _, (item, message) in zip(range(MOST), expiring, strict=False):
        remedy = "wait, or correct this host's clock" if "not valid before" in message else "renew it"
        yield Doubt(f"{_named(item)}: {message}" if several else message, remedy)


def order(bundle: Bundle) -> Iterator[Doubt]:
    """Yield a doubt for the first certificate, after the leaf, that did not issue a certificate before it."""
    issuers: set[bytes] = set()
    for before, item in zip((None, *bundle.entries), bundle.entries, strict=False):
        if before is not None and item.certificate.subject not in issuers:
            what = f"{_named(item)} is not the issuer of a certificate before it"
            yield Doubt(what, "write the certificate first, then its issuer, then the issuer's issuer")
            return
        issuers.add(item.certificate.issuer)


def usage(certificate: Certificate, *, server: bool, client: bool) -> Iterator[Doubt]:
    """Yield a doubt for each required use that the certificate's extended key usage lacks."""
    try:
        for required, allowed, name, other in (
            (server, certificate.is_for_servers, "serverAuth", "clients"),
            (client, certificate.is_for_clients, "clientAuth", "servers"),
        ):
            if required and not allowed:
                what = f"its extended key usage lacks {name}, so {other} refuse it"
                yield Doubt(what, f"issue it with {name}")
    except CertificateError as error:
        yield Doubt(str(error), "issue it again")


def unnamed(certificate: Certificate, hosts: Iterable[str]) -> Iterator[Doubt]:
    """Yield a doubt for each of a server's hosts that its certificate does not name."""
    try:
        names = certificate.alternative_names
    except CertificateError as error:
        yield Doubt(str(error), "issue it again")
        return
    dns = [name.lower() for name in names.dns]
    for host in dict.fromkeys(host.lower().removesuffix(".") for host in hosts):
        address = _address(host)
        if host and not (address in names.ip if address else any(_matches(name, host) for name in dns)):
            shown = ", ".join([*names.dns, *names.ip][:4]) or "no host"
            yield Doubt(f"does not name {host} (it names {shown})", f"issue it with {host} as an alternative name")


def _matches(name: str, host: str) -> bool:
    """Return whether a certificate's DNS name, possibly with ``*`` as its first label, matches the host (RFC 6125)."""
    if name == host:
        return True
    first, _, rest = host.partition(".")
    return bool(first) and bool(rest) and name == f"*.{rest}"


def _address(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return ""


def _named(item: FileCertificate) -> str:
    return f"line {item.line} ({item.certificate.subject_text or 'no name'})"
