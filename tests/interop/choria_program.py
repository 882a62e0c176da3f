"""The ``choria`` program, run as users run it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker_auth.sandbox.lifetime import dies_with_parent

STARTUP_SECONDS: Final = 30
_ANSWER: Final = re.compile(r"^(\S+) +time=\d+ ms", re.MULTILINE)


class ChoriaRefused(Exception):
    """The program ended with an error; the message is its output."""


@dataclass(frozen=True, slots=True)
class Choria:
    """A runner of ``choria`` in a separate directory, independent of the machine's configuration."""

    program: Path
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """The minimal environment, without the machine's configuration."""
        return {"HOME": str(self.directory), "PATH": "/usr/bin:/bin", "USER": "interop"}

    def run(self, *arguments: str) -> str:
        """Run a command and return its output.

        Raises:
            ChoriaRefused: it exits with another status than 0.
        """
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.directory,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise ChoriaRefused(f"{done.stdout}{done.stderr}")
        return done.stdout

    def claims(self, token: Path, public: Path) -> dict[str, Any]:
        """Return the claims of a token that verifies.

        Raises:
            ChoriaRefused: it does not.
        """
        self.run("jwt", "view", str(token), str(public))  # --json would skip the verification
        claims: dict[str, Any] = json.loads(self.run("jwt", "view", str(token), "--json"))
        return claims

    def check(self, token: Path, *options: str) -> str:
        """Return the output of ``choria jwt check`` for an acceptable token.

        Raises:
            ChoriaRefused: it is not acceptable.
        """
        return self.run("jwt", "check", str(token), *options)


def server(
    choria: Choria, log: Path, configuration: Path | None = None
) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    """Start ``choria server run``, which connects by itself; without a configuration it waits to be provisioned."""
    return running(choria, log, "server", "run", "--config", str(configuration or choria.directory / "server.conf"))


@asynccontextmanager
async def running(choria: Choria, log: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command until the end of the block."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *dies_with_parent([str(choria.program), *arguments]),
            cwd=choria.directory,
            env=choria.environment,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


def found_by_ping(output: str) -> list[str]:
    """Return the identities that answered ``choria ping``; the output also contains log lines."""
    return _ANSWER.findall(output)
