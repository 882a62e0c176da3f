"""Passwords, of which two count while they are rotated, and the user of the system account."""

from __future__ import annotations

from typing import Final

from broker_auth.secret import Secret
from broker_auth.settings.keys import choria, own
from broker_auth.settings.keys.key import Key
from broker_auth.settings.source import Source

PROVISIONER: Final = "provisioner"  # the user of the first rule, docs/policy.md#1-the-provisioner


def system_passwords(source: Source) -> tuple[Secret, ...]:
    """Return the accepted passwords of the system user, the current one first; empty without a system user."""
    has_user, has_password = source.is_set(choria.SYSTEM_USER), source.is_set(choria.SYSTEM_PASSWORD)
    if has_user and not has_password:
        source.problem(choria.SYSTEM_USER, f"is set, but {choria.SYSTEM_PASSWORD.name} is not", "set both or neither")
    if has_password and not has_user:
        source.problem(choria.SYSTEM_PASSWORD, f"is set, but {choria.SYSTEM_USER.name} is not", "set both or neither")
    if source.get(choria.SYSTEM_USER) == PROVISIONER:
        source.problem(choria.SYSTEM_USER, "is the user name of provisioners", "choose another name")
    return rotating(source, choria.SYSTEM_PASSWORD, own.PREVIOUS_SYSTEM_PASSWORD)


def rotating(source: Source, current: Key[Secret | None], previous: Key[Secret | None]) -> tuple[Secret, ...]:
    """Return the accepted passwords, the current one first."""
    if source.is_set(previous) and not source.is_set(current):
        source.problem(previous, f"is set, but {current.name} is not", f"set {current.name}, or remove it")
    return tuple(value for value in (source.get(current), source.get(previous)) if value is not None)
