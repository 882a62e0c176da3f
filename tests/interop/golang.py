"""The Go program in this directory: built, and queried with one JSON document per line in each direction."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

SOURCE: Final = Path(__file__).parent / "go"
_BUILD_SECONDS: Final = 300


class GoMissing(Exception):
    """Go or a module that the program needs is not available; the message names it."""


class GoRefused(Exception):
    """The Go program answered with an error, which is the message."""


def build(target: Path) -> Path:
    """Build the program into ``target`` and return it.

    Raises:
        GoMissing: Go is missing, or its modules can be neither found nor downloaded.
        AssertionError: the build fails.
    """
    go = shutil.which("go")
    if go is None:
        raise GoMissing("there is no 'go' on the path")
    modules = _run(go, "mod", "download")
    if modules.returncode != 0:
        raise GoMissing(f"Go's modules are not available: {_last_line(modules.stderr)}")
    program = target / "interop"
    built = _run(go, "build", "-o", str(program), ".")
    assert built.returncode == 0, built.stderr
    return program


class Go:
    """The running program. Use as a context manager; it ends with its standard input."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [self._program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)

    def ask(self, operation: str, **request: Any) -> Any:
        """Return the answer of the Go program.

        Raises:
            GoRefused: the program answered with an error.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"operation": operation, **request}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise GoRefused(answer["error"])
        return answer["ok"]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    return subprocess.run(
        command, cwd=SOURCE, env=environment, check=False, capture_output=True, text=True, timeout=_BUILD_SECONDS
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1]
