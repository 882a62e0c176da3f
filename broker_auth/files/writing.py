"""Atomic writing of files with secrets, readable only by their owner."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from broker_auth.errors import InputError


def write_private(path: Path, data: bytes, *, force: bool = True, owner: os.stat_result | None = None) -> None:
    """Write a file that only its owner can read.

    A temporary file in the same directory is written and renamed, so that a crash leaves either the old or the new
    content, and the mode of an existing file is not inherited.

    Args:
        path: where to write; its directory must exist.
        data: the content.
        force: whether to replace an existing file.
        owner: whose owner and group the file gets, where root writes for the service; by default the writer's.

    Raises:
        InputError: the file exists and ``force`` is false, or it cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if owner is not None and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        _put(Path(temporary), path, force=force)
    except FileExistsError as error:
        raise _existing(path) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def refuse_existing(path: Path) -> None:
    """Refuse to overwrite an existing file.

    Raises:
        InputError: the path exists.
    """
    if os.path.lexists(path):
        raise _existing(path)


def _existing(path: Path) -> InputError:
    return InputError(f"{path} exists; give another name, or --force to overwrite it")


def _put(temporary: Path, path: Path, *, force: bool) -> None:
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, fails if another process was faster
    except PermissionError:  # a file system without hard links
        refuse_existing(path)
        temporary.replace(path)


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror or type(error).__name__})")
