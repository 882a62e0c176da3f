"""The source of values: the file, overridden by the environment. Parses each key at most once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from broker_auth.files.reading import BadValue
from broker_auth.secret import Secret
from broker_auth.settings.choria_file import Entry
from broker_auth.settings.keys import table as keytable
from broker_auth.settings.keys.broker import ZONE
from broker_auth.settings.keys.key import ENVIRONMENT, AnyKey, Key, variable
from broker_auth.settings.keys.zone import ZONE_KEYS
from broker_auth.settings.problems import Findings, Problem, shown_key

T = TypeVar("T")

ENVIRON: Final = "environment"  # used in problems instead of a file's name
# Variables of the program, not of its configuration.
NOT_KEYS: Final = frozenset(ENVIRONMENT + name for name in ("CONFIG", "DEBUG", "NATS_SERVER"))
MAX_GUESSES: Final = 50

_NO_EFFECT: Final = "is not a key of this service, and has no effect"


class Source:
    """The keys that are set, by their full names, and the problems found while reading them."""

    def __init__(self, path: Path, findings: Findings) -> None:
        self.path = path
        self.findings = findings
        self.entries: dict[str, Entry] = {}
        self.others: dict[str, Entry] = {}  # keys that this service does not know
        self._parsed: dict[str, object] = {}
        self._withheld: set[str] = set()
        self._guesses = 0

    def add_file(self, entries: list[Entry]) -> None:
        """Take the entries of a file over those of earlier ones; report duplicates, unknown keys and missing values.

        As in Choria an empty value is ignored and the last of two counts, with a warning; a key of this service
        that is empty or set twice is a problem.
        """
        for entry in entries:
            own = keytable.is_own(entry.key)
            if keytable.find(entry.key) is None:
                self.others[entry.key] = entry
                self._unknown(entry)
            elif entry.value == "" and not own:
                self.findings.warning(entry.problem("has no value, and is ignored, as Choria does", "write one"))
            else:
                if first := self.entries.get(entry.key):
                    self._twice(first, entry, own=own)
                self.entries[entry.key] = entry

    def _twice(self, first: Entry, entry: Entry, *, own: bool) -> None:
        """Report a key that is set in two places, unless both say the same in different files."""
        if first.file == entry.file:
            where = f"in lines {first.line} and {entry.line}"
        elif first.value == entry.value:
            return
        else:
            where = f"here and in {first.file}:{first.line}"
        if own:
            self.findings.problem(entry.problem(f"is set twice, {where}", "keep one of them"))
        else:
            self.findings.warning(entry.problem(f"is set twice, {where}; this one counts", "keep one of them"))

    def _unknown(self, entry: Entry) -> None:
        if keytable.is_own(entry.key):
            remedy = self._suggestion(keytable.nearest, entry.key, "see the configuration reference, or remove it")
            self.findings.problem(entry.problem("is not a known key", remedy))
        elif keytable.is_guarded(entry.key):
            remedy = self._suggestion(keytable.nearest, entry.key, "see the configuration reference")
            self.findings.warning(entry.problem(_NO_EFFECT, remedy))
        elif meant := keytable.misspelt(entry.key):
            self.findings.warning(entry.problem(_NO_EFFECT, f"did you mean {shown_key(meant)}?"))

    def _suggestion(self, nearest: Callable[[str], str | None], written: str, otherwise: str) -> str:
        """Return a suggestion; their number is limited, because comparing is slow and all keys may be unknown."""
        self._guesses += 1
        meant = nearest(written) if self._guesses <= MAX_GUESSES else None
        return f"did you mean {shown_key(meant)}?" if meant else otherwise

    def add_environment(self, environ: Mapping[str, str], brokers: tuple[str, ...], issuers: tuple[str, ...]) -> None:
        """Override the file by ``BROKER_AUTH_…`` variables; report variables that do not stand for a key."""
        known = keytable.variables(brokers, issuers, self._zone_names(brokers))
        for name, value in environ.items():
            if not name.startswith(ENVIRONMENT) or name in NOT_KEYS:
                continue
            keys = known.get(name, [])
            if len(keys) == 1:
                self._override(keys[0], name, value)
            else:
                self._bad_variable(name, keys, list(known))

    def _zone_names(self, brokers: tuple[str, ...]) -> tuple[str, ...]:
        """Return all possible names of zones: those in keys, and brokers' names, which are the default."""
        written = [match[1] for key in self.entries if (match := keytable.find(key)) and match[0] in ZONE_KEYS]
        named = [entry.value for key in brokers if (entry := self.entries.get(ZONE.of(key))) and entry.value]
        return tuple(dict.fromkeys((*written, *named, *brokers)))

    def withhold(self, *keys: Key[Secret | None]) -> None:
        """Skip these secrets, which the reader of this configuration does not need."""
        self._withheld |= {key.name for key in keys}

    def override_first(self, environ: Mapping[str, str], *keys: AnyKey) -> None:
        """Apply the variables of keys whose values are part of other variables' names."""
        for key in keys:
            name = variable(key.name)
            if name in environ:
                self._override(key.name, name, environ[name])

    def _override(self, key: str, name: str, value: str) -> None:
        self.entries[key] = Entry(key=key, value=value.strip(), file=ENVIRON, line=None, label=name)

    def _bad_variable(self, name: str, keys: list[str], known: list[str]) -> None:
        if keys:
            what, remedy = f"may mean {' or '.join(keys)}", "rename one of them, or set the key in the file"
        else:
            what = "does not stand for a key"
            remedy = self._suggestion(lambda written: keytable.nearest_variable(written, known), name, "unset it")
        self.findings.problem(Problem(file=ENVIRON, key=shown_key(name), what=what, remedy=remedy))

    def get(self, key: Key[T], name: str = "") -> T:
        """Return the value of a key, or its default; report an unusable value once."""
        written = key.of(name)
        if written not in self._parsed:
            self._parsed[written] = self._parse(key, written)
        return cast("T", self._parsed[written])

    def _parse(self, key: Key[T], written: str) -> T:
        entry = self.entries.get(written)
        if entry is None or entry.value is None or key.name in self._withheld:
            return key.default
        if not entry.value:
            self.findings.problem(entry.problem("has no value", "write one, or remove it"))
            return key.default
        try:
            return key.parse(entry.value, self.path.parent)
        except BadValue as error:
            self.findings.problem(entry.problem(error.what, error.remedy))
            return key.default

    def is_set(self, key: Key[Any], name: str = "") -> bool:
        """Return whether the key is set, even to an unusable value."""
        return key.of(name) in self.entries

    def parse_all(self) -> None:
        """Parse every key that is set, so that bad values of unused keys are reported too."""
        for written in self.entries:
            if match := keytable.find(written):
                self.get(*match)

    def attempt(self, load: Callable[[], T], key: Key[Any], name: str = "") -> T | None:
        """Return the result of ``load``; report its error as a problem at the key."""
        try:
            return load()
        except BadValue as error:
            self.problem(key, error.what, error.remedy, name)
            return None

    def problem(self, key: Key[Any], what: str, remedy: str, name: str = "") -> None:
        """Report a problem at the key: at its line if it is set, else for the file."""
        self.findings.problem(self._about(key.of(name), what, remedy))

    def warning(self, key: Key[Any], what: str, remedy: str, name: str = "") -> None:
        """Report a warning at the key."""
        self.findings.warning(self._about(key.of(name), what, remedy))

    def _about(self, written: str, what: str, remedy: str) -> Problem:
        entry = self.entries.get(written)
        if entry is not None:
            return entry.problem(what, remedy)
        return Problem(file=self.findings.file, key=written, what=what, remedy=remedy)
