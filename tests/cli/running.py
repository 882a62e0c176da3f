"""Helpers that run commands, and check the guarantees of all commands in every run."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from click.testing import CliRunner

from broker_auth.cli import main

TOKEN_SECRET: Final = "s3cret-access-token"
PASSWORD_SECRET: Final = "hunter2-broker-password"
SECRETS: Final = (TOKEN_SECRET, PASSWORD_SECRET)

# Older versions of click need this argument to separate the streams; newer versions do not accept it.
_MIXED: Final = "mix_stderr" in inspect.signature(CliRunner).parameters
_OPTIONS: Final[dict[str, Any]] = {"mix_stderr": False} if _MIXED else {}


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be exactly one JSON document."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Standard error, which must be exactly one ``Error:`` line; without the prefix."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: "), self.err
        return lines[0].removeprefix("Error: ")


def run(*args: object, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run ``broker-auth ARGS``; no output may hold a secret or a traceback."""
    return _checked(run_unchecked(*args, stdin=stdin, env=env))


def run_unchecked(*args: object, stdin: str | bytes | None = None, env: Mapping[str, str] | None = None) -> Run:
    """Run ``broker-auth ARGS`` without checking the output."""
    result = CliRunner(**_OPTIONS).invoke(
        main, [str(argument) for argument in args], input=stdin, env=dict(env or {}), prog_name="broker-auth"
    )
    return Run(result.exit_code, result.stdout, result.stderr)


def spawn(*args: object, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Run:
    """Run ``python -m broker_auth ARGS`` as a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "broker_auth", *map(str, args)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=60,
        check=False,
    )
    return _checked(Run(done.returncode, done.stdout.decode(), done.stderr.decode()))


def _checked(done: Run) -> Run:
    for secret in SECRETS:
        assert secret not in done.out + done.err
    assert "Traceback" not in done.out + done.err
    return done
