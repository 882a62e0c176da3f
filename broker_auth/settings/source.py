"""Where values come from: the file, then the environment over it. Parses each key at most once."""

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

ENVIRON: Final = "environment"  # stands in a problem where a file's name would
# Variables of the program itself, not of its configuration.
NOT_KEYS: Final = frozenset(ENVIRONMENT + name for name in ("CONFIG", "DEBUG", "NATS_SERVER"))
MAX_GUESSES: Final = 50

_NO_EFFECT: Final = "is not a key this service knows, and has no effect"


class Source:
    """The keys that are set, by their full names, and the problems found on the way."""

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
        """Comparing is slow, so a file of nothing but unknown keys gets a limited number of guesses."""
        self._guesses += 1
        meant = nearest(written) if self._guesses <= MAX_GUESSES else None
        return f"did you mean {shown_key(meant)}?" if meant else otherwise

    def add_environment(self, environ: Mapping[str, str], brokers: tuple[str, ...], issuers: tuple[str, ...]) -> None:
        """Lets ``BROKER_AUTH_…`` variables override the file; reports those that name no key."""
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
        """Every name that a zone could have: those written, and brokers' names, which are the default."""
        written = [found[1] for key in self.entries if (found := keytable.find(key)) and found[0] in ZONE_KEYS]
        named = [entry.value for key in brokers if (entry := self.entries.get(ZONE.of(key))) and entry.value]
        return tuple(dict.fromkeys((*written, *named, *brokers)))

    def withhold(self, *keys: Key[Secret | None]) -> None:
        """Never read these secrets: whoever reads this configuration has no use for them."""
        self._withheld |= {key.name for key in keys}

    def override_first(self, environ: Mapping[str, str], *keys: AnyKey) -> None:
        """Applies the variables of the keys whose values other variables' names are made of."""
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
            what = "stands for no key"
            remedy = self._suggestion(lambda written: keytable.nearest_variable(written, known), name, "unset it")
        self.findings.problem(Problem(file=ENVIRON, key=shown_key(name), what=what, remedy=remedy))

    def get(self, key: Key[T], name: str = "") -> T:
        """The value of a key, or its default; what is wrong with it is reported once."""
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
        """Whether the key is written anywhere, even if its value is unusable."""
        return key.of(name) in self.entries

    def parse_all(self) -> None:
        """Parses every key that is set, so that no bad value hides where nobody asks for it."""
        for written in self.entries:
            if found := keytable.find(written):
                self.get(*found)

    def attempt(self, load: Callable[[], T], key: Key[Any], name: str = "") -> T | None:
        """What ``load`` returns; if it cannot, the reason becomes a problem at the key."""
        try:
            return load()
        except BadValue as error:
            self.problem(key, error.what, error.remedy, name)
            return None

    def problem(self, key: Key[Any], what: str, remedy: str, name: str = "") -> None:
        """Reports a problem at the key: its line where it is set, else the file."""
        self.findings.problem(self._about(key.of(name), what, remedy))

    def warning(self, key: Key[Any], what: str, remedy: str, name: str = "") -> None:
        """Reports a warning at the key."""
        self.findings.warning(self._about(key.of(name), what, remedy))

    def _about(self, written: str, what: str, remedy: str) -> Problem:
        entry = self.entries.get(written)
        if entry is not None:
            return entry.problem(what, remedy)
        return Problem(file=self.findings.file, key=written, what=what, remedy=remedy)
