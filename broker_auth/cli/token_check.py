"""``broker-auth token check``. Starts fast: settings are imported only for ``--config``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from broker_auth.cli import options, output
from broker_auth.cli.files import read_file, read_input
from broker_auth.errors import InputError
from broker_auth.times import short_duration
from broker_auth.tokens.chain import ChainIssuer
from broker_auth.tokens.check import CheckResult, Expectations, check_token
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.jws import MAX_TOKEN_BYTES
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES, VerificationKey, ed25519_key, load_verification_key
from broker_auth.tokens.show import chain_issuer_line, lines
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys

PURPOSES = {"provisioning": Purpose.PROVISIONING, "server": Purpose.SERVER, "client": Purpose.CLIENT}
MAX_INPUT = 2 * MAX_TOKEN_BYTES  # a token with generous surrounding white space

_EPILOG = options.example(
    "broker-auth token check provisioning.jwt --config /etc/broker-auth/broker.conf",
    "broker-auth token check provisioning.jwt --signer signer.pem --min-validity 30d",
    "cat client.jwt | broker-auth token check - --issuer choria=$(cat issuer.public) --json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """The keys with which a token is checked, and the strictness."""

    keys: TrustedKeys
    leeway: float = 0.0
    allow_non_expiring: bool = False


@click.command("check", epilog=_EPILOG)
@click.argument("file", metavar="FILE|-")
@click.option("--config", "-c", type=options.FILE, help="Trust the signers and issuers of this configuration.")
@click.option(
    "--signer",
    "signers",
    multiple=True,
    metavar="KEY",
    help="Trust this key for every kind of token: a PEM certificate or public key, an Ed25519 public key "
    "as a file or 64 hex characters; may be repeated.",
)
@click.option(
    "--issuer",
    "issuers",
    multiple=True,
    metavar="NAME=KEY",
    help="Trust this organization's issuer, including trust chains below it: 64 hex characters or a file; "
    "may be repeated.",
)
@click.option("--purpose", type=click.Choice(list(PURPOSES)), help="Require this kind of token.")
@click.option("--identity", help="Require this server identity or caller id.")
@click.option(
    "--min-validity", "--validity-min", type=options.DURATION, help="Require at least this remaining validity."
)
@click.option(
    "--max-validity", "--validity-max", type=options.DURATION, help="Require at most this remaining validity."
)
@click.option(
    "--chain-issuer/--no-chain-issuer", default=None, help="Require that it may, or may not, issue other tokens."
)
@click.option(
    "--allow-non-expiring",
    is_flag=True,
    help="Accept provisioning tokens that never expire, as the configuration key "
    "plugin.broker_auth.provisioning.allow_non_expiring_tokens does.",
)
@options.json_option
@click.pass_context
def check_command(
    ctx: click.Context,
    file: str,
    config: Path | None,
    signers: tuple[str, ...],
    issuers: tuple[str, ...],
    purpose: str | None,
    identity: str | None,
    min_validity: float | None,
    max_validity: float | None,
    *,
    chain_issuer: bool | None,
    allow_non_expiring: bool,
    as_json: bool,
) -> None:
    """Check a token's signature, trust chain and times; - is standard input.

    Exit code 0: accepted. 1: rejected; the reason is on standard error, or in the JSON. 2: wrong
    usage. A connection with a client or server token must also sign the server's nonce, which this command
    cannot check.
    """
    if sum(map(bool, (config, signers, issuers))) != 1:
        raise click.UsageError("give the trusted keys by one of --config, --signer and --issuer")
    trust = _configured(config) if config else _Trust(keys=_keys(signers, issuers))
    expected = Expectations(
        purpose=PURPOSES[purpose] if purpose else None,
        identity=identity,
        min_validity=min_validity,
        max_validity=max_validity,
        chain_issuer=chain_issuer,
    )
    now = time.time()
    result = check_token(
        _read_token(file),
        TokenVerifier(trust.keys),
        now,
        leeway=trust.leeway,
        allow_non_expiring=allow_non_expiring or trust.allow_non_expiring,
        expected=expected,
    )
    _print(result, now, as_json=as_json)
    ctx.exit(0 if result.valid else 1)


def _read_token(file: str) -> str:
    # Text that is not ASCII is not a token; it is decoded leniently, so that verification reports it.
    return read_input(file, MAX_INPUT).decode("ascii", "replace")


def _configured(path: Path) -> _Trust:
    from broker_auth.settings.load import load
    from broker_auth.settings.policy import trusted_keys

    settings = load(path, os.environ, serving=False)
    return _Trust(
        keys=trusted_keys(settings),
        leeway=settings.token_leeway,
        allow_non_expiring=settings.provisioning.allow_non_expiring_tokens,
    )


def _keys(signers: Sequence[str], issuers: Sequence[str]) -> TrustedKeys:
    if issuers:
        return TrustedKeys(issuers=dict(_issuer(argument) for argument in issuers))
    keys = [_signer(argument) for argument in signers]
    return TrustedKeys(issuers={}, provisioning=keys, client=keys, server=keys)


def _signer(argument: str) -> VerificationKey:
    if Path(argument).is_file():
        return load_verification_key(read_file(Path(argument), MAX_KEY_FILE_BYTES).data, argument)
    try:
        return ed25519_key(argument, f"{argument[:16]}…")
    except InputError as error:
        raise InputError(f"--signer {argument!r} is neither a file nor 64 hex characters") from error


def _issuer(argument: str) -> tuple[str, VerificationKey]:
    name, equals, key = argument.partition("=")
    if not (name and equals and key):
        raise click.UsageError(f"--issuer {argument!r} is not NAME=KEY")
    text = key
    if Path(key).is_file():
        text = read_file(Path(key), MAX_KEY_FILE_BYTES).data.decode("ascii", "replace").strip()
    return name, ed25519_key(text, name)


def _issuer_document(issuer: ChainIssuer | None) -> dict[str, str | None] | None:
    return None if issuer is None else {"token_id": issuer.id, "ends": output.rfc3339(issuer.ends)}


def _print(result: CheckResult, now: float, *, as_json: bool) -> None:
    if as_json:
        output.document(
            {
                "valid": result.valid,
                "reason": result.reason,
                "purpose": result.purpose,
                "signer": result.signer,
                "claims": result.claims,
                "expires": output.rfc3339(result.expires),
                "chain_issuer": _issuer_document(result.chain_issuer),
            }
        )
    elif result.valid:
        ends = "never expires" if result.expires is None else f"expires in {short_duration(result.expires - now, ' ')}"
        output.note(f"accepted: {result.purpose} token signed by {result.signer}, {ends}")
        for line in lines(result.claims or {}, now):
            output.note(line)
        if result.chain_issuer is not None:
            output.note(chain_issuer_line(result.chain_issuer, now))
    else:
        output.error(f"token rejected: {result.reason}")
