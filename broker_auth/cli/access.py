"""Options by which commands get into brokers, and what they print of brokers they did not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from broker_auth.cli.files import read_file, read_secret_option
from broker_auth.cli.options import FILE
from broker_auth.errors import InputError
from broker_auth.files.ownership import configured_by
from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, public_nkey
from broker_auth.operate.access import Access, Proof
from broker_auth.secret import Secret
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.settings.seeds import read_seed
from broker_auth.tokens.jws import MAX_TOKEN_BYTES

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


def access_options(function: _F) -> _F:
    """``--break-glass``, ``--token`` with ``--seed``, ``--certificate`` with ``--key``."""
    for option in reversed(
        (
            click.option(
                "--break-glass",
                type=FILE,
                multiple=True,
                help="Seed of a zone's break-glass user: works while no service runs. Once for each zone.",
            ),
            click.option("--token", type=FILE, help="Client token to show, where a certificate is not enough."),
            click.option("--seed", type=FILE, help="Ed25519 seed that belongs to the token."),
            click.option("--certificate", type=FILE, help="Certificate to show instead of the configured one."),
            click.option("--key", type=FILE, help="Key of that certificate."),
        )
    ):
        function = option(function)
    return function


def load_settings(config: Path) -> Settings:
    """The configuration with everything a connection needs.

    Raises:
        ConfigurationError: with every problem found.
    """
    return load(config, os.environ, serving=True, remote=True)


def make_access(settings: Settings, *, break_glass: Sequence[Path] = (), **given: Path | None) -> Access:
    """How to get into the brokers, by the options given.

    Raises:
        InputError: a file cannot be used.
        click.UsageError: half of a pair of options.
    """
    for one, other in (("token", "seed"), ("certificate", "key")):
        if (given[one] is None) != (given[other] is None):
            raise click.UsageError(f"--{one} and --{other} go together; give both or neither")
    return Access(
        settings=settings,
        break_glass=tuple(_break_glass(path, settings) for path in break_glass),
        proof=_proof(given["token"], given["seed"]),
        certificate=given["certificate"],
        key=given["key"],
    )


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of what happens on the network, with libraries' own remarks kept off standard error."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it remarks on every connection a server ends
    return asyncio.run(work)


def _break_glass(path: Path, settings: Settings) -> Secret:
    try:
        with configured_by(path):  # who names it to root on the command line has chosen it
            seed = read_seed(path, NkeyKind.USER)
    except BadValue as error:
        raise InputError(f"--break-glass: {error.what}; {error.remedy}") from error
    known = {zone.break_glass_nkey for zone in settings.zones}
    if public_nkey(seed.reveal()) not in known:
        raise InputError(
            f"--break-glass: {path} is not the seed of any break_glass_nkey in {settings.path}; give the seed of one"
        )
    return seed


def _proof(token: Path | None, seed: Path | None) -> Proof | None:
    if token is None or seed is None:
        return None
    text = read_file(token, MAX_TOKEN_BYTES).data.decode("ascii", "replace").strip()
    try:
        raw = bytes.fromhex(read_secret_option(f"file:{seed}").reveal().strip())
    except ValueError:
        raw = b""  # the error would quote the seed
    if len(raw) != 32:
        raise InputError(f"--seed: {seed} does not hold an Ed25519 seed of 64 hex characters")
    return Proof(token=Secret(text), seed=raw)
