"""Options with which commands log in to brokers, and output about brokers that refused."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Container, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from broker_auth.cli import output
from broker_auth.cli.files import read_file, read_secret_option
from broker_auth.cli.options import FILE
from broker_auth.errors import ConfigurationError, InputError
from broker_auth.files.ownership import configured_by
from broker_auth.files.reading import BadValue
from broker_auth.natsio.nkey import NkeyKind, public_nkey
from broker_auth.operate.access import Access
from broker_auth.operate.kick import read_kick_seed
from broker_auth.operate.logins import Proof
from broker_auth.secret import Secret
from broker_auth.settings.load import check, load
from broker_auth.settings.model import Settings
from broker_auth.settings.seeds import read_seed
from broker_auth.tokens.jws import MAX_TOKEN_BYTES

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


def access_options(function: _F) -> _F:
    """Add ``--break-glass``, ``--token`` with ``--seed``, ``--certificate`` with ``--key``."""
    for option in reversed(
        (
            click.option(
                "--break-glass",
                type=FILE,
                multiple=True,
                help="Seed of a zone's break-glass user, which works without the service. Repeat for each zone.",
            ),
            click.option("--token", type=FILE, help="Client token to present if a certificate is not sufficient."),
            click.option("--seed", type=FILE, help="Ed25519 seed of the token."),
            click.option("--certificate", type=FILE, help="Certificate to present instead of the configured one."),
            click.option("--key", type=FILE, help="Key of that certificate."),
        )
    ):
        function = option(function)
    return function


def kick_option(function: _F) -> _F:
    """Add ``--kick-seed``."""
    return click.option(
        "--kick-seed",
        type=FILE,
        multiple=True,
        help="Seed of a zone's kick user, to list and end its connections; by default the configured file, if it is "
        "there. Repeat for each zone.",
    )(function)


def load_settings(config: Path, zone: str | None = None) -> Settings:
    """Load the configuration with everything that a connection needs.

    Args:
        config: the configuration file.
        zone: the only zone whose keys are on this host; None if the fleet's are.

    Raises:
        ConfigurationError: the configuration has problems; lists all of them.
    """
    if zone is None:
        return load(config, os.environ, serving=True, remote=True)
    report = check(config, os.environ, zone=zone)
    if report.settings is None:
        raise ConfigurationError(report.problems)
    return report.settings


def make_access(
    settings: Settings,
    *,
    break_glass: Sequence[Path] = (),
    kick: Sequence[Secret] = (),
    **credentials: Path | None,
) -> Access:
    """Return the credentials for the brokers, from the options.

    Raises:
        InputError: a file cannot be used.
        click.UsageError: an option lacks its counterpart.
    """
    for one, other in (("token", "seed"), ("certificate", "key")):
        if (credentials[one] is None) != (credentials[other] is None):
            raise click.UsageError(f"--{one} and --{other} go together; give both or neither")
    return Access(
        settings=settings,
        break_glass=tuple(_break_glass(path, settings) for path in break_glass),
        kick=tuple(kick),
        proof=_proof(credentials["token"], credentials["seed"]),
        certificate=credentials["certificate"],
        key=credentials["key"],
    )


def make_ender_access(
    config: Path, *, kick_seed: Sequence[Path], zone: str | None = None, **credentials: Any
) -> Access:
    """Return the credentials to list and end connections, from the options of such a command.

    Args:
        config: the configuration file.
        kick_seed: files with seeds of kick users.
        zone: see :func:`load_settings`.
        credentials: see :func:`make_access`.

    Raises:
        ConfigurationError: the configuration has problems; lists all of them.
        InputError: a file cannot be used.
        click.UsageError: an option lacks its counterpart.
    """
    settings = load_settings(config, zone)
    return make_access(settings, kick=_kick_seeds(settings, kick_seed), **credentials)


def _kick_seeds(settings: Settings, paths: Sequence[Path]) -> tuple[Secret, ...]:
    """Return the seeds of kick users: the given ones first, then those in configured files that can be read.

    Raises:
        InputError: a given file cannot be used.
    """
    known = {zone.kick_nkey for zone in settings.zones}
    seeds = [_seed(path, settings, "--kick-seed", "kick_nkey", known) for path in paths]
    for zone in settings.zones:
        try:
            seed = read_kick_seed(zone)
        except BadValue as error:
            output.warning(f"{error.what}; {error.remedy}")
            continue
        if seed is not None:
            seeds.append(seed)
    return tuple(seeds)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine and return its result, keeping the libraries' log lines off standard error."""
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it logs every connection that a server ends
    return asyncio.run(work)


def _break_glass(path: Path, settings: Settings) -> Secret:
    known = {zone.break_glass_nkey for zone in settings.zones}
    return _seed(path, settings, "--break-glass", "break_glass_nkey", known)


def _seed(path: Path, settings: Settings, option: str, key: str, known: Container[str | None]) -> Secret:
    """Return the seed in a file that an option names, if its public key is configured."""
    try:
        with configured_by(path):  # root chose this file on the command line
            seed = read_seed(path, NkeyKind.USER)
    except BadValue as error:
        raise InputError(f"{option}: {error.what}; {error.remedy}") from error
    if public_nkey(seed.reveal()) not in known:
        raise InputError(f"{option}: {path} is not the seed of any {key} in {settings.path}; give the seed of one")
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
