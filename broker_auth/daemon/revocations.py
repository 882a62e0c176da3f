"""Hands revocations to running workers: the supervisor follows the files, workers follow the supervisor.

A worker is forked with the revocations of that moment and told each change after it, so a replaced worker knows them,
even if a file has become unreadable. An unreadable file is reported, and the last good state stays in force.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from broker_auth.certificates.crl import Crl
from broker_auth.daemon.crl_files import CrlFiles
from broker_auth.daemon.crl_parts import CrlPart, PartialCrls, parts
from broker_auth.daemon.prepared import Prepared
from broker_auth.errors import BrokerAuthError
from broker_auth.files.reading import UnreadableError, file_identity
from broker_auth.policy.revocation_index import Draft, Revocations
from broker_auth.policy.revocations import Revocation
from broker_auth.settings.revocations import read_revocations

POLL_SECONDS: Final = 0.25
MAX_LINE: Final = 4 * 1024 * 1024  # bytes of one message to a worker
_PART: Final = 500  # revocations in a message; a worker answers requests between two
_log = logging.getLogger(__name__)


class RevocationChange(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message to a worker, a JSON line: a part of a change, which counts once its last part is there.

    Attributes:
        version: of the revocations that the change leads to.
        add: what was revoked, or revoked on other terms.
        remove: what was restored.
        crls: parts of CRLs.
        replace_crls: whether the CRLs of this change replace the earlier ones.
        more: whether another part follows.
    """

    version: str
    add: list[Revocation] = []
    remove: list[Revocation] = []
    crls: list[CrlPart] = []
    replace_crls: bool = False
    more: bool = False


class RevocationFeed:
    """The revocations of one configuration, kept up to date from their file and from those of CRLs.

    Attributes:
        current: the last good state.
        trouble: why the file cannot be read just now; empty if it can.
        crls: the files of CRLs.
    """

    def __init__(self, prepared: Prepared) -> None:
        """Begin with what a configuration was loaded with."""
        self.current = prepared.policy.revocations
        self.trouble = ""
        self._prepared = prepared
        self._path = prepared.settings.revocations
        self._seen: tuple[int, ...] | None = None
        crls = self.current.crls.crls
        self.crls = CrlFiles(prepared.settings.client_crl, prepared.policy.peers.authorities, crls)

    def prepared(self) -> Prepared:
        """Return the configuration with the last good state, for a worker that is forked now."""
        policy = dataclasses.replace(self._prepared.policy, revocations=self.current)
        return dataclasses.replace(self._prepared, policy=policy)

    def look(self) -> list[bytes]:
        """Read what was changed; return the messages that tell workers of the change.

        A long CRL is read in steps, one in each call while :attr:`CrlFiles.busy`.
        """
        messages = self._look_at_file()
        if self.crls.look():
            self.current = self.current.with_crls(self.current.crls.replaced(self.crls.crls))
            messages += _crl_messages(self.crls.crls, self.current.version)
        return messages

    def _look_at_file(self) -> list[bytes]:
        if self._path is None or (seen := file_identity(self._path)) == self._seen:
            return []
        self._seen = seen
        try:
            read = read_revocations(self._path).index
        except BrokerAuthError as error:
            self.trouble = str(error)
            if isinstance(error, UnreadableError):
                self._seen = None  # try again although the file stays the same
            return []
        self.trouble = ""
        if read.version == self.current.version:
            return []
        earlier, self.current = self.current, read.with_crls(self.current.crls)
        _log.info("revocations: %d now", read.count)
        return list(_messages(*read.since(earlier), read.version))


class Follower:
    """A worker's revocations, as its supervisor's messages change them."""

    def __init__(self, current: Revocations) -> None:
        self._current = current
        self._draft: Draft | None = None
        self._crls = PartialCrls()
        self._decoder = msgspec.json.Decoder(RevocationChange)

    def take(self, line: bytes) -> Revocations | None:
        """Take one message; return the new state once a change is complete.

        Raises:
            ValueError: the supervisor sent something else; the worker is to be replaced.
        """
        change = self._decoder.decode(line)
        if self._draft is None:
            self._draft = Draft(self._current)
        self._draft.apply(change.add, change.remove)
        for part in change.crls:
            self._crls.add(part)
        if change.more:
            return None
        self._current, self._draft = self._draft.finish(change.version), None
        if change.replace_crls:
            self._current = self._current.with_crls(self._current.crls.replaced(self._crls.finish()))
        return self._current


def _messages(added: list[Revocation], removed: list[Revocation], version: str) -> Iterator[bytes]:
    for start in range(0, len(removed), _PART):
        yield _line(RevocationChange(version=version, remove=removed[start : start + _PART], more=True))
    for start in range(0, len(added), _PART):
        yield _line(RevocationChange(version=version, add=added[start : start + _PART], more=True))
    yield _line(RevocationChange(version=version))


def _crl_messages(crls: Iterable[Crl], version: str) -> Iterator[bytes]:
    for part in parts(crls):
        yield _line(RevocationChange(version=version, crls=[part], more=True))
    yield _line(RevocationChange(version=version, replace_crls=True))


def _line(change: RevocationChange) -> bytes:
    return msgspec.json.encode(change) + b"\n"
