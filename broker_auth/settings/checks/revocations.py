"""The file of revocations, and sessions that only a revocation can end."""

from __future__ import annotations

from pathlib import Path

from broker_auth.files.reading import BadValue
from broker_auth.settings.keys import own
from broker_auth.settings.revocations import read_revocations
from broker_auth.settings.source import Source


def revocations_file(source: Source, *, serving: bool) -> Path | None:
    """Return the file of revocations, which must be readable before a service starts: it never forgets them."""
    path = source.get(own.REVOCATIONS)
    if path is not None and serving:
        try:
            read_revocations(path)
        except BadValue as error:
            remedy = "create it: broker-auth revoked --create" if not path.exists() else error.remedy
            source.problem(own.REVOCATIONS, error.what, remedy)
    return path


def session_grace(source: Source) -> float:
    """Return for how many seconds sessions of members outlive their credential."""
    grace = source.get(own.SESSION_GRACE)
    if grace and not source.is_set(own.REVOCATIONS):
        what = f"lets sessions outlive their credential, and without {own.REVOCATIONS.name} none can be revoked"
        source.warning(own.SESSION_GRACE, what, f"set {own.REVOCATIONS.name}")
    return grace
