"""Choria's streams in the fleet's account: what they should be, what they are, and making them so.

Names, subjects and limits are those of go-choria ``broker/network/network_jetstream.go``, but for the
executor's stream, which is not made here. What an operator set on a stream beyond these fields is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from nats.aio.client import Client

from broker_auth.deploy.render import PROVISIONER_BUCKET
from broker_auth.errors import OperationError
from broker_auth.operate.access import part, refusal, request_json
from broker_auth.settings.model import StreamSettings

ELECTION_BUCKET: Final = "CHORIA_LEADER_ELECTION"
_MAX_PEERS: Final = 1000  # servers in one JetStream cluster
MAX_REPLICAS: Final = 3  # what is chosen for -1 is never more; five are for those who ask for them
ELECTION_VALUE_BYTES: Final = 1024
_AS_MANY_AS_POSSIBLE: Final = -1
_UNBOUNDED: Final = -1  # JetStream's word for no limit
_NOT_FOUND: Final = 10059  # JetStream's err_code for a stream that is not there
_NANOSECONDS: Final = 1_000_000_000
# The shortest window in which duplicates are recognized that JetStream accepts, nanoseconds. It keeps every
# message id in memory that long, 2 minutes by default, and whoever publishes chooses them (fact 28).
_DUPLICATES: Final = 100_000_000
_CHOSEN: Final = ("max_bytes", "max_msgs")  # bounds that an operator may have set otherwise
_API_SECONDS: Final = 10.0

Config = dict[str, Any]


class Action(StrEnum):
    """What :func:`apply` does about a stream."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "nothing"
    UNWANTED = "unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A stream as the settings want it; ``config`` None means that its retention is 0: not wanted."""

    name: str
    config: Config | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field of a stream's configuration, as JetStream's API writes it."""

    field: str
    now: Any
    wanted: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done about one stream.

    Attributes:
        config: what to send to JetStream; None if there is nothing to send.
        differences: for an update; for a creation every field that is set.
    """

    name: str
    action: Action
    differences: tuple[Difference, ...] = ()
    config: Config | None = None


def needs_peers(settings: StreamSettings) -> bool:
    """Whether any stream wants as many replicas as the cluster bears."""
    return _AS_MANY_AS_POSSIBLE in (
        settings.event_replicas,
        settings.machine_replicas,
        settings.advisory_replicas,
        settings.leader_election_replicas,
    )


def wanted_streams(settings: StreamSettings, peers: int) -> tuple[Wanted, ...]:
    """Return the three streams of events, and the buckets of the fleet's elections and of the provisioners' one.

    Args:
        settings: retention and replicas of each.
        peers: servers in the JetStream cluster, 1 without a cluster.
    """

    def stream(name: str, subject: str, seconds: float, replicas: int, **more: Any) -> Wanted:
        if seconds <= 0:
            return Wanted(name=name, config=None)
        count = min(peers, MAX_REPLICAS) if replicas == _AS_MANY_AS_POSSIBLE else replicas
        config = {"name": name, "subjects": [subject], "max_age": round(seconds * _NANOSECONDS)}
        config |= {"num_replicas": max(count, 1), "storage": "file", "retention": "limits", "discard": "old"}
        return Wanted(name=name, config=config | more)

    # Waiting nodes and servers publish events, with a reply subject of their choice that no permission
    # restricts: an acknowledgement would be JetStream publishing there for them, in the fleet's account,
    # the election's key included. Nobody waits for one.
    # Nor does anything else bound how much a waiting node publishes, and a full disk stops every stream.
    events: Config = {
        "no_ack": True,
        "max_bytes": settings.max_bytes,
        "max_msgs": settings.max_msgs,
        "duplicate_window": _DUPLICATES,
    }
    bucket: Config = {
        "max_msg_size": ELECTION_VALUE_BYTES,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "deny_delete": True,
        "allow_direct": True,
    }
    return (
        stream("CHORIA_EVENTS", "choria.lifecycle.>", settings.event_retention, settings.event_replicas, **events),
        stream("CHORIA_MACHINE", "choria.machine.>", settings.machine_retention, settings.machine_replicas, **events),
        stream(
            "CHORIA_STREAM_ADVISORIES",
            "$JS.EVENT.ADVISORY.>",
            settings.advisory_retention,
            settings.advisory_replicas,
            **events,
        ),
        stream(
            f"KV_{ELECTION_BUCKET}",
            f"$KV.{ELECTION_BUCKET}.>",
            settings.leader_election_ttl,
            settings.leader_election_replicas,
            description="Choria Leader Election Bucket",
            allow_rollup_hdrs=True,
            **bucket,
        ),
        # Without rollups, which erase messages, and of one literal subject: all that a provisioner, or an edge
        # in other hands, can do to it is to hold the one key.
        stream(
            f"KV_{PROVISIONER_BUCKET}",
            f"$KV.{PROVISIONER_BUCKET}.provisioner",
            settings.provisioner_election_ttl,
            settings.leader_election_replicas,
            description="Leader election of Choria's provisioners",
            duplicate_window=_DUPLICATES,
            deny_purge=True,
            **bucket,
        ),
    )


async def cluster_peers(system: Client) -> int:
    """How many servers share JetStream, asked in the system account; 1 without a cluster.

    Raises:
        OperationError: no answer.
    """
    answer = await request_json(system, "$SYS.REQ.SERVER.PING.JSZ")
    data = part(answer, "data")
    if data.get("disabled"):
        raise OperationError("JetStream is not enabled on this broker; set store_dir and render its configuration")
    size = part(data, "meta_cluster").get("cluster_size")
    return size if isinstance(size, int) and 1 <= size <= _MAX_PEERS else 1


async def plan(client: Client, wanted: Iterable[Wanted]) -> tuple[Change, ...]:
    """What has to change, found in the fleet's account without changing anything.

    Raises:
        OperationError: JetStream does not answer or refuses to tell.
    """
    return tuple([compare(item, await current_config(client, item.name)) for item in wanted])


def compare(wanted: Wanted, now: Mapping[str, Any] | None) -> Change:
    """What has to change about one stream; ``now`` is its configuration, None if it is not there."""
    target = wanted.config
    if target is None:
        return Change(name=wanted.name, action=Action.NOTHING if now is None else Action.UNWANTED)
    if now is None:
        return Change(
            name=wanted.name,
            action=Action.CREATE,
            differences=_differences(target, {"name": wanted.name}),
            config=target,
        )
    kept = {name for name in _CHOSEN if now.get(name, _UNBOUNDED) > 0}  # an operator's, or these from before
    target = {name: value for name, value in target.items() if name not in kept}
    differences = _differences(target, now)
    if not differences:
        return Change(name=wanted.name, action=Action.NOTHING)
    merged = {**now, **target}
    # The window in which duplicates are recognized may not outlast the messages; JetStream refuses it.
    if merged.get("duplicate_window", 0) > target["max_age"]:
        merged["duplicate_window"] = target["max_age"]
    return Change(name=wanted.name, action=Action.UPDATE, differences=differences, config=merged)


async def apply(client: Client, changes: Sequence[Change]) -> None:
    """Make the changes.

    Raises:
        OperationError: JetStream refuses one; those before it are made, and applying again goes on.
    """
    for change in changes:
        if change.config is not None:
            verb = "CREATE" if change.action is Action.CREATE else "UPDATE"
            await _api(client, f"$JS.API.STREAM.{verb}.{change.name}", change.config, f"{verb.lower()} {change.name}")


async def current_config(client: Client, name: str) -> Config | None:
    """A stream's configuration, None if there is no such stream.

    Raises:
        OperationError: JetStream does not answer or refuses to tell.
    """
    answer = await _api(client, f"$JS.API.STREAM.INFO.{name}", None, f"look at {name}", missing=_NOT_FOUND)
    if answer is None:
        return None
    config = part(answer, "config")
    if not isinstance(config.get("max_bytes", _UNBOUNDED), int):
        raise OperationError(f"cannot look at {name}: JetStream does not tell its configuration")
    return config


async def _api(
    client: Client, subject: str, payload: Config | None, what: str, *, missing: int | None = None
) -> dict[str, Any] | None:
    """One call of JetStream's API; None if its error is ``missing``."""
    try:
        answer = await request_json(client, subject, payload, seconds=_API_SECONDS)
    except OperationError as error:
        raise OperationError(
            f"cannot {what}: JetStream does not answer ({error}); is it enabled for the fleet's account, and does "
            "the cluster have a leader?"
        ) from error
    said = refusal(answer)
    if said is None:
        return answer
    if missing is not None and part(answer, "error").get("err_code") == missing:
        return None
    raise OperationError(f"cannot {what}: {said}")


def _differences(target: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(
        Difference(field=name, now=now.get(name), wanted=value)
        for name, value in target.items()
        if not _same(now.get(name), value)
    )


def _same(now: Any, wanted: Any) -> bool:
    """Whether a field already is what is wanted; JetStream leaves out what is false."""
    return bool(now == wanted) or (wanted is False and now is None)
