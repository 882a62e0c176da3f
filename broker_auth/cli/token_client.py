"""``broker-auth token client``."""

from __future__ import annotations

import time
from typing import Final

import click

from broker_auth.cli import options, output
from broker_auth.cli.files import read_input
from broker_auth.cli.keyfiles import read_public_key, read_signing_key
from broker_auth.cli.saving import chain_option, chained, refuse_early, save
from broker_auth.errors import InputError
from broker_auth.tokens.issue import DEFAULT_ORGANIZATION, client_claims, make_chain_issuer
from broker_auth.tokens.jws import MAX_TOKEN_BYTES

_EPILOG = options.example(
    "broker-auth token keys admin.seed admin.public",
    "broker-auth token client admin.jwt up=admin issuer.seed --public-key admin.public --stream-user",
    "broker-auth token client aaa.jwt aaa=login issuer.seed --public-key aaa.public --issuer --validity 1y",
    "broker-auth token client bob.jwt up=bob aaa.seed --public-key bob.public --chain-issuer-token aaa.jwt",
)
_NOT_FOR_ISSUERS: Final = frozenset({"fleet_management", "signed_fleet_management", "authentication_delegator"})


@click.command("client", epilog=_EPILOG)
@click.argument("out", metavar="FILE", type=options.FILE_OR_DASH)
@click.argument("identity")
@click.argument("signing_key", metavar="SIGNING-KEY", type=options.FILE_OR_DASH)
@click.option("--public-key", default="", help="The client's Ed25519 public key, hex or a file; required by brokers.")
@click.option("--agents", "--agent", multiple=True, help="Agent, or agent.action, it may use; may be repeated.")
@click.option("--org", default=DEFAULT_ORGANIZATION, show_default=True, help="Organization it belongs to.")
@click.option("--opa-file", metavar="PATH", help="File that holds an Open Policy Agent policy.")
@click.option("--opa", default="", metavar="REGO", help="Open Policy Agent policy as text.")
@click.option("--validity", type=options.DURATION, default="1h", show_default=True, help="Validity of the token.")
@click.option("--stream-admin", "streams_admin", is_flag=True, help="Administer and use Choria Streams.")
@click.option("--stream-user", "streams_user", is_flag=True, help="Use Choria Streams.")
@click.option("--event-viewer", "events_viewer", is_flag=True, help="View Choria events.")
@click.option("--elections-user", "election_user", is_flag=True, help="Use leader elections.")
@click.option("--service", is_flag=True, help="Allow long validity, for services.")
@click.option("--system", "system_user", is_flag=True, help="Access the system account.")
@click.option("--auth-delegation", "authentication_delegator", is_flag=True, help="Sign requests for other users.")
@click.option("--fleet-management/--no-fleet-management", default=True, show_default=True, help="Manage the fleet.")
@click.option(
    "--signed-fleet-management", is_flag=True, help="Manage the fleet by requests that an authority has signed."
)
@click.option("--org-admin", is_flag=True, help="Access all broker traffic.")
@click.option("--server-provisioner", "provisioner", is_flag=True, help="Provision servers.")
@click.option("--governor", is_flag=True, help="Access all governors; takes effect with streams.")
@click.option("--publish", multiple=True, help="Additional subject it may publish to; may be repeated.")
@click.option("--subscribe", multiple=True, help="Additional subject it may subscribe to; may be repeated.")
@click.option("--issuer", "is_issuer", is_flag=True, help="Allow it to issue other tokens, in a chain of trust.")
@chain_option
@options.force_option
@options.json_option
def client_command(
    out: str,
    identity: str,
    signing_key: str,
    public_key: str,
    agents: tuple[str, ...],
    org: str,
    opa_file: str | None,
    opa: str,
    validity: float,
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    chain_issuer_token: str | None,
    *,
    is_issuer: bool,
    force: bool,
    as_json: bool,
    **flags: bool,
) -> None:
    """Sign a client token for the caller id IDENTITY and write it to FILE (- for standard output).

    SIGNING-KEY is a PEM private key (RSA, EC P-256 or P-384, Ed25519) or an Ed25519 seed in hex.
    Tokens of chain issuers (--issuer) are signed with the organization's seed; chain issuers sign with their own.
    """
    _check_usage(public_key, opa_file, opa, chain_issuer_token, is_issuer=is_issuer)
    refuse_early(out, force=force, as_json=as_json)
    key = read_signing_key(signing_key)
    claims = client_claims(
        now=time.time(),
        validity=validity,
        caller_id=identity,
        public_key=read_public_key(public_key) if public_key else "",
        agents=agents,
        organization=org,
        permissions=_permissions(flags, is_issuer=is_issuer),
        publish=publish,
        subscribe=subscribe,
        opa_policy=_policy(opa_file) if opa_file else opa,
    )
    if not public_key:
        output.warning("without --public-key a broker refuses the token, because the client cannot sign its nonce")
    claims = make_chain_issuer(claims, key) if is_issuer else chained(claims, chain_issuer_token, key)
    save(out, claims, key, force=force, as_json=as_json)


def _check_usage(
    public_key: str, opa_file: str | None, opa: str, chain_issuer_token: str | None, *, is_issuer: bool
) -> None:
    if opa_file and opa:
        raise click.UsageError("give --opa or --opa-file, not both")
    if is_issuer and chain_issuer_token:
        raise click.UsageError(
            "a chain issuer cannot issue another chain issuer: give --issuer or --chain-issuer-token"
        )
    if (is_issuer or chain_issuer_token) and not public_key:
        raise click.UsageError("tokens in a chain of trust need --public-key")


def _permissions(flags: dict[str, bool], *, is_issuer: bool) -> list[str]:
    """Return permissions as ``choria jwt client`` grants them: none for an issuer; some flags imply the fleet."""
    granted = {name for name, enabled in flags.items() if enabled}
    if is_issuer:
        granted -= _NOT_FOR_ISSUERS
    if granted & {"signed_fleet_management", "provisioner"}:
        granted.add("fleet_management")
    return sorted(granted)


def _policy(path: str) -> str:
    try:
        return read_input(path, MAX_TOKEN_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the policy is not UTF-8") from error
