"""How a decision under a new configuration differs from what was decided before."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from broker_auth.operate.replay.judge import Judgement
from broker_auth.operate.stored import Stored
from broker_auth.policy.decide import explained
from broker_auth.policy.decision import Admit
from broker_auth.policy.permissions import Permissions

_ANY_NAME: Final = "NAME"  # stands for the identity in subjects, so that many identities make one group


class Effect(StrEnum):
    """Effects of a change, those that matter most first."""

    DENIED = "newly denied"
    UNKNOWN = "not known"
    ADMITTED = "newly admitted"
    PLACED = "placed elsewhere"
    GRANTED = "granted other subjects"


class SubjectDifference(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects that one list of permissions gains and loses."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class PermissionDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two permission sets, list by list."""

    publish_allow: SubjectDifference
    publish_deny: SubjectDifference
    subscribe_allow: SubjectDifference
    subscribe_deny: SubjectDifference


class Former(msgspec.Struct, frozen=True, kw_only=True):
    """The decision before the change: by the record, or by the old configuration.

    Attributes:
        permissions: None if not known; records do not hold them.
    """

    admitted: bool
    rule: str = ""
    code: str = ""
    account: str | None = None
    permissions: Permissions | None = None


class ReplayDifference(msgspec.Struct, frozen=True, kw_only=True):
    """An effect on one request, and by what it is grouped.

    Attributes:
        rule: the rule that decides under the new configuration.
        code: the code there; empty if not known.
        checks: the checks that it depends on, if the effect is not known.
        former: without permissions.
        permissions: how they differ, if both are known.
    """

    effect: Effect
    rule: str
    code: str
    former: Former
    account: str | None = None
    checks: tuple[str, ...] = ()
    permissions: PermissionDifference | None = None


def recorded(stored: Stored, account: str | None) -> Former:
    """Return the decision that a record holds; a request that no record tells of counts as admitted."""
    if stored.recorded is None:
        return Former(admitted=True)
    return Former(admitted=stored.was_admitted, rule=stored.rule, code=stored.recorded[1], account=account)


def judged(old: Judgement, record: Former) -> Former:
    """Return the decision of an old configuration; where that is not certain, the record counts."""
    decision = old.decision
    if decision is None or (old.unknown and not (record.admitted and isinstance(decision, Admit))):
        return record
    if isinstance(decision, Admit):
        return Former(
            admitted=True,
            rule=decision.rule.value,
            code="admitted",
            account=decision.account,
            permissions=decision.permissions,
        )
    return Former(admitted=False, rule=decision.rule.value, code=decision.code.value)


def compare(former: Former, new: Judgement) -> ReplayDifference | None:
    """Return the effect on a request; None if nothing changes."""
    decision = new.decision
    if decision is None or new.unknown:
        rule = former.rule if decision is None else decision.rule.value
        return ReplayDifference(effect=Effect.UNKNOWN, rule=rule, code="", former=_plain(former), checks=new.unknown)
    rule = decision.rule.value
    if not isinstance(decision, Admit):
        if not former.admitted:
            return None
        return ReplayDifference(effect=Effect.DENIED, rule=rule, code=decision.code.value, former=_plain(former))
    permissions = None
    if former.permissions is not None and former.permissions != decision.permissions:
        permissions = _difference(former.permissions, decision.permissions, decision.name)
    if not former.admitted:
        effect = Effect.ADMITTED
    elif former.account is not None and former.account != decision.account:
        effect = Effect.PLACED
    elif permissions is not None:
        effect = Effect.GRANTED
    else:
        return None
    return ReplayDifference(
        effect=effect,
        rule=rule,
        code="admitted",
        former=_plain(former),
        account=decision.account,
        permissions=permissions,
    )


def reason(new: Judgement) -> str:
    """Return why a request is decided so, in one line; empty if that is not known."""
    return "" if new.decision is None or new.unknown else explained(new.decision)


def _plain(former: Former) -> Former:
    return former if former.permissions is None else msgspec.structs.replace(former, permissions=None)


def _difference(old: Permissions, new: Permissions, name: str) -> PermissionDifference:
    return PermissionDifference(
        publish_allow=_subjects(old.pub.allow, new.pub.allow, name),
        publish_deny=_subjects(old.pub.deny, new.pub.deny, name),
        subscribe_allow=_subjects(old.sub.allow, new.sub.allow, name),
        subscribe_deny=_subjects(old.sub.deny, new.sub.deny, name),
    )


def _subjects(old: tuple[str, ...], new: tuple[str, ...], name: str) -> SubjectDifference:
    before, after = set(old), set(new)
    return SubjectDifference(
        added=tuple(_general(subject, name) for subject in new if subject not in before),
        removed=tuple(_general(subject, name) for subject in old if subject not in after),
    )


def _general(subject: str, name: str) -> str:
    return subject.replace(name, _ANY_NAME) if name else subject
