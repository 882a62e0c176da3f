"""The keys that the bucket of revocations needs: for a file, for confirmations, and for a fleet with streams."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from broker_auth.settings.checks.fleet_auth import fleet_is_static
from broker_auth.settings.keys import broker as keys
from broker_auth.settings.keys import own
from broker_auth.settings.model import COUNTER_SUFFIX, AuditKind, counter_socket
from broker_auth.settings.source import Source

MAX_SOCKET: Final = 100  # bytes; the shortest limit of a system is 103, and one is for the name while it is made


def check_buckets(source: Source, names: Sequence[str]) -> None:
    """Report keys without which the bucket of revocations cannot work.

    Args:
        source: the configuration.
        names: the served brokers.
    """
    if not source.get(own.REVOCATIONS_BUCKET):
        return
    for key in (own.REVOCATIONS, own.PID_FILE):
        if not source.is_set(key):
            source.problem(own.REVOCATIONS_BUCKET, f"is set, but {key.name} is not", f"set {key.name}")
    if not any(output.kind is AuditKind.FILE for output in source.get(own.AUDIT_OUTPUT)):
        what = f"is set, but {own.AUDIT_OUTPUT.name} names no file, so `revoke` cannot find sessions of tokens"
        source.warning(own.REVOCATIONS_BUCKET, what, f"add file:PATH to {own.AUDIT_OUTPUT.name}")
    _check_socket(source)
    if fleet_is_static(source):
        what = "needs servers of the fleet that ask this service, and they decide by themselves"
        source.problem(own.REVOCATIONS_BUCKET, what, f"remove it, or set {own.FLEET_AUTH.name} to callout")
        return
    main = next((name for name in names if not source.get(keys.ROLE, name).is_outpost), None)
    if main is None:
        what, remedy = "needs a broker of the fleet, and all are edges and gates", "remove it, or name a fleet broker"
        source.problem(own.REVOCATIONS_BUCKET, what, remedy)
    elif not source.is_set(keys.STORE_DIR, main):
        what = f"is set, but {keys.STORE_DIR.of(main)} is not, so the fleet has no JetStream"
        source.problem(own.REVOCATIONS_BUCKET, what, f"set {keys.STORE_DIR.of(main)}")


def _check_socket(source: Source) -> None:
    """Report a path that is too long for a socket beside it."""
    path = source.get(own.REVOCATIONS)
    if path is not None and len(os.fsencode(counter_socket(path))) > MAX_SOCKET:
        what = (
            f"is too long for the socket beside the file ({COUNTER_SUFFIX}), whose path has {MAX_SOCKET} bytes at most"
        )
        source.problem(own.REVOCATIONS, what, "name a file in a directory with a shorter path")
