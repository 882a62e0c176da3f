"""Decide a stored request again and say why, rule by rule, in the order and with the numbers of docs/policy.md.

1. :func:`broker_auth.operate.stored.read_stored` reads the stored request,
2. :func:`explain` decides it with the rules the service uses, and records the result of each rule,
3. :meth:`Explanation.document` and :meth:`Explanation.lines` show the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker_auth.operate.stored import Stored
from broker_auth.operate.stored_case import decide_stored
from broker_auth.policy.case import Case
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import Admit, Decision, Rule
from broker_auth.policy.model import Policy
from broker_auth.policy.order import rules_for
from broker_auth.policy.permissions import Permissions, SubjectPermission
from broker_auth.times import rfc3339, short_duration
from broker_auth.tokens.jws import show


class Outcome(StrEnum):
    """The result of a rule for a connection."""

    PASSED = "passed"
    NOT_ITS_OWN = "not its own"
    ADMITTED = "admitted it"
    DENIED = "denied it"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A rule of docs/policy.md#the-rules-in-order and its result."""

    number: int
    name: str
    outcome: Outcome
    why: str = ""

    def __str__(self) -> str:
        return f"rule {self.number}, {self.name}: {self.outcome}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with the result of each rule.

    Attributes:
        moment: the time that it was decided for (Unix seconds).
        not_repeated: checks that were skipped, because their input was removed from the record.
        recorded: as in :class:`Stored`.
    """

    decision: Decision
    moment: float
    steps: tuple[Step, ...]
    not_repeated: tuple[str, ...]
    recorded: tuple[str, str] | None = field(default=None)

    @property
    def admitted(self) -> bool:
        """Whether the connection is admitted, as far as the stored request shows."""
        return isinstance(self.decision, Admit)

    @property
    def code(self) -> str:
        """The code audit records carry."""
        return "admitted" if isinstance(self.decision, Admit) else self.decision.code.value

    def document(self) -> dict[str, Any]:
        """Return the JSON document of docs/interface.md#explain."""
        decision = self.decision
        admit = decision if isinstance(decision, Admit) else None
        return {
            "decision": _word(self.admitted),
            "rule": decision.rule.value,
            "reason": explained(decision),
            "account": admit.account if admit else None,
            "name": admit.name if admit else None,
            "permissions": _subjects(admit.permissions) if admit else None,
            "expires": None if admit is None or admit.expires is None else rfc3339(int(admit.expires)),
            "grace_seconds": int(admit.grace) if admit else 0,
            "code": self.code,
            "rule_number": decision.rule.number,
            "token_id": decision.token_id or None,
            "not_repeated": list(self.not_repeated),
            "at": rfc3339(int(self.moment)),
            "rules": [
                {"number": step.number, "name": step.name, "outcome": step.outcome.value, "why": step.why}
                for step in self.steps
            ],
            "recorded": dict(zip(("decision", "code"), self.recorded, strict=True)) if self.recorded else None,
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text output."""
        decision = self.decision
        yield f"{_word(self.admitted)}: {explained(decision)}"
        yield f"decided for {rfc3339(int(self.moment))}"
        yield from (f"  {step}" for step in self.steps)
        if isinstance(decision, Admit):
            yield f"account: {decision.account}"
            yield f"name: {decision.name}"
            grace = f", {short_duration(decision.grace)} after its credential" if decision.grace else ""
            yield f"expires: {'never' if decision.expires is None else rfc3339(int(decision.expires)) + grace}"
            yield from _permission_lines("publish", decision.permissions.pub)
            yield from _permission_lines("subscribe", decision.permissions.sub)
        if decision.token_id:
            yield f"token id: {show(decision.token_id)}"
        if self.not_repeated:
            yield f"skipped, because the record does not contain the input: {', '.join(self.not_repeated)}"
        if self.recorded and self.recorded != (_word(self.admitted), self.code):
            yield f"the recorded decision was different: {show(self.recorded[0])}, {show(self.recorded[1])}"


def explain(stored: Stored, policy: Policy, moment: float) -> Explanation:
    """Decide the request for ``moment`` (Unix seconds), and return the result of each rule."""
    decision, case = decide_stored(stored, policy, moment)
    return Explanation(
        decision=decision,
        moment=moment,
        steps=_steps(case, decision),
        not_repeated=tuple(case.skipped),
        recorded=stored.recorded,
    )


def _steps(case: Case, decision: Decision) -> tuple[Step, ...]:
    """Return the result of each rule for a decided case."""
    deciding = decision.rule.number
    steps = []
    for rule in rules_for(case.policy.serves):
        if rule.number < deciding:
            outcome = Outcome.PASSED if rule.number == Rule.CONNECTION.number else Outcome.NOT_ITS_OWN
            why = rule.why_passed(case)
        elif rule.number == deciding:
            outcome = Outcome.ADMITTED if isinstance(decision, Admit) else Outcome.DENIED
            why = explained(decision)
        else:
            outcome, why = Outcome.NOT_REACHED, ""
        steps.append(Step(number=rule.number, name=rule.name, outcome=outcome, why=why))
    return tuple(steps)


# --- Showing


def _word(admitted: bool) -> str:
    return "admit" if admitted else "deny"


def _subjects(permissions: Permissions) -> dict[str, dict[str, list[str]]]:
    """Return both lists always, although empty lists are omitted on the wire."""
    return {
        "pub": {"allow": list(permissions.pub.allow), "deny": list(permissions.pub.deny)},
        "sub": {"allow": list(permissions.sub.allow), "deny": list(permissions.sub.deny)},
    }


def _permission_lines(verb: str, permission: SubjectPermission) -> Iterator[str]:
    if not permission.allow and not permission.deny:
        yield f"may {verb}: everything in the account"
        return
    if permission.allow:
        yield f"may {verb}:"
        yield from (f"  {subject}" for subject in permission.allow)
    if permission.deny:
        yield f"may not {verb}:"
        yield from (f"  {subject}" for subject in permission.deny)
