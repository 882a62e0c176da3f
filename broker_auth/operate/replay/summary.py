"""Effects of a change, grouped by rule, code and identity, in bounded memory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

import msgspec

from broker_auth.operate.replay.effect import Effect, Former, ReplayDifference

MAX_IDENTITIES: Final = 100_000  # kept by name, in all groups together; some 200 bytes each
MAX_GROUPS: Final = 1000
_ORDER: Final = {effect: place for place, effect in enumerate(Effect)}


@dataclass(slots=True)
class AffectedIdentity:
    """An identity in a group: its requests, and the time of the last one (Unix seconds; None for files)."""

    count: int = 0
    last: float | None = None


@dataclass(slots=True)
class EffectGroup:
    """A group of requests that a change affects in the same way.

    Attributes:
        reason: why, in the words of the first of them.
        count: requests.
        last: time of the last request (Unix seconds); None for files.
        identities: those that are kept by name.
        cut: requests of identities beyond :data:`MAX_IDENTITIES`.
    """

    difference: ReplayDifference
    reason: str
    count: int = 0
    last: float | None = None
    identities: dict[str, AffectedIdentity] = field(default_factory=dict)
    cut: int = 0


class Summary:
    """The result of a replay: groups of effects, and counts of requests that were and were not decided.

    Attributes:
        decided: requests that were decided again.
        unchanged: those on which the change has no effect.
        first: time of the first request (Unix seconds).
        last: time of the last one.
        skipped: requests by check that could not be repeated.
        undecidable: records and files that hold nothing that can be decided again.
        without_request: records that hold no request.
    """

    def __init__(self) -> None:
        self.decided = 0
        self.unchanged = 0
        self.undecidable = 0
        self.without_request = 0
        self.first: float | None = None
        self.last: float | None = None
        self.skipped: dict[str, int] = {}
        self._groups: dict[ReplayDifference, EffectGroup] = {}
        self._kept = 0
        self._judged: set[str] = set()
        self._unjudged: dict[str, None] = {}
        self._names_cut = False

    def count(self, time: float | None, skipped: Collection[str]) -> None:
        """Count a request that was decided again, and the checks that were skipped."""
        self.decided += 1
        if time is not None:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)
        for check in skipped:
            self.skipped[check] = self.skipped.get(check, 0) + 1

    def add(self, difference: ReplayDifference, name: str, time: float | None, reason: str) -> None:
        """Count an effect on a request of the identity ``name``."""
        group = self._group(difference, reason)
        group.count += 1
        identity = group.identities.get(name)
        if identity is None:
            if self._kept >= MAX_IDENTITIES:
                group.cut += 1
                identity = AffectedIdentity()  # counted and dropped
            else:
                self._kept += 1
                identity = group.identities[name] = AffectedIdentity()
        identity.count += 1
        if time is not None:
            identity.last = time if identity.last is None else max(identity.last, time)
            group.last = time if group.last is None else max(group.last, time)

    def saw(self, name: str, *, judged: bool) -> None:
        """Note that an identity was admitted, with a request that could be decided again or without."""
        if judged:
            self._unjudged.pop(name, None)
            if len(self._judged) < MAX_IDENTITIES:
                self._judged.add(name)
        elif name not in self._judged:
            if len(self._unjudged) < MAX_IDENTITIES:
                self._unjudged[name] = None
            else:
                self._names_cut = True

    @property
    def unseen(self) -> tuple[str, ...]:
        """Identities that were admitted, and of which no request could be decided again."""
        return tuple(self._unjudged)

    @property
    def complete(self) -> bool:
        """Whether every identity is kept by name."""
        return not self._names_cut and not any(group.cut for group in self._groups.values())

    def groups(self) -> list[EffectGroup]:
        """Return the groups, those that matter first."""
        return sorted(
            self._groups.values(),
            key=lambda group: (
                _ORDER[group.difference.effect],
                not group.difference.former.admitted,
                -len(group.identities),
                -group.count,
                group.difference.rule,
                group.difference.code,
            ),
        )

    def denied(self, allowed: Collection[str] = ()) -> list[str]:
        """Return the identities that were let in and would be denied with a code that is not in ``allowed``."""
        affected = [
            group.identities
            for group in self._groups.values()
            if group.difference.effect is Effect.DENIED and group.difference.code not in allowed
        ]
        return sorted({name for identities in affected for name in identities})

    def unknown(self) -> list[str]:
        """Return the identities that were let in, of which nobody can say whether they would be denied."""
        affected = [
            group.identities
            for group in self._groups.values()
            if group.difference.effect is Effect.UNKNOWN and group.difference.former.admitted
        ]
        return sorted({name for identities in affected for name in identities} | self._unjudged.keys())

    def _group(self, difference: ReplayDifference, reason: str) -> EffectGroup:
        group = self._groups.get(difference)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:  # fold: rules and codes are few, permissions and strange records not
                difference = msgspec.structs.replace(
                    difference, former=Former(admitted=difference.former.admitted), permissions=None, checks=()
                )
                return self._groups.setdefault(difference, EffectGroup(difference, reason))
            group = self._groups[difference] = EffectGroup(difference, reason)
        return group
