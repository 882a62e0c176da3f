"""The nats-servers of a broker: one, or the members of a cluster, each with its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from broker_auth.deploy.render import render
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import InputError
from broker_auth.settings.model import BrokerSettings, Settings


def member_names(hosts: Sequence[str]) -> tuple[str, ...]:
    """Return a server name for each host of a cluster: its first label, or the host where labels repeat.

    A member whose name is its host, or begins it, advertises that host (docs/topologies.md#clusters).
    """
    plain = [host.removesuffix(".") for host in hosts]
    labels = tuple(host.partition(".")[0] for host in plain)
    return labels if len(set(labels)) == len(labels) else tuple(plain)


class Rendering(NamedTuple):
    """The configuration of one nats-server, and whether it must be kept private: a static fleet's holds hashes."""

    text: str
    private: bool


def render_all(settings: Settings) -> dict[str, Rendering]:
    """Return the configuration of every nats-server, by the file name without its suffix.

    That is the broker's name, and in a cluster the member's.

    Raises:
        InputError: as :func:`broker_auth.deploy.render.render`; or members cannot be told apart.
    """
    texts: dict[str, Rendering] = {}
    for broker in settings.brokers:
        for name, member in _members(settings, broker).items():
            if name in texts:
                raise InputError(f"{settings.path}: two nats-servers are named {name}; rename one")
            texts[name] = Rendering(render(settings, member), private=not settings.zone(broker.zone).served)
    return texts


def write_servers(workspace: Workspace, settings: Settings) -> dict[str, Path]:
    """Write the configuration of every nats-server into a workspace; return their paths by name.

    Raises:
        InputError: as :func:`render_all`, before anything is written.
    """
    return {
        name: workspace.write(f"{name}.conf", rendering.text, private=rendering.private)
        for name, rendering in render_all(settings).items()
    }


def write_all(settings: Settings, directory: Path) -> tuple[Path, ...]:
    """Write the configuration of every nats-server into a directory, all or none; return their paths.

    Raises:
        InputError: as :func:`render_all`, before anything is written; or the directory cannot be written to.
    """
    workspace = Workspace(directory, force=True)
    try:
        workspace.make_directory()
        return tuple(write_servers(workspace, settings).values())
    except InputError:
        workspace.undo()
        raise
    except OSError as error:
        workspace.undo()
        raise InputError(f"{directory} cannot be written to ({error.strerror}); choose another directory") from error


def _members(settings: Settings, broker: BrokerSettings) -> dict[str, BrokerSettings]:
    server = broker.server
    if server.cluster_listen is None or len(server.cluster_routes) < 2:
        return {broker.name: broker}
    hosts = [urlsplit(url).hostname or "" for url in server.cluster_routes]
    if len(set(hosts)) < len(hosts):
        raise InputError(
            f"{settings.path}: plugin.broker_auth.broker.{broker.name}.server.cluster.routes names a host twice, so "
            "its members have no names; render each by itself, with --role"
        )
    return {
        name: dataclasses.replace(broker, server=dataclasses.replace(server, name=name)) for name in member_names(hosts)
    }
