"""The last step of commands that create a token: sign it, save it, print a summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker_auth.cli import output
from broker_auth.cli.files import read_input
from broker_auth.errors import InputError
from broker_auth.files.writing import refuse_existing, write_private
from broker_auth.policy import permissions
from broker_auth.tokens.chain import DEFAULT_MAX_AGE, claimed_issuer
from broker_auth.tokens.claims import Claims as TypedClaims
from broker_auth.tokens.claims import ClientClaims, Purpose, ServerClaims, typed_claims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.issue import Claims, SigningKey, issue_under
from broker_auth.tokens.jws import MAX_TOKEN_BYTES
from broker_auth.tokens.show import chain_issuer_line

STANDARD_OUTPUT: Final = "-"

_F = TypeVar("_F", bound=Callable[..., Any])


def chain_option(function: _F) -> _F:
    """Add ``--chain-issuer-token``."""
    return click.option(
        "--chain-issuer-token",
        metavar="FILE",
        help="Issue as the chain issuer with this token; SIGNING-KEY is then its seed.",
    )(function)


def chained(claims: Claims, chain_issuer_token: str | None, key: SigningKey) -> Claims:
    """Return the claims, under a chain issuer if its token is given.

    Raises:
        InputError: the chain issuer's token cannot be used.
    """
    if chain_issuer_token is None:
        return claims
    data = read_input(chain_issuer_token, MAX_TOKEN_BYTES)
    return issue_under(claims, data.decode("ascii", "replace"), key)


def refuse_early(path: str, *, force: bool, as_json: bool) -> None:
    """Check the output options before reading a key.

    Raises:
        InputError: the file exists and must not be overwritten.
        click.UsageError: both token and JSON would go to standard output.
    """
    if path == STANDARD_OUTPUT:
        if as_json:
            raise click.UsageError("with --json the token must go to a file, not to standard output")
    elif not force:
        refuse_existing(Path(path))


def save(path: str, claims: Claims, key: SigningKey, *, force: bool, as_json: bool) -> None:
    """Sign the claims and write the token to a private file, or to standard output for ``-``.

    Raises:
        InputError: a broker would refuse the token, or the file cannot be written.
    """
    _require_usable(claims)
    token = key.sign(claims)
    if path == STANDARD_OUTPUT:
        click.echo(token)
        return
    write_private(Path(path), token.encode(), force=force)  # without a line end, as Choria reads it
    expires, now = output.rfc3339(claims["exp"]), time.time()
    issuer = claimed_issuer(_typed(claims), DEFAULT_MAX_AGE)
    if issuer is not None and issuer.ends < claims["exp"]:
        ends = output.rfc3339(issuer.ends)
        output.warning(f"brokers deny it from {ends} on (plugin.broker_auth.chain_issuer_max_age, by default 366d)")
    if as_json:
        made = {"file": path, "purpose": claims["purpose"], "token_id": claims["jti"], "expires": expires}
        if issuer is not None:
            made["chain_issuer_ends"] = output.rfc3339(issuer.ends)
        output.document(made)
    else:
        output.note(f"Saved token to {path}; it expires {expires}")
        if issuer is not None:
            output.note(
                f"{chain_issuer_line(issuer, now).strip()} by a broker with default settings, like all tokens it issues"
            )
        output.note(f"Show it with: broker-auth token inspect {path}")


def _typed(claims: Claims) -> TypedClaims:
    return typed_claims(claims, Purpose(claims["purpose"]))


def _require_usable(claims: Claims) -> None:
    """Refuse claims that cannot be part of a subject, because a broker would deny the connection."""
    try:
        typed = _typed(claims)
        if isinstance(typed, ServerClaims):
            permissions.server(typed)
        elif isinstance(typed, ClientClaims):
            permissions.client(typed)
    except TokenRejected as rejected:
        raise InputError(f"a token with these claims would be refused: {rejected.detail}") from rejected
