"""``broker-auth token server``."""

from __future__ import annotations

import time

import click

from broker_auth.cli import options
from broker_auth.cli.keyfiles import read_public_key, read_signing_key
from broker_auth.cli.saving import chain_option, chained, refuse_early, save
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION, server_claims

_EPILOG = options.example(
    "broker-auth token keys node.seed node.public",
    "broker-auth token server node.jwt node1.example.net node.public issuer.seed --stream-user",
)


@click.command("server", epilog=_EPILOG)
@click.argument("out", metavar="FILE", type=options.FILE_OR_DASH)
@click.argument("identity")
@click.argument("public_key", metavar="PUBLIC-KEY", type=options.FILE_OR_DASH)
@click.argument("signing_key", metavar="SIGNING-KEY", type=options.FILE_OR_DASH)
@click.option(
    "--collectives",
    "--collective",
    multiple=True,
    default=("mcollective",),
    show_default=True,
    help="Collective it belongs to; may be repeated.",
)
@click.option("--org", default=DEFAULT_ORGANIZATION, show_default=True, help="Organization it belongs to.")
@click.option("--subjects", "--subject", multiple=True, help="Additional subject it may publish to; may be repeated.")
@click.option("--submission", is_flag=True, help="Allow Choria Submission.")
@click.option("--stream-user", is_flag=True, help="Allow access to Choria Streams.")
@click.option("--governor", is_flag=True, help="Allow access to all governors; requires --stream-user.")
@click.option("--service", is_flag=True, help="Allow it to host services.")
@click.option("--validity", type=options.DURATION, default="8760h", show_default=True, help="Validity of the token.")
@chain_option
@options.force_option
@options.json_option
def server_command(
    out: str,
    identity: str,
    public_key: str,
    signing_key: str,
    collectives: tuple[str, ...],
    org: str,
    subjects: tuple[str, ...],
    validity: float,
    chain_issuer_token: str | None,
    *,
    submission: bool,
    stream_user: bool,
    governor: bool,
    service: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Sign a server token for IDENTITY and write it to FILE (- for standard output).

    PUBLIC-KEY is the server's Ed25519 public key, 64 hex characters or a file that holds them.
    SIGNING-KEY is a PEM private key (RSA, EC P-256 or P-384, Ed25519) or an Ed25519 seed in hex.
    """
    if governor and not stream_user:
        raise click.UsageError("--governor requires --stream-user")
    refuse_early(out, force=force, as_json=as_json)
    key = read_signing_key(signing_key)
    flags = {"submission": submission, "streams": stream_user, "governor": governor, "service_host": service}
    claims = server_claims(
        now=time.time(),
        validity=validity,
        identity=identity,
        public_key=read_public_key(public_key),
        collectives=collectives,
        organization=org,
        permissions=[name for name, granted in flags.items() if granted],
        publish=subjects,
    )
    save(out, chained(claims, chain_issuer_token, key), key, force=force, as_json=as_json)
