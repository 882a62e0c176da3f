"""``broker-auth token check``. Starts fast: settings are imported only for ``--config``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from broker_auth.cli import options, output
from broker_auth.cli.files import read_file, read_input
from broker_auth.cli.token_formats import (
    FORMATS,
    NAGIOS_UNKNOWN,
    UNREADABLE,
    Checked,
    exit_code,
    nagios_failure,
    show,
)
from broker_auth.errors import BrokerAuthError, InputError
from broker_auth.tokens.check import CheckResult, Expectations, Mismatch, Requirement, check_token
from broker_auth.tokens.claims import Purpose
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import MAX_TOKEN_BYTES
from broker_auth.tokens.jws import show as show_text
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES, VerificationKey, ed25519_key, load_verification_key
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys, Verified
from broker_auth.wording import counted

PURPOSES = {"provisioning": Purpose.PROVISIONING, "server": Purpose.SERVER, "client": Purpose.CLIENT}
MAX_INPUT = 2 * MAX_TOKEN_BYTES  # a token with generous surrounding white space

_EPILOG = options.example(
    "broker-auth token check provisioning.jwt --config /etc/broker-auth/broker.conf",
    "broker-auth token check provisioning.jwt --signer signer.pem --min-validity 30d",
    "cat client.jwt | broker-auth token check - --issuer choria=$(cat issuer.public) --json",
    "broker-auth token check server.jwt --signer signer.pem --may-publish a.reply.b --query permissions.streams",
    "broker-auth token check node1.jwt --signer signer.pem --name node1.example.net --address 192.0.2.7",
    "broker-auth token check /etc/choria/*.jwt --signer signer.pem --min-validity 14d --format nagios",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """The keys with which a token is checked, and the strictness."""

    keys: TrustedKeys
    leeway: float = 0.0
    allow_non_expiring: bool = False
    counts_nodes: bool = True


@click.command("check", epilog=_EPILOG)
@click.argument("files", metavar="FILE|-...", nargs=-1, required=True, type=options.FILE_OR_DASH)
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
@click.option("--name", help="Require that a node with this connection name may wait by it.")
@click.option("--address", help="Require that a node may connect from this IP address.")
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
@click.option(
    "--may-publish",
    multiple=True,
    metavar="SUBJECT",
    help="Require that it may publish to this subject; may be repeated.",
)
@click.option(
    "--may-subscribe",
    multiple=True,
    metavar="SUBJECT",
    help="Require that it may subscribe to this subject; may be repeated.",
)
@click.option(
    "--query",
    "queries",
    multiple=True,
    metavar="EXPRESSION",
    help="Require that this JMESPath expression over its claims is true; may be repeated.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Output format; text by default, json with --json.")
@options.json_option
@click.pass_context
def check_command(
    ctx: click.Context,
    files: tuple[str, ...],
    config: Path | None,
    signers: tuple[str, ...],
    issuers: tuple[str, ...],
    purpose: str | None,
    identity: str | None,
    name: str | None,
    address: str | None,
    min_validity: float | None,
    max_validity: float | None,
    *,
    chain_issuer: bool | None,
    allow_non_expiring: bool,
    may_publish: tuple[str, ...],
    may_subscribe: tuple[str, ...],
    queries: tuple[str, ...],
    form: str | None,
    as_json: bool,
) -> None:
    """Check signature, trust chain and times of tokens; - is standard input.

    Exit code 0: accepted. 1: rejected; the reason is on standard error, or in the JSON. 2: wrong
    usage. 3: valid, but it expires sooner than --min-validity. With several files the worst counts; with --format
    nagios 0, 1, 2 and 3 mean OK, WARNING (expires soon), CRITICAL (rejected) and UNKNOWN. A connection with a client or
    server token must also sign the server's nonce, which this command cannot check.
    """
    if sum(map(bool, (config, signers, issuers))) != 1:
        raise click.UsageError("give the trusted keys by one of --config, --signer and --issuer")
    if name is not None or address is not None:
        purpose = purpose or "provisioning"
    form = form or ("json" if as_json else "text")
    try:
        trust = _configured(config) if config else _Trust(keys=_keys(signers, issuers))
        requirements = (
            *_permission_requirements(may_publish, may_subscribe),
            *(_query_requirement(query) for query in queries),
            *_node_requirements(name, address),
            *(() if trust.counts_nodes else (_no_number,)),
        )
    except BrokerAuthError as error:
        if form != "nagios":
            raise
        output.note(nagios_failure(error))
        ctx.exit(NAGIOS_UNKNOWN)
    expected = Expectations(
        purpose=PURPOSES[purpose] if purpose else None,
        identity=identity,
        min_validity=min_validity,
        max_validity=max_validity,
        chain_issuer=chain_issuer,
        requirements=requirements,
    )
    now, verifier = time.time(), TokenVerifier(trust.keys)
    checked = []
    for file in dict.fromkeys(files):  # two samples of one metric with the same labels spoil Prometheus's file
        try:
            raw = read_input(file, MAX_INPUT).decode("ascii", "replace")  # verification reports text that is not ASCII
        except InputError as error:
            if form == "text" and len(files) == 1:
                raise
            checked.append(Checked(file, CheckResult(valid=False, code=UNREADABLE, reason=f"{UNREADABLE}: {error}")))
            continue
        result = check_token(
            raw,
            verifier,
            now,
            leeway=trust.leeway,
            allow_non_expiring=allow_non_expiring or trust.allow_non_expiring,
            expected=expected,
        )
        checked.append(Checked(file, result))
    show(checked, form, now)
    ctx.exit(exit_code(checked, form))


def _permission_requirements(publish: Sequence[str], subscribe: Sequence[str]) -> Iterator[Requirement]:
    if not (publish or subscribe):
        return  # the policy takes time to import
    from broker_auth.policy.permissions import granted
    from broker_auth.policy.subjects import is_subject

    for subject in (*publish, *subscribe):
        if not is_subject(subject):
            raise click.UsageError(f"{subject!r} is not a subject")

    def may(subject: str, *, publishing: bool) -> Requirement:
        def judge(token: Verified, _claims: Mapping[str, Any]) -> Mismatch | None:
            verb = "publish" if publishing else "subscribe"
            try:
                permissions = granted(token.claims)
            except TokenRejected as rejected:
                return Mismatch(rejected.fault, rejected.detail)
            allowed = (permissions.pub if publishing else permissions.sub).allows(subject)
            return None if allowed else Mismatch(f"may_{verb}", f"it may not {verb} to {subject}")

        return judge

    yield from (may(subject, publishing=True) for subject in publish)
    yield from (may(subject, publishing=False) for subject in subscribe)


def _node_requirements(name: str | None, address: str | None) -> Iterator[Requirement]:
    """Yield the requirements that rule 3 has of a waiting node, with the same codes."""
    if name is None and address is None:
        return  # the policy takes time to import
    from broker_auth.policy.decision import DenyCode
    from broker_auth.policy.model import HostList
    from broker_auth.policy.subjects import is_node_name

    def named(token: Verified, _claims: Mapping[str, Any]) -> Mismatch | None:
        if name is None or token.bounds is None or token.bounds.allow_name(name):
            return None
        return Mismatch(DenyCode.NODE_NAME_NOT_ALLOWED, f"it is not for nodes with the name {show_text(name)}")

    def located(token: Verified, _claims: Mapping[str, Any]) -> Mismatch | None:
        networks = token.bounds.networks if token.bounds else ()
        if address is None or not networks or address in HostList(networks=networks):
            return None
        return Mismatch(DenyCode.ADDRESS_NOT_ALLOWED, f"it is not for nodes from {show_text(address)}")

    if name is not None and not is_node_name(name):
        raise click.UsageError(f"--name {name!r} cannot be a node's name: no wildcard, white space or empty part")
    try:
        ip_address(address or "127.0.0.1")
    except ValueError as error:
        raise click.UsageError(f"--address {address!r} is not an IP address") from error
    yield from (named, located)


def _no_number(token: Verified, _claims: Mapping[str, Any]) -> Mismatch | None:
    """Refuse a token for a number of nodes, as rule 3 does where hosts do not count them."""
    if token.bounds is None or token.bounds.max_nodes is None:
        return None
    from broker_auth.policy.decision import DenyCode

    what = "which no host counts: plugin.broker_auth.revocations_bucket is not set"
    return Mismatch(DenyCode.NODES_NOT_COUNTED, f"it is for {counted(token.bounds.max_nodes, 'node')}, {what}")


def _query_requirement(text: str) -> Requirement:
    try:
        import jmespath
    except ImportError as error:
        raise InputError("--query needs JMESPath; run: pip install 'broker-auth[query]'") from error
    try:
        expression = jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as error:
        raise click.UsageError(f"--query {text!r} is not a JMESPath expression: {error}") from error

    def judge(_token: Verified, claims: Mapping[str, Any]) -> Mismatch | None:
        try:
            value = expression.search(claims)
        except jmespath.exceptions.JMESPathError as error:
            return Mismatch("query", f"{text}: {error}")
        return None if value is True else Mismatch("query", f"{text} is not true")

    return judge


def _configured(path: Path) -> _Trust:
    from broker_auth.settings.load import load
    from broker_auth.settings.policy import trusted_keys

    settings = load(path, os.environ, serving=False)
    return _Trust(
        keys=trusted_keys(settings),
        leeway=settings.token_leeway,
        allow_non_expiring=settings.provisioning.allow_non_expiring_tokens,
        counts_nodes=settings.revocations_bucket,
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
