"""Choria's streams in the fleet's account: target configuration, current configuration, and changes.

Names, subjects and limits are those of go-choria ``broker/network/network_jetstream.go``, without the
executor's stream. Other fields that an operator set on a stream are preserved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from nats.aio.client import Client

from broker_auth.deploy.render import PROVISIONER_BUCKET
from broker_auth.errors import OperationError
from broker_auth.operate.answers import part, refusal, request_json
from broker_auth.settings.model import Settings, StreamSettings

ELECTION_BUCKET: Final = "CHORIA_LEADER_ELECTION"
_MAX_PEERS: Final = 1000  # servers in one JetStream cluster
MAX_REPLICAS: Final = 3  # upper bound for -1; more replicas must be configured explicitly
ELECTION_VALUE_BYTES: Final = 1024
_AS_MANY_AS_POSSIBLE: Final = -1
_UNBOUNDED: Final = -1  # JetStream's value for no limit
_NOT_FOUND: Final = 10059  # JetStream's err_code for a missing stream
_NANOSECONDS: Final = 1_000_000_000
# The shortest duplicate window that JetStream accepts, in nanoseconds. It keeps every message id in memory for that
# time, by default 2 minutes, and publishers choose the ids (fact 28).
_DUPLICATES: Final = 100_000_000
_CHOSEN: Final = ("max_bytes", "max_msgs")  # limits that an operator may have changed
_API_SECONDS: Final = 10.0

Config = dict[str, Any]


class Action(StrEnum):
    """The action of :func:`apply` for a stream."""

    CREATE = "create"
    UPDATE = "update"
    NOTHING = "nothing"
    UNWANTED = "unwanted"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStream:
    """The target configuration of a stream; ``config`` None means that the stream should not exist (retention 0)."""

    name: str
    config: Config | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A field of a stream's configuration that differs, named as in JetStream's API."""

    field: str
    now: Any
    target: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a stream.

    Attributes:
        config: what to send to JetStream; None if there is nothing to send.
        differences: for an update; for a creation every field that is set.
    """

    name: str
    action: Action
    differences: tuple[Difference, ...] = ()
    config: Config | None = None


def needs_peers(settings: StreamSettings) -> bool:
    """Return whether any stream has as many replicas as the cluster supports."""
    return _AS_MANY_AS_POSSIBLE in (
        settings.event_replicas,
        settings.machine_replicas,
        settings.advisory_replicas,
        settings.leader_election_replicas,
    )


def target_streams(settings: StreamSettings, peers: int) -> tuple[TargetStream, ...]:
    """Return the three streams of events, and the buckets for elections of the fleet and of the provisioners.

    Args:
        settings: retention and replicas of each.
        peers: servers in the JetStream cluster, 1 without a cluster.
    """

    def stream(name: str, subject: str, seconds: float, replicas: int, **more: Any) -> TargetStream:
        if seconds <= 0:
            return TargetStream(name=name, config=None)
        config = {"name": name, "subjects": [subject], "max_age": round(seconds * _NANOSECONDS)}
        config |= {"num_replicas": _replicas(replicas, peers), "storage": "file", "retention": "limits"}
        config["discard"] = "old"
        return TargetStream(name=name, config=config | more)

    # Unprovisioned nodes and servers publish events with a reply subject of their choice, which no permission
    # restricts: with an acknowledgement JetStream would publish there for them in the fleet's account, for example
    # to the key of the election. No client needs acknowledgements.
    # The limits are needed because nothing else bounds what nodes publish, and a full disk stops every stream.
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
        # Without rollups, which erase messages, and with a single literal subject: all that a provisioner or a
        # compromised edge can do is to hold the one key.
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


def target_buckets(settings: Settings, peers: int) -> tuple[TargetStream, ...]:
    """Return the streams of the service's buckets, with the replicas of the leader elections."""
    replicas = _replicas(settings.streams.leader_election_replicas, peers)
    return tuple(TargetStream(name=spec.stream, config=spec.config(replicas)) for spec in settings.buckets)


def _replicas(chosen: int, peers: int) -> int:
    return max(min(peers, MAX_REPLICAS) if chosen == _AS_MANY_AS_POSSIBLE else chosen, 1)


async def cluster_peers(system: Client) -> int:
    """Return the number of servers in the JetStream cluster, queried in the system account; 1 without a cluster.

    Raises:
        OperationError: no answer came in time, or JetStream is disabled.
    """
    answer = await request_json(system, "$SYS.REQ.SERVER.PING.JSZ")
    data = part(answer, "data")
    if data.get("disabled"):
        raise OperationError("JetStream is not enabled on this broker; set store_dir and render its configuration")
    size = part(data, "meta_cluster").get("cluster_size")
    return size if isinstance(size, int) and 1 <= size <= _MAX_PEERS else 1


async def plan(client: Client, target: Iterable[TargetStream]) -> tuple[Change, ...]:
    """Return the necessary changes, without making them.

    Raises:
        OperationError: JetStream does not answer or refuses.
    """
    return tuple([compare(item, await current_config(client, item.name)) for item in target])


def compare(stream: TargetStream, now: Mapping[str, Any] | None) -> Change:
    """Return the change of a stream; ``now`` is its current configuration, None if it does not exist."""
    target = stream.config
    if target is None:
        return Change(name=stream.name, action=Action.NOTHING if now is None else Action.UNWANTED)
    if now is None:
        return Change(
            name=stream.name,
            action=Action.CREATE,
            differences=_differences(target, {"name": stream.name}),
            config=target,
        )
    kept = {name for name in _CHOSEN if now.get(name, _UNBOUNDED) > 0}  # set by an operator, or by an earlier version
    target = {name: value for name, value in target.items() if name not in kept}
    differences = _differences(target, now)
    if not differences:
        return Change(name=stream.name, action=Action.NOTHING)
    merged = {**now, **target}
    # JetStream refuses a duplicate window that is longer than the maximum age.
    if 0 < target["max_age"] < merged.get("duplicate_window", 0):
        merged["duplicate_window"] = target["max_age"]
    return Change(name=stream.name, action=Action.UPDATE, differences=differences, config=merged)


async def apply(client: Client, changes: Sequence[Change]) -> None:
    """Make the changes.

    Raises:
        OperationError: JetStream refuses a change; previous ones are made, and another call continues.
    """
    for change in changes:
        if change.config is not None:
            verb = "CREATE" if change.action is Action.CREATE else "UPDATE"
            await _api(client, f"$JS.API.STREAM.{verb}.{change.name}", change.config, f"{verb.lower()} {change.name}")


async def current_config(client: Client, name: str) -> Config | None:
    """Return a stream's configuration, None if it does not exist.

    Raises:
        OperationError: JetStream does not answer or refuses.
    """
    answer = await _api(client, f"$JS.API.STREAM.INFO.{name}", None, f"query {name}", missing=_NOT_FOUND)
    if answer is None:
        return None
    config = part(answer, "config")
    if not isinstance(config.get("max_bytes", _UNBOUNDED), int):
        raise OperationError(f"cannot query {name}: JetStream did not send its configuration; see nats-server's log")
    return config


async def _api(
    client: Client, subject: str, payload: Config | None, what: str, *, missing: int | None = None
) -> dict[str, Any] | None:
    """Call JetStream's API; return the answer, None if its error is ``missing``."""
    try:
        answer = await request_json(client, subject, payload, seconds=_API_SECONDS)
    except OperationError as error:
        raise OperationError(
            f"cannot {what}: JetStream does not answer ({error}); is it enabled for this account, and does the "
            "cluster have a leader?"
        ) from error
    message = refusal(answer)
    if message is None:
        return answer
    if missing is not None and part(answer, "error").get("err_code") == missing:
        return None
    raise OperationError(f"cannot {what}: {message}")


def _differences(target: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    return tuple(
        Difference(field=name, now=now.get(name), target=value)
        for name, value in target.items()
        if not _same(now.get(name), value)
    )


def _same(now: Any, target: Any) -> bool:
    """Return whether a field has its target value; JetStream omits false values."""
    return bool(now == target) or (target is False and now is None)
