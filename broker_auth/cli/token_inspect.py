"""``broker-auth token inspect``."""

from __future__ import annotations

import time

import click

from broker_auth.audit.unsigned import parse_unsigned
from broker_auth.cli import options, output
from broker_auth.cli.files import read_input
from broker_auth.errors import InputError
from broker_auth.tokens.bounds import Bounds, bounds_of
from broker_auth.tokens.chain import DEFAULT_MAX_AGE, claimed_issuer
from broker_auth.tokens.claims import Claims, Purpose, purpose_of, typed_claims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import MAX_TOKEN_BYTES, Jws
from broker_auth.tokens.show import bounds_lines, chain_issuer_line, lines, masked

_EPILOG = options.example("broker-auth token inspect provisioning.jwt", "broker-auth token inspect - --json < a.jwt")
MAX_INPUT = 2 * MAX_TOKEN_BYTES


@click.command("inspect", epilog=_EPILOG)
@click.argument("file", metavar="FILE|-", type=options.FILE_OR_DASH)
@options.json_option
@click.pass_context
def inspect_command(ctx: click.Context, file: str, *, as_json: bool) -> None:
    """Show the claims of a token WITHOUT verifying it; - is standard input.

    Anybody can create a token with any claims: use 'token check' to verify it. Secrets are masked. A token
    without its signature, as in audit records, is shown too. Exit code 1: it has expired.
    """
    try:
        jws = parse_unsigned(read_input(file, MAX_INPUT).decode("ascii", "replace"))
    except TokenRejected as rejected:
        raise InputError(f"not a token: {rejected}") from rejected
    purpose, claims, bounds, fault = _typed(jws)
    now = time.time()
    expired = claims is not None and claims.expires is not None and claims.expires <= now
    issuer = None if claims is None else claimed_issuer(claims, DEFAULT_MAX_AGE)
    if as_json:
        output.document(
            {
                "verified": False,
                "algorithm": jws.algorithm,
                "purpose": purpose,
                "claims": masked(jws.claims),
                "expires": output.rfc3339(claims.expires if claims else None),
                "fault": fault,
                "bounds": bounds and bounds.claim(),
            }
        )
        ctx.exit(int(expired))
    output.note("NOT VERIFIED: anybody could have written this; verify it with 'broker-auth token check'")
    if fault:
        output.note(f"It would be rejected: {fault}")
    output.note(f"{'Algorithm':>22}: {jws.algorithm}")
    for line in lines(jws.claims, now):
        output.note(line)
    for line in bounds_lines(bounds):
        output.note(line)
    if issuer is not None:
        output.note(f"{chain_issuer_line(issuer, now)} by a broker with default settings")
    ctx.exit(int(expired))


def _typed(jws: Jws) -> tuple[str | None, Claims | None, Bounds | None, str | None]:
    """Return the purpose, the typed claims, the bounds, and the problem with the claims, if any."""
    purpose = claims = None
    try:
        purpose = purpose_of(jws.claims)
        claims = typed_claims(jws.claims, purpose)
        bounds = bounds_of(jws.claims) if purpose is Purpose.PROVISIONING else None
    except TokenRejected as rejected:
        return str(purpose) if purpose else None, claims, None, str(rejected)
    return str(purpose), claims, bounds, None
