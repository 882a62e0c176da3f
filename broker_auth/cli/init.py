"""``broker-auth init``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from broker_auth.cli import options, output
from broker_auth.deploy.init import Deployment, initialize
from broker_auth.deploy.plan import (
    Edge,
    Layout,
    OwnFiles,
    Plan,
    Topology,
    misfits_of_static,
    missing_options,
    superfluous_options,
)
from broker_auth.settings.model import FleetAuth, Role

_PORT = click.IntRange(1, 65535)
_EPILOG = options.example(
    "broker-auth init ./try --dev-pki",
    "broker-auth init ./tokens --dev-pki --issuer choria",
    "broker-auth init /etc/broker-auth --host broker.example.net --ca ca.pem \\",
    "    --server-cert server.pem --server-key server.key --service-cert service.pem \\",
    "    --service-key service.key --leaf-ca leaf-ca.pem --leaf-cert leaf.pem \\",
    "    --leaf-key leaf.key --signer-cert signer.pem --provisioner provisioner.example.net",
    "broker-auth init ./cluster --dev-pki --edge eu=edge.eu.example.net --edge us=edge.us.example.net \\",
    "    --fleet-host nats1.example.net,nats2.example.net,nats3.example.net",
)


_F = TypeVar("_F", bound=Callable[..., Any])


def _file(name: str, meaning: str) -> Callable[[_F], _F]:
    return click.option(f"--{name}", type=options.FILE, help=meaning)


def _port(name: str, default: int, meaning: str) -> Callable[[_F], _F]:
    return click.option(f"--{name}", type=_PORT, default=default, show_default=True, help=meaning)


@click.command("init", epilog=_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--topology",
    type=click.Choice([item.value for item in Topology]),
    default=Topology.EDGE.value,
    show_default=True,
    help="edge: unprovisioned nodes connect to a separate nats-server. websocket: to a wss:// listener. "
    "single: one listener, all logins by token. mixed: one listener that verifies a certificate if it is given, which "
    "needs a nats-server that can.",
)
@click.option(
    "--layout",
    type=click.Choice([item.value for item in Layout]),
    default=Layout.DIRECTORY.value,
    show_default=True,
    help="Where audit records and streams go. directory: into DIRECTORY. system: below /var/log, /run and /var/lib. "
    "container: to the log and below /data, with health checks by HTTP.",
)
@click.option(
    "--fleet-auth",
    type=click.Choice([item.value for item in FleetAuth]),
    default=FleetAuth.CALLOUT.value,
    show_default=True,
    help="callout: the fleet's servers ask this service. static: they decide by themselves, and only the edge asks; "
    "docs/static-fleet.md lists what is lost.",
)
@click.option("--dev-pki", is_flag=True, help="Also create throw-away certificates and signing keys.")
@click.option("--host", "hosts", multiple=True, help="Name or address of the servers; the first is used in URLs.")
@click.option(
    "--fleet-host",
    "fleet_hosts",
    multiple=True,
    metavar="HOST,…",
    help="Hosts of the fleet's servers, in place of --host. Several form a cluster.",
)
@click.option("--edge-host", help="Name or address of the edge, if different.")
@click.option(
    "--edge",
    "edges",
    multiple=True,
    metavar="NAME=HOST",
    help="Name and host of an edge; '{edge}' in the file names below is replaced by the name.",
)
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="NAME=HOST",
    help="Name and host of a gate, for members without a certificate; its files are named as an edge's.",
)
@click.option("--listen", help="Address to listen on; default 0.0.0.0, with --dev-pki 127.0.0.1.")
@_file("ca", "CA (PEM) of the certificates of fleet and servers.")
@_file("server-cert", "Certificate of the nats-servers.")
@_file("server-key", "Its private key.")
@_file("edge-cert", "Certificate of the edge, if it has its own.")
@_file("edge-key", "Its private key.")
@_file(
    "leaf-ca",
    "CA (PEM) of the edges' leaf certificates. Must differ from --ca: with a client certificate of the fleet's CA "
    "a compromised edge could connect as a fleet member.",
)
@_file("leaf-cert", "Client certificate of the edge's leaf node connection.")
@_file("leaf-key", "Its private key.")
@_file("service-cert", "Client certificate of this service.")
@_file("service-key", "Its private key.")
@_file(
    "user-cert",
    "Certificate in contexts of the nats command; '{user}' in its name stands for member, provisioner and operator. "
    "It need not be on this machine.",
)
@_file("user-key", "Its private key, in the same way.")
@click.option("--signer-cert", multiple=True, help="Signer of provisioning tokens: a file, or 64 hex characters.")
@click.option(
    "--issuer",
    "issuers",
    multiple=True,
    metavar="NAME=HEX",
    help="Organization issuer and public key. With --dev-pki one NAME alone makes a key.",
)
@click.option("--provisioner", "provisioners", multiple=True, help="Certificate name accepted as the provisioner.")
@_port("port", 4222, "Port of the fleet's listener.")
@_port("edge-port", 4223, "Port of the edge's listener.")
@_port("gate-port", 4224, "Port of the gate's listener.")
@_port("leaf-port", 7422, "Port for leaf node connections of edges and gates.")
@_port("cluster-port", 6222, "Port of the routes between the fleet's servers.")
@_port("websocket-port", 4443, "Port of the wss:// listener.")
@click.option("--force", is_flag=True, help="Replace existing configurations. Keys and certificates are still kept.")
@options.json_option
def init_command(*, as_json: bool, **args: Any) -> None:
    """Write a deployment into DIRECTORY: keys, broker.conf and the nats-servers' configurations."""
    plan = _plan(**args)
    if missing := missing_options(plan):
        raise click.UsageError(f"required without --dev-pki: {', '.join(missing)}")
    if misfits := misfits_of_static(plan):
        raise click.UsageError(f"--fleet-auth static cannot be combined with {', '.join(misfits)}")
    if superfluous := superfluous_options(plan):
        raise click.UsageError(f"--dev-pki creates these, so remove {', '.join(superfluous)}")
    deployment = initialize(plan)
    if as_json:
        output.document(_document(deployment))
    else:
        _print(plan, deployment)


def _plan(
    *,
    topology: str,
    layout: str,
    fleet_auth: str,
    issuers: Sequence[str],
    fleet_hosts: Sequence[str],
    edges: Sequence[str],
    gates: Sequence[str],
    **args: Any,
) -> Plan:
    files = {name: args.pop(name) for name in OwnFiles.__dataclass_fields__}
    named = [
        Edge(*_pair(text, f"--{role}: write NAME=HOST, the {role}'s name and its host"), role)
        for role, texts in ((Role.EDGE, edges), (Role.GATE, gates))
        for text in texts
    ]
    pairs = tuple(_issuer(text, may_lack_key=args["dev_pki"]) for text in issuers)
    if sum(not public for _, public in pairs) > 1:
        raise click.UsageError("--issuer: --dev-pki makes the key of one organization; write NAME=HEX for the others")
    return Plan(
        topology=Topology(topology),
        layout=Layout(layout),
        fleet_auth=FleetAuth(fleet_auth),
        issuers=pairs,
        fleet_hosts=tuple(host.strip() for text in fleet_hosts for host in text.split(",") if host.strip()),
        named_edges=tuple(named),
        files=OwnFiles(**files),
        **args,
    )


def _issuer(text: str, *, may_lack_key: bool) -> tuple[str, str]:
    if may_lack_key and text and "=" not in text:
        return text, ""
    return _pair(text, "--issuer: write NAME=HEX, the organization's name and its public key")


def _pair(text: str, remedy: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise click.UsageError(remedy)
    return name, value


def _document(deployment: Deployment) -> dict[str, Any]:
    return {
        "configuration": str(deployment.configuration),
        "servers": {name: str(path) for name, path in deployment.servers.items()},
        "contexts": str(deployment.contexts),
        "break_glass_seeds": [str(seed) for seed in deployment.break_glass_seeds],
        "warnings": [str(warning) for warning in deployment.warnings],
        "next": list(deployment.next_commands),
    }


def _print(plan: Plan, deployment: Deployment) -> None:
    written = [deployment.configuration, *deployment.servers.values()]
    output.note(f"Wrote {', '.join(str(path) for path in written)}")
    output.note(f"Contexts of the nats command are in {deployment.contexts}, as XDG_CONFIG_HOME")
    if plan.force:
        output.note("Existing keys, passwords and certificates were kept")
    if deployment.break_glass_seeds:
        seeds = ", ".join(map(str, deployment.break_glass_seeds))
        output.note(f"Move offline and remove from this host: {seeds}")
    for warning in deployment.warnings:
        output.warning(str(warning))
    output.note("Next:")
    for command in deployment.next_commands:
        output.note(f"  {command}")
