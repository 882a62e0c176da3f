"""``broker-auth token provisioning``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from broker_auth.cli import options
from broker_auth.cli.files import read_secret_option
from broker_auth.cli.keyfiles import read_signing_key
from broker_auth.cli.saving import refuse_early, save
from broker_auth.cli.token_batch import read_names, write_tokens
from broker_auth.cli.token_batch import show as show_batch
from broker_auth.errors import InputError
from broker_auth.policy.subjects import is_node_name
from broker_auth.secret import Secret
from broker_auth.tokens.bounds import MOST_NODES, Bounds, make_bounds
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION, Claims, provisioning_claims

_EPILOG = options.example(
    "broker-auth token provisioning provisioning.jwt signer.key \\",
    "    --token file:token.txt --urls nats://provision.example.net:4222 --default",
    "PROVISIONING_TOKEN=s3cret broker-auth token provisioning provisioning.jwt issuer.seed \\",
    '    --srv example.net --no-insecure --validity 90d --extensions \'{"location": "lhr"}\'',
    "broker-auth token provisioning node1.jwt signer.key --token file:token.txt --urls nats://edge.example.net:4222 \\",
    "    --for-name node1.example.net --for-network 192.0.2.0/24",
    "broker-auth token provisioning batch.jwt signer.key --token file:token.txt --urls nats://edge.example.net:4222 \\",
    "    --max-nodes 200 --validity 30d",
    "broker-auth token provisioning signer.key --token file:token.txt --urls nats://edge.example.net:4222 \\",
    "    --names-file devices.txt --out-dir tokens",
)


@click.command("provisioning", epilog=_EPILOG)
@click.argument("out", metavar="[OUT]", type=options.FILE_OR_DASH)
@click.argument("signing_key", metavar="SIGNING-KEY", required=False, type=options.FILE_OR_DASH)
@click.option(
    "--token",
    envvar="PROVISIONING_TOKEN",
    help="Access token that nodes expect from the provisioner, as text or file:PATH; "
    "also from $PROVISIONING_TOKEN; prompted for on a terminal.",
)
@click.option("--urls", "--url", multiple=True, metavar="URL", help="Broker for provisioning; may be repeated.")
@click.option("--srv", default="", metavar="DOMAIN", help="Domain whose SRV records name the brokers.")
@click.option(
    "--default", "by_default", is_flag=True, help="Provision nodes unless their configuration says otherwise."
)
@click.option(
    "--insecure/--no-insecure", default=True, show_default=True, help="Disable TLS security during provisioning."
)
@click.option("--registration", default="", metavar="PATH", help="File that nodes publish as registration data.")
@click.option("--facts", default="", metavar="PATH", help="File that nodes use as facts.")
@click.option("--username", default="", help="User name for the provisioning broker.")
@click.option(
    "--password",
    envvar="PROVISIONING_PASSWORD",
    help="Password for the provisioning broker, as text or file:PATH; also from $PROVISIONING_PASSWORD.",
)
@click.option("--extensions", metavar="JSON", help="Additional data for the provisioner, a JSON object.")
@click.option(
    "--for-name",
    "names",
    multiple=True,
    metavar="NAME",
    help="Only a node with this connection name, or a name that this /pattern/ matches, may wait by it; "
    "may be repeated.",
)
@click.option(
    "--for-network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="Only nodes from this address or network may wait by it; may be repeated.",
)
@click.option(
    "--max-nodes",
    type=click.IntRange(1, MOST_NODES),
    metavar="N",
    help="At most N distinct nodes, told from each other by their connection names, may ever wait by it. The service "
    "needs plugin.broker_auth.revocations_bucket to count them.",
)
@click.option(
    "--names-file",
    metavar="FILE",
    type=options.FILE_OR_DASH,
    help="Create a token for each name in this file, one name on each line.",
)
@click.option("--out-dir", type=options.DIRECTORY, help="Directory for the tokens of --names-file, as NAME.jwt.")
@click.option("--org", default=DEFAULT_ORGANIZATION, show_default=True, help="Organization that trusts the token.")
@click.option("--protocol-v2", is_flag=True, help="Use the version 2 network protocol and security.")
@click.option("--upgrade", "--update", is_flag=True, help="Allow the provisioner to upgrade the node's software.")
@click.option("--validity", type=options.DURATION, default="1y", show_default=True, help="How long it is valid.")
@options.force_option
@options.json_option
def provisioning_command(
    out: str,
    signing_key: str | None,
    token: str | None,
    urls: tuple[str, ...],
    srv: str,
    password: str | None,
    extensions: str | None,
    names: tuple[str, ...],
    networks: tuple[str, ...],
    max_nodes: int | None,
    names_file: str | None,
    out_dir: Path | None,
    validity: float,
    *,
    force: bool,
    as_json: bool,
    **claims: Any,
) -> None:
    """Sign a provisioning token and write it to OUT (- for standard output).

    SIGNING-KEY is a PEM private key (RSA, EC P-256 or P-384, Ed25519) or an Ed25519 seed in hex.
    Nodes log in with the token; anybody who has it can read the access token inside. With --names-file and --out-dir,
    create one token for each device instead, by which only a node with the device's name may wait; OUT is omitted.
    """
    if not urls and not srv:
        raise click.UsageError("give --urls or --srv: nodes need a broker for provisioning")
    if urls and srv:
        raise click.UsageError("give either --urls or --srv: a Choria Server refuses a token with both")
    out, signing_key = _places(out, signing_key, names_file, out_dir, names, force=force)
    if out_dir is not None and max_nodes is not None:
        raise click.UsageError("give either --names-file or --max-nodes: by each of its tokens one name may wait")
    devices = read_names(names_file) if names_file else ()
    if not devices:
        refuse_early(out, force=force, as_json=as_json)
    key = read_signing_key(signing_key)
    now, access_token = time.time(), _access_token(token)
    broker_password = read_secret_option(password) if password else None
    data = _extensions(extensions)

    def made_for(*names: str) -> Claims:
        return provisioning_claims(
            now=now,
            validity=validity,
            token=access_token,
            urls=urls,
            srv_domain=srv,
            secure=not claims["insecure"],
            default=claims["by_default"],
            registration=claims["registration"],
            facts=claims["facts"],
            username=claims["username"],
            password=broker_password,
            organization=claims["org"],
            extensions=data,
            bounds=_bounds(names, networks, max_nodes),
            protocol_v2=claims["protocol_v2"],
            allow_update=claims["upgrade"],
        )

    if out_dir is None:
        save(out, made_for(*names), key, force=force, as_json=as_json)
        return
    made = write_tokens(devices, out_dir, made_for, key)
    show_batch(made, out_dir, made_for(devices[0]), as_json=as_json)


def _places(
    out: str,
    signing_key: str | None,
    names_file: str | None,
    out_dir: Path | None,
    names: tuple[str, ...],
    *,
    force: bool,
) -> tuple[str, str]:
    """Return OUT and SIGNING-KEY; OUT is empty if tokens go to a directory."""
    if (names_file is None) != (out_dir is None):
        raise click.UsageError("--names-file and --out-dir go together; give both or neither")
    if out_dir is None:
        if signing_key is None:
            raise click.UsageError("give OUT, the file to write, and SIGNING-KEY")
        return out, signing_key
    if signing_key is not None:
        raise click.UsageError("with --out-dir give only SIGNING-KEY: the tokens go to that directory")
    if names:
        raise click.UsageError("give either --names-file or --for-name")
    if force:
        raise click.UsageError("--force does not go with --out-dir: name a directory without the tokens")
    return "", out


def _bounds(names: Sequence[str], networks: Sequence[str], max_nodes: int | None) -> Bounds | None:
    for name in names:
        if not name.startswith("/") and not is_node_name(name):
            raise click.UsageError(
                f"--for-name {name!r} cannot be a node's name: no wildcard, white space or empty part"
            )
    if not names and not networks and max_nodes is None:
        return None
    try:
        return make_bounds(names, networks, max_nodes)
    except TokenRejected as rejected:
        raise InputError(f"a token with these bounds would be refused: {rejected.detail}") from rejected


def _access_token(argument: str | None) -> Secret:
    if argument:
        return read_secret_option(argument)
    if not sys.stdin.isatty():
        raise click.UsageError("give --token, as text or file:PATH, or set PROVISIONING_TOKEN")
    return Secret(click.prompt("Provisioning access token", hide_input=True, err=True))


def _extensions(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        extensions = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError("--extensions is not valid JSON") from error
    if not isinstance(extensions, dict):
        raise click.UsageError("--extensions is not a JSON object")
    return extensions
