"""The CRLs of the fleet's CAs: whether each can be used, and is current."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.crl import Crl
from broker_auth.certificates.files import read_certificates
from broker_auth.files.reading import BadValue
from broker_auth.settings.crls import doubt, read_crls
from broker_auth.settings.keys import own
from broker_auth.settings.source import Source


def client_crls(source: Source, client_ca: Sequence[Path], now: datetime, *, readable: bool) -> tuple[Path, ...]:
    """Return the files of CRLs, each of which must be usable before a service starts: it never forgets them.

    Args:
        source: the configuration.
        client_ca: the files of the CAs that may have signed CRLs.
        now: the time that the dates of CRLs are compared with.
        readable: whether to read the files.
    """
    if source.is_set(own.CLIENT_CRL_EXPIRED) and not source.is_set(own.CLIENT_CRL):
        source.warning(own.CLIENT_CRL_EXPIRED, f"has no effect without {own.CLIENT_CRL.name}", "set both or neither")
    paths = source.get(own.CLIENT_CRL)
    if paths and not client_ca:
        source.problem(own.CLIENT_CRL, f"has no effect without {own.CLIENT_CA.name}", "name the CAs that sign the CRLs")
    elif paths and readable:
        crls = source.attempt(lambda: read_crls(paths, _authorities(client_ca)), own.CLIENT_CRL)
        for one in crls or ():
            _warn(source, one, now.timestamp())
    return paths


def _authorities(paths: Sequence[Path]) -> list[Certificate]:
    """Return the CAs of the files that can be read; other checks report the others."""
    authorities: list[Certificate] = []
    for path in paths:
        try:
            authorities += read_certificates(path)
        except BadValue:
            continue
    return authorities


def _warn(source: Source, one: Crl, now: float) -> None:
    if what := doubt(one, now):
        remedy = "correct this host's clock, or that of the CA" if one.this_update > now else "get the current one"
        source.warning(own.CLIENT_CRL, f"{one.file}: {what}", remedy)
    elif one.next_update is None:
        what = f"{one.file}: the CRL of {one.name!r} does not say when the next one is due, so it never expires"
        source.warning(own.CLIENT_CRL, what, "have the CA write nextUpdate")
