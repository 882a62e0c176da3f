"""``broker-auth streams apply``: create or change Choria's streams as configured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from broker_auth.cli import output
from broker_auth.cli.access import access_options, load_settings, make_access, run
from broker_auth.cli.lazy import Lazy, LazyGroup
from broker_auth.cli.options import config_option, example, json_option
from broker_auth.operate.access import Access
from broker_auth.operate.streams.change import change_streams
from broker_auth.operate.streams.plan import Action, Change
from broker_auth.times import short_duration

streams_group = LazyGroup(
    name="streams",
    table={"apply": Lazy("broker_auth.cli.streams:apply_command", "Create or change Choria's streams.")},
    help="Choria's streams and leader election buckets, in the fleet's account.",
    epilog=example("broker-auth streams apply --config broker.conf --dry-run"),
)
_MESSAGES = {
    Action.CREATE: "create",
    Action.UPDATE: "update",
    Action.NOTHING: "is as configured",
    Action.UNWANTED: "exists although its retention is 0; it is kept, remove it with `nats stream rm`",
}
_DONE = {Action.CREATE: "created", Action.UPDATE: "updated"}


@click.command("apply", epilog=example("broker-auth streams apply --config broker.conf --dry-run"))
@config_option
@access_options
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
@json_option
def apply_command(config: Path, dry_run: bool, as_json: bool, **credentials: Any) -> None:
    """Create or change CHORIA_EVENTS, CHORIA_MACHINE, CHORIA_STREAM_ADVISORIES and the leader elections.

    Works in the fleet's account: with the configured certificate, or with --token and --seed of a client
    with the permission streams_admin if organization issuers are configured. Replicas of -1 become as many
    as the cluster supports, at most 3, read from the system account.
    """
    access: Access = make_access(load_settings(config), **credentials)
    changes = run(change_streams(access, dry_run=dry_run))
    if as_json:
        output.document({"dry_run": dry_run, "streams": [_document(change) for change in changes]})
        return
    for change in changes:
        message = _MESSAGES[change.action] if dry_run else _DONE.get(change.action, _MESSAGES[change.action])
        output.note(f"{change.name}: {message}")
        for difference in change.differences:
            old = "" if change.action is Action.CREATE else f"{_shown(difference.field, difference.now)} -> "
            output.note(f"  {difference.field}: {old}{_shown(difference.field, difference.target)}")


def _shown(field: str, value: Any) -> str:
    """Return a value as JSON, durations in readable form."""
    return short_duration(value / 1e9) if field == "max_age" and value else json.dumps(value)


def _document(change: Change) -> dict[str, object]:
    return {
        "name": change.name,
        "action": change.action.value,
        "changes": {item.field: {"from": item.now, "to": item.target} for item in change.differences},
    }
