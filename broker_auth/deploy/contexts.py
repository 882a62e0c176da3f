"""Contexts of the ``nats`` command: who connects where, with which certificate and password.

Passwords and tokens stay in their files, which a context names; that takes nats 0.5 or newer. An older one sends
the reference itself and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from broker_auth.deploy.brokerconf import CLIENT_PASSWORD, SYSTEM_PASSWORD, urls
from broker_auth.deploy.plan import USER_PLACEHOLDER, Plan, Topology
from broker_auth.settings.model import Role

HOME: Final = "contexts"  # to be $XDG_CONFIG_HOME
NODE_TOKEN: Final = "provisioning.jwt"
_DIRECTORY: Final = f"{HOME}/nats/context"
_PEOPLE: Final = {
    "member": ("A member of the fleet", {}),
    "provisioner": (
        "The provisioner, in the provisioning account",
        {"user": "provisioner", "password": CLIENT_PASSWORD},
    ),
    "operator": (
        "The system user, who asks and commands nats-servers",
        {"user": "system", "password": SYSTEM_PASSWORD},
    ),
}


def contexts(plan: Plan) -> dict[str, str]:
    """Return the text of each context by its file name, below the deployment's directory.

    Args:
        plan: with every file named, the development PKI's included.
    """
    return {
        f"{_DIRECTORY}/{name}.json": json.dumps(content, indent=2) + "\n"
        for name, content in (*_people(plan), *_nodes(plan))
    }


def file_names(plan: Plan) -> tuple[str, ...]:
    """Return the file names of :func:`contexts`."""
    people = _PEOPLE if plan.has_user_certificates else ()
    return tuple(f"{_DIRECTORY}/{name}.json" for name in (*people, *(name for name, _ in _listeners(plan))))


def _people(plan: Plan) -> Iterator[tuple[str, dict[str, str]]]:
    certificate, key = plan.files.user_cert, plan.files.user_key
    if certificate is None or key is None:
        return
    for name, (description, login) in _PEOPLE.items():
        secret = {"password": _reference(plan, login["password"])} if login else {}
        yield (
            name,
            {
                "description": description,
                "url": _urls(plan.fleet, plan.port),
                **login,
                **secret,
                "ca": _absolute(plan.files.ca),
                "cert": _absolute(certificate).replace(USER_PLACEHOLDER, name),
                "key": _absolute(key).replace(USER_PLACEHOLDER, name),
            },
        )


def _nodes(plan: Plan) -> Iterator[tuple[str, dict[str, str]]]:
    for name, url in _listeners(plan):
        yield (
            name,
            {
                "description": "An unprovisioned node, by its provisioning token",
                "url": url,
                "token": _reference(plan, NODE_TOKEN),
                "ca": _absolute(plan.files.ca),
            },
        )


def _listeners(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return where nodes connect: a name for each listener, and its URLs."""
    if plan.topology is Topology.WEBSOCKET:
        return (("node", _urls(plan.fleet, plan.websocket_port, scheme="wss")),)
    if plan.topology in (Topology.SINGLE, Topology.MIXED):
        return (("node", _urls(plan.fleet, plan.port)),)
    return tuple(
        (f"node-{edge.name}" if plan.named_edges else "node", _urls([edge.host], plan.edge_port))
        for edge in plan.edges
        if edge.role is Role.EDGE
    )


def _urls(hosts: Sequence[str], port: int, *, scheme: str = "tls") -> str:
    return urls(hosts, port, scheme=scheme).replace(" ", "")  # `nats rtt` takes no space after a comma


def _reference(plan: Plan, name: str) -> str:
    return f"file://{plan.directory / name}"


def _absolute(path: Path | None) -> str:
    assert path is not None
    return str(Path.cwd() / path)
