"""``broker-auth token keys``."""

from __future__ import annotations

from pathlib import Path

import click

from broker_auth.cli import options, output
from broker_auth.cli.keyfiles import read_signing_key
from broker_auth.errors import InputError
from broker_auth.files.writing import refuse_existing, write_private
from broker_auth.tokens.issue import SigningKey, new_seed, signing_key_from_seed

_EPILOG = options.example(
    "broker-auth token keys issuer.seed issuer.public",
    "broker-auth token keys issuer.seed --show-public",
)


@click.command("keys", epilog=_EPILOG)
@click.argument("seed", metavar="SEED", type=options.FILE)
@click.argument("public", metavar="[PUBLIC]", type=options.FILE, required=False)
@click.option("--show-public", is_flag=True, help="Show the public key of an existing seed instead.")
@options.force_option
@options.json_option
def keys_command(seed: Path, public: Path | None, *, show_public: bool, force: bool, as_json: bool) -> None:
    """Create an Ed25519 key: its SEED and, if named, its PUBLIC key, as hex in Choria's format."""
    if show_public:
        if public is not None:
            raise click.UsageError("--show-public does not write files; remove PUBLIC")
        _show(seed, _require_ed25519(read_signing_key(str(seed))), as_json=as_json)
        return
    if public is not None and public.resolve() == seed.resolve():
        raise click.UsageError("SEED and PUBLIC are the same file")
    if not force:
        for path in filter(None, (seed, public)):
            refuse_existing(path)
    secret = new_seed()
    public_hex = _require_ed25519(signing_key_from_seed(secret, str(seed)))
    write_private(seed, secret.reveal().encode(), force=force)  # without a line end, as Choria reads it
    if public is not None:
        write_private(public, public_hex.encode(), force=force)
    _show(seed, public_hex, as_json=as_json)


def _require_ed25519(key: SigningKey) -> str:
    if key.public_hex is None:
        raise InputError(f"{key.name}: a {key.algorithm} key, not an Ed25519 seed")
    return key.public_hex


def _show(seed: Path, public_hex: str, *, as_json: bool) -> None:
    if as_json:
        output.document({"public_key": public_hex, "seed_file": str(seed)})
    else:
        output.note(f"Public key: {public_hex}")
        output.note(f"Seed: {seed}")
