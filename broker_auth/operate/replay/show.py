"""A replay's summary as a JSON document (docs/interface.md#replay) and as lines for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from broker_auth.operate.replay.effect import Effect, Former, PermissionDifference, ReplayDifference, SubjectDifference
from broker_auth.operate.replay.summary import EffectGroup, Summary
from broker_auth.times import rfc3339

SHOWN: Final = 10  # identities of a group, and subjects of a list, in the lines


def document(summary: Summary, at: float | None, allowed: Collection[str]) -> dict[str, Any]:
    """Return the JSON document.

    Args:
        summary: the replay's.
        at: the time that was decided for (Unix seconds); None for the time of each record.
        allowed: codes of intended denials.
    """
    return {
        "at": _time(at),
        "decided": summary.decided,
        "unchanged": summary.unchanged,
        "without_request": summary.without_request,
        "undecidable": summary.undecidable,
        "first": _time(summary.first),
        "last": _time(summary.last),
        "denied": len(summary.denied(allowed)),
        "not_known": len(summary.unknown()),
        "unseen": list(summary.unseen),
        "complete": summary.complete,
        "skipped": summary.skipped,
        "groups": [_group(group, allowed) for group in summary.groups()],
    }


def lines(summary: Summary, at: float | None, allowed: Collection[str]) -> Iterator[str]:
    """Yield the same for people; arguments as above."""
    for group in summary.groups():
        difference = group.difference
        intended = ", intended" if _is_intended(difference, allowed) else ""
        yield f"{difference.effect.value}{intended}: {_counted(group)}: {_what(difference)}"
        if group.reason:
            yield f"  for example: {group.reason}"
        if difference.permissions is not None:
            yield from _permission_lines(difference.permissions)
        for name, identity in list(group.identities.items())[:SHOWN]:
            last = f", last {_time(identity.last)}" if identity.last is not None else ""
            yield f"  {name} ({_number(identity.count, 'request')}{last})"
        if len(group.identities) > SHOWN:
            yield f"  … and {len(group.identities) - SHOWN} more: --json lists them"
        if group.cut:
            yield f"  … and {_number(group.cut, 'request')} of identities beyond those that are kept by name"
    if summary.unseen:
        yield f"not known: {_number(len(summary.unseen), 'identity', 'identities')} admitted without a stored request:"
        yield from (f"  {name}" for name in summary.unseen[:SHOWN])
        if len(summary.unseen) > SHOWN:
            yield f"  … and {len(summary.unseen) - SHOWN} more: --json lists them"
    yield from _totals(summary, at, allowed)


def conclusion(summary: Summary, allowed: Collection[str] = ()) -> str:
    """Return in one line how many identities would be denied, and of how many that is not known."""
    more = "" if summary.complete else "at least "
    denied = _number(len(summary.denied(allowed)), "identity", "identities")
    unknown = len(summary.unknown())
    return f"{more}{denied} let in before would be denied" + (f"; of {unknown} it is not known" if unknown else "")


def _totals(summary: Summary, at: float | None, allowed: Collection[str]) -> Iterator[str]:
    when = f"for {_time(at)}" if at is not None else "for the time of each"
    seen = f", from {_time(summary.first)} to {_time(summary.last)}" if summary.first is not None else ""
    yield f"decided again {when}: {_number(summary.decided, 'request')}{seen}; {summary.unchanged} unchanged"
    if summary.without_request:
        yield f"without a stored request: {_number(summary.without_request, 'record')}"
    if summary.undecidable:
        yield f"nothing to decide in: {_number(summary.undecidable, 'record or file', 'records or files')}"
    if summary.skipped:
        counts = ", ".join(f"{check} of {count}" for check, count in sorted(summary.skipped.items()))
        yield f"checks skipped, since requests are stored without their input: {counts}"
    yield conclusion(summary, allowed)


def _group(group: EffectGroup, allowed: Collection[str]) -> dict[str, Any]:
    difference = group.difference
    return {
        "effect": difference.effect.value,
        "rule": difference.rule or None,
        "code": difference.code or None,
        "account": difference.account,
        "checks": list(difference.checks),
        "intended": _is_intended(difference, allowed),
        "reason": group.reason or None,
        "before": _former(difference.former),
        "permissions": None if difference.permissions is None else _permissions(difference.permissions),
        "count": group.count,
        "last": _time(group.last),
        "cut": group.cut,
        "identities": [
            {"name": name, "count": identity.count, "last": _time(identity.last)}
            for name, identity in group.identities.items()
        ],
    }


def _former(former: Former) -> dict[str, Any]:
    return {
        "decision": "admit" if former.admitted else "deny",
        "rule": former.rule or None,
        "code": former.code or None,
        "account": former.account,
    }


def _permissions(difference: PermissionDifference) -> dict[str, dict[str, dict[str, list[str]]]]:
    return {
        "pub": {"allow": _subjects(difference.publish_allow), "deny": _subjects(difference.publish_deny)},
        "sub": {"allow": _subjects(difference.subscribe_allow), "deny": _subjects(difference.subscribe_deny)},
    }


def _subjects(difference: SubjectDifference) -> dict[str, list[str]]:
    return {"added": list(difference.added), "removed": list(difference.removed)}


def _permission_lines(difference: PermissionDifference) -> Iterator[str]:
    named: Mapping[str, SubjectDifference] = {
        "publish, allow": difference.publish_allow,
        "publish, deny": difference.publish_deny,
        "subscribe, allow": difference.subscribe_allow,
        "subscribe, deny": difference.subscribe_deny,
    }
    for name, subjects in named.items():
        for sign, changed in (("-", subjects.removed), ("+", subjects.added)):
            if changed:
                more = f" … ({len(changed)} in all)" if len(changed) > SHOWN else ""
                yield f"  {name}: {sign} {', '.join(changed[:SHOWN])}{more}"


def _what(difference: ReplayDifference) -> str:
    former = difference.former
    before = f"{'admitted' if former.admitted else former.code or 'denied'} before"
    rule = f"rule {difference.rule}, " if difference.rule else ""
    match difference.effect:
        case Effect.DENIED:
            return f"{rule}{difference.code}"
        case Effect.UNKNOWN:
            return f"{rule}depends on {', '.join(difference.checks)}; {before}"
        case Effect.PLACED:
            return f"{rule}account {difference.account} instead of {former.account}"
        case Effect.ADMITTED:
            return f"{rule}account {difference.account}; {before}"
        case Effect.GRANTED:
            return f"{rule}account {difference.account}"


def _counted(group: EffectGroup) -> str:
    identities = _number(len(group.identities), "identity", "identities")
    last = f", last {_time(group.last)}" if group.last is not None else ""
    return f"{identities}, {_number(group.count, 'request')}{last}"


def _is_intended(difference: ReplayDifference, allowed: Collection[str]) -> bool:
    return difference.effect is Effect.DENIED and difference.code in allowed


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _time(time: float | None) -> str | None:
    return None if time is None else rfc3339(int(time))
