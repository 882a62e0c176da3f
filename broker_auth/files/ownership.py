"""Checks of a secret file's owner: the service's user or root, and at most readable by one of its groups.

Kubernetes mounts secrets owned by root with mode 0440 and the pod's group; packages install them owned by root with
mode 0640. The owner of a secret, or of its directory, can read and replace it, so no other user may own it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GROUP_READ: Final = 0o040
_BEYOND_GROUP_READ: Final = 0o037  # group may write or execute, others may do anything
_ROOT: Final = 0

_configuration: ContextVar[Path | None] = ContextVar("configuration", default=None)


@dataclass(frozen=True, slots=True)
class Objection:
    """A reason why a file must not hold a secret, and its remedy; ``what`` follows the file's name in messages."""

    what: str
    remedy: str


@contextmanager
def configured_by(path: Path) -> Iterator[None]:
    """Trust also the user and group that own the configuration, while root reads a deployment.

    Root runs commands on deployments whose service runs as another user. The owner of the configuration, or of
    its directory, decides what is configured, so trusting that user's secrets grants nothing more.
    """
    token = _configuration.set(path)
    try:
        yield
    finally:
        _configuration.reset(token)


def objection(path: Path, status: os.stat_result) -> Objection | None:
    """Return why this file must not hold a secret; None if it may.

    Args:
        path: the file, for messages and to check its directory.
        status: of the opened file, so that the file checked is the file read.
    """
    mode = status.st_mode & 0o7777
    users, groups = _trusted()
    if mode & _BEYOND_GROUP_READ:
        return Objection(f"has mode {mode:04o}, so others than its owner have access", f"run: chmod 600 {path}")
    if (strange := _owned_by_another(path, status, users)) is not None:
        return strange
    if mode & GROUP_READ and not (status.st_gid in groups or (status.st_uid == status.st_gid == _ROOT)):
        what = f"has mode {mode:04o} and belongs to group {_group(status.st_gid)}, which is not this process's"
        return Objection(what, f"run: chmod 600 {path}, or chgrp it to a group of the service")
    return None


def directory_objection(path: Path) -> Objection | None:
    """Return why this directory must not hold secrets; None if it may, or if its status cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_uid in _trusted()[0]:
        return None
    what = f"belongs to user {user_name(status.st_uid)}, who can replace what lies in it"
    return Objection(what, f"run: chown {user_name(os.geteuid())} {path}")


def _owned_by_another(path: Path, status: os.stat_result, users: frozenset[int]) -> Objection | None:
    if status.st_uid not in users:
        what = f"belongs to user {user_name(status.st_uid)}, who knows it and can replace it"
        return Objection(
            what, f"replace it if that user should not know it, then run: chown {user_name(os.geteuid())} {path}"
        )
    if (strange := directory_objection(path.parent)) is not None:
        return Objection(f"lies in a directory that {strange.what}", strange.remedy)
    return None


def _trusted() -> tuple[frozenset[int], frozenset[int]]:
    """Return the users and the groups whose files are accepted."""
    user = os.geteuid()
    users, groups = {_ROOT, user}, {os.getegid(), *os.getgroups()}
    configuration = _configuration.get()
    if user == _ROOT and configuration is not None:
        for item in (configuration, configuration.parent):
            with suppress(OSError):
                status = item.stat()
                users.add(status.st_uid)
                groups.add(status.st_gid)
    return frozenset(users), frozenset(groups)


def user_name(number: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)
