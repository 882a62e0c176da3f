"""``broker-auth token provisioning``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from broker_auth.cli import options
from broker_auth.cli.files import read_secret_option
from broker_auth.cli.keyfiles import read_signing_key
from broker_auth.cli.saving import refuse_early, save
from broker_auth.secret import Secret
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION, provisioning_claims

_EPILOG = options.example(
    "broker-auth token provisioning provisioning.jwt signer.key \\",
    "    --token file:token.txt --urls nats://provision.example.net:4222 --default",
    "PROVISIONING_TOKEN=s3cret broker-auth token provisioning provisioning.jwt issuer.seed \\",
    '    --srv example.net --no-insecure --validity 90d --extensions \'{"location": "lhr"}\'',
)


@click.command("provisioning", epilog=_EPILOG)
@click.argument("out", metavar="OUT")
@click.argument("signing_key", metavar="SIGNING-KEY")
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
@click.option("--org", default=DEFAULT_ORGANIZATION, show_default=True, help="Organization that trusts the token.")
@click.option("--protocol-v2", is_flag=True, help="Use the version 2 network protocol and security.")
@click.option("--upgrade", "--update", is_flag=True, help="Allow the provisioner to upgrade the node's software.")
@click.option("--validity", type=options.DURATION, default="1y", show_default=True, help="How long it is valid.")
@options.force_option
@options.json_option
def provisioning_command(
    out: str,
    signing_key: str,
    token: str | None,
    urls: tuple[str, ...],
    srv: str,
    password: str | None,
    extensions: str | None,
    validity: float,
    *,
    force: bool,
    as_json: bool,
    **claims: Any,
) -> None:
    """Sign a provisioning token and write it to OUT (- for standard output).

    SIGNING-KEY is a PEM private key (RSA, EC P-256 or P-384, Ed25519) or an Ed25519 seed in hex.
    Nodes log in with the token; anybody who has it can read the access token inside.
    """
    if not urls and not srv:
        raise click.UsageError("give --urls or --srv: nodes need a broker for provisioning")
    if urls and srv:
        raise click.UsageError("give either --urls or --srv: a Choria Server refuses a token with both")
    refuse_early(out, force=force, as_json=as_json)
    key = read_signing_key(signing_key)
    made = provisioning_claims(
        now=time.time(),
        validity=validity,
        token=_access_token(token),
        urls=urls,
        srv_domain=srv,
        secure=not claims["insecure"],
        default=claims["by_default"],
        registration=claims["registration"],
        facts=claims["facts"],
        username=claims["username"],
        password=read_secret_option(password) if password else None,
        organization=claims["org"],
        extensions=_extensions(extensions),
        protocol_v2=claims["protocol_v2"],
        allow_update=claims["upgrade"],
    )
    save(out, made, key, force=force, as_json=as_json)


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
