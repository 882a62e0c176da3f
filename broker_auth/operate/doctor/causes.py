"""Reduces findings to their causes: a finding that follows from another one is not reported.

``_BELOW`` lists what follows at the same server, ``_OF_BROKER`` what follows for the whole broker. Findings that name a
file at fault hide those that only repeat it, and a clock or a missing service is one finding for all servers.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from broker_auth.operate.doctor.codes import FindingCode as Code
from broker_auth.operate.doctor.finding import Finding, Severity
from broker_auth.settings.model import BrokerSettings, Settings
from broker_auth.wording import counted

_NO_LOGIN: Final = frozenset(
    {
        Code.CALLOUT_USER,
        Code.STATIC_MEMBER,
        Code.BREAK_GLASS_LOGIN,
        Code.SYSTEM_CLOSED,
        Code.SYSTEM_ANSWER,
        Code.LEAF_DOWN,
    }
)
_NO_TLS: Final = _NO_LOGIN | {Code.LISTENER_HANDSHAKE}
_NO_SERVICE: Final = frozenset({Code.CALLOUT_NO_ANSWER, Code.CALLOUT_ADMITS, Code.SYSTEM_CLOSED})
_BELOW: Final[Mapping[Code, frozenset[Code]]] = {
    Code.LISTENER_UNREACHABLE: _NO_TLS,
    Code.LISTENER_PLAIN: _NO_TLS,
    Code.LISTENER_ANY_CA: _NO_TLS,
    Code.LISTENER_CERTIFICATE_EXPIRED: _NO_TLS,
    Code.LISTENER_HANDSHAKE: _NO_LOGIN,
    Code.LISTENER_ASKS_NO_CERTIFICATE: frozenset({Code.CALLOUT_REFUSES, Code.SYSTEM_CLOSED}),
    Code.LISTENER_ASKS_CERTIFICATE: frozenset({Code.CALLOUT_REFUSES, Code.CALLOUT_ADMITS}),
    # A service whose clock is wrong answers nothing, and unsubscribes.
    Code.CLOCK_SKEW: _NO_SERVICE | {Code.CALLOUT_NOBODY, Code.CALLOUT_REFUSES, Code.CALLOUT_ISSUER},
    Code.CALLOUT_USER: _NO_SERVICE | {Code.CALLOUT_NOBODY, Code.SYSTEM_ANSWER},
    Code.CALLOUT_NOBODY: _NO_SERVICE,
    Code.CALLOUT_ISSUER: frozenset({Code.SYSTEM_CLOSED}),
    Code.LEAF_ACCOUNT: frozenset({Code.LEAF_DOWN}),
    Code.LEAF_CERTIFICATE_EXPIRED: frozenset({Code.LEAF_DOWN}),
    Code.ISOLATION_IMPORT: frozenset({Code.ISOLATION_EXPORT}),
}
_OF_BROKER: Final[Mapping[Code, frozenset[Code]]] = {
    Code.LISTENER_UNREACHABLE: frozenset({Code.STREAMS_UNAVAILABLE}),  # until the cluster has elected a leader
    Code.JETSTREAM_DOWN: frozenset({Code.STREAMS_UNAVAILABLE}),
    Code.CALLOUT_ACCOUNT: frozenset({Code.STREAMS_UNAVAILABLE}),  # in the wrong account there is no JetStream
    Code.ISOLATION_IMPORT: frozenset({Code.ISOLATION_CROSSING}),
}
_WITHOUT_SERVICE: Final = frozenset({Code.CALLOUT_NOBODY, Code.CALLOUT_NO_ANSWER})
_SUBSCRIBED: Final = frozenset({Code.CALLOUT_REPLICAS, Code.CALLOUT_ALONE})
_SAME_CLOCK: Final = 2.0  # seconds by which measured differences vary on a busy machine
_KEYS_DIFFER: Final = (
    "keys differ: compare xkey_seed_file with the broker's xkey, and see the service's log for requests not answered"
)


def reduced(findings: Iterable[Finding], settings: Settings) -> list[Finding]:
    """Return the findings without those that follow from another one."""
    items = list(findings)
    errors = [item for item in items if item.severity is Severity.ERROR]
    kept = [item for item in items if not _follows(item, errors)]
    kept = _without_repetitions(kept)
    kept = _links(kept, errors, settings.brokers)
    return _missing_services(_clocks(kept), items, _reachable(errors, settings))


def _follows(item: Finding, errors: Iterable[Finding]) -> bool:
    if item.severity is Severity.OK:
        return False
    for cause in errors:
        if cause.broker != item.broker or cause is item:
            continue
        at_server = cause.server == item.server and item.code in _BELOW.get(cause.code, ())
        if at_server or item.code in _OF_BROKER.get(cause.code, ()):
            return True
    return False


def _without_repetitions(items: Sequence[Finding]) -> list[Finding]:
    """Drop what only repeats that a file is at fault, and a handshake that fails for an expired certificate."""
    files = {str(item.file) for item in items if item.file is not None}
    expired = any(item.code == Code.SERVICE_CERTIFICATE for item in items)
    return [
        item
        for item in items
        if not (item.code in (Code.CONFIGURATION, Code.SERVICE_TROUBLE) and any(file in item.what for file in files))
        and not (expired and item.code == Code.LISTENER_HANDSHAKE and "expired" in item.what)
    ]


def _links(items: Sequence[Finding], errors: Sequence[Finding], brokers: Sequence[BrokerSettings]) -> list[Finding]:
    """Drop the fleet's side of a leaf link whose other side, an edge or a gate, reports why it is down."""
    outposts = {broker.name for broker in brokers if broker.role.is_outpost}
    reasons = (Code.LEAF_DOWN, Code.LISTENER_UNREACHABLE)
    broken = any(item.broker in outposts and item.code in reasons for item in errors)
    return [item for item in items if not (broken and item.code == Code.LEAF_DOWN and item.broker not in outposts)]


def _clocks(items: Sequence[Finding]) -> list[Finding]:
    """Report one clock if ours differs from those of all servers; drop what the service says about the same."""
    skews = [item for item in items if item.code == Code.CLOCK_SKEW and item.broker is not None]
    wrong = [item for item in skews if item.severity is not Severity.OK]
    if not wrong:
        return list(items)
    rest = [item for item in items if item.code != Code.CLOCK_SKEW]
    differences = [item.ahead or 0.0 for item in skews]
    if len(skews) == 1 or len(wrong) < len(skews) or max(differences) - min(differences) > _SAME_CLOCK:
        return [*wrong, *(item for item in skews if item not in wrong), *rest]
    seconds = sum(differences) / len(differences)
    side = "behind" if seconds > 0 else "ahead of"
    what = f"this machine's clock is {abs(seconds):.1f} s {side} the clocks of all servers"
    worst = Severity.ERROR if any(item.severity is Severity.ERROR for item in wrong) else Severity.WARNING
    remedy = "synchronize this machine's clock (chrony, systemd-timesyncd) before investigating anything else"
    return [Finding(severity=worst, code=Code.CLOCK_SKEW, what=what, remedy=remedy), *rest]


def _reachable(errors: Iterable[Finding], settings: Settings) -> dict[str, int]:
    """Return for each broker that asks this service the number of its servers that can be reached."""
    down = Counter(item.broker for item in errors if item.code == Code.LISTENER_UNREACHABLE)
    served = [broker for broker in settings.brokers if settings.zone(broker.zone).served]
    return {broker.name: left for broker in served if (left := len(broker.urls) - down[broker.name])}


def _missing_services(items: Sequence[Finding], every: Sequence[Finding], servers: Mapping[str, int]) -> list[Finding]:
    """Report a service that is missing at all servers of a cluster, or of all brokers, once."""
    subscribed = {item.broker for item in every if item.code in _SUBSCRIBED}
    without: dict[str, list[Finding]] = {}
    kept = []
    for item in items:
        if item.code not in _WITHOUT_SERVICE or item.severity is not Severity.ERROR or item.broker is None:
            kept.append(item)
        elif item.broker in subscribed:
            what = f"a service is subscribed, but does not answer: {item.what.rpartition(': ')[2]}"
            kept.append(dataclasses.replace(item, what=what, remedy=_KEYS_DIFFER))
        else:
            without.setdefault(item.broker, []).append(item)
    if not without:
        return kept
    whole = {name for name, unanswered in without.items() if len(unanswered) == servers.get(name)}
    kept += [item for name, unanswered in without.items() if name not in whole for item in unanswered]
    kept = [item for item in kept if item.code != Code.SERVICE_HEALTH or item.severity is Severity.OK]
    if whole == set(servers) and len(servers) > 1:
        first = min(
            (unanswered[0] for unanswered in without.values()), key=lambda item: item.code != Code.CALLOUT_NOBODY
        )
        what = f"no service answers at any broker: {', '.join(without)}"
        return [*kept, dataclasses.replace(first, what=what, broker=None, server=None)]
    for name in whole:
        first = without[name][0]
        several = len(without[name]) > 1
        what = f"no service answers at any of its {counted(servers[name], 'server')}" if several else first.what
        kept.append(dataclasses.replace(first, what=what, server=None if several else first.server))
    return kept
