"""Provisioners' identities: compiled for the policy, and compared with the configured certificates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from broker_auth.certificates.certificate import Certificate, CertificateError
from broker_auth.certificates.files import read_certificates
from broker_auth.certificates.peer import identity_literal, identity_names
from broker_auth.files.reading import BadValue
from broker_auth.policy.model import IdentityPatterns
from broker_auth.settings.keys import own
from broker_auth.settings.model import BrokerSettings
from broker_auth.settings.source import Source


def identity_patterns(identities: Iterable[str]) -> IdentityPatterns:
    """Return literals and ``/regular expressions/`` compiled for comparison."""
    literals, expressions = set(), []
    for identity in identities:
        if len(identity) > 1 and identity.startswith("/") and identity.endswith("/"):
            expressions.append(re.compile(identity[1:-1]))
        else:
            literals.add(identity_literal(identity))
    return IdentityPatterns(literals=frozenset(literals), expressions=tuple(expressions))


def warn_of_common_names(source: Source, served: Iterable[BrokerSettings]) -> None:
    """Warn if an identity is only the common name of a certificate that has alternative names.

    Only the alternative names count then (docs/policy.md#1-the-provisioner). Checks the certificates in the
    configuration; the service's is the most important, because `report` and `doctor` log in with it.
    """
    identities: tuple[str, ...] = source.get(own.IDENTITIES)
    patterns = identity_patterns(identities)
    if not patterns.literals and not patterns.expressions:
        return
    paths = [path for broker in served for path in (broker.tls.certificate, broker.server.tls.certificate) if path]
    for path in dict.fromkeys(paths):
        _warn_of_common_name(source, patterns, path)


def _warn_of_common_name(source: Source, patterns: IdentityPatterns, path: Path) -> None:
    try:
        leaf: Certificate = read_certificates(path)[0]
        names = identity_names(leaf, leaf.alternative_names, constrained=False)
    except (BadValue, CertificateError):
        return  # reported where the file is checked
    common_name = leaf.common_name
    if not leaf.has_alternative_names or not common_name:
        return
    if patterns.match((common_name,)) and not patterns.match(names):
        shown = ", ".join(names[:3]) or "none that can be written here"
        what = f"{common_name!r} is the common name of {path}, which is ignored because it has alternative names"
        source.warning(
            own.IDENTITIES, what, f"write one of its alternative names ({shown}), or issue another certificate"
        )
