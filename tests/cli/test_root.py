"""Guarantees of every command: help, one-line errors, exit codes, only JSON on standard output."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from broker_auth import __version__
from broker_auth.cli.lazy import Lazy
from broker_auth.cli.root import COMMANDS, CONFIG_COMMANDS, TOKEN_COMMANDS
from broker_auth.errors import ConfigurationError, InputError
from tests.cli.running import Run, run, run_unchecked, spawn

# Read from the tables, so that a command that cannot be imported fails only its own test.
EVERY_COMMAND = [
    *((name,) for name in COMMANDS),
    *(("config", name) for name in CONFIG_COMMANDS),
    *(("token", name) for name in TOKEN_COMMANDS),
]


def test_documented_commands_exist() -> None:
    promised = {("token", name) for name in ("provisioning", "server", "client", "keys", "check", "inspect")}
    assert promised | {("config", "check"), ("explain",)} <= set(EVERY_COMMAND)


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    shown = run(*command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith(f"Usage: broker-auth {' '.join(command)} ")
    assert "Example:\n" in shown.out
    assert f"  broker-auth {command[0]}" in shown.out.partition("Example:")[2]
    assert run(*command, "-h") == shown


@pytest.mark.parametrize("group", [(), ("token",), ("config",)], ids=str)
def test_groups_list_their_commands_without_importing_them(group: tuple[str, ...]) -> None:
    shown = run(*group, "--help")
    members = [command[-1] for command in EVERY_COMMAND if command[:-1] == group]
    assert members
    for name in members:
        assert f"\n  {name} " in shown.out
    bare = run(*group)
    assert (bare.code, bare.out, bare.err) == (2, "", shown.out)


def test_help_explains_shell_completion() -> None:
    shown = run("--help")
    for shell in ("bash", "zsh", "fish"):
        assert f"_BROKER_AUTH_COMPLETE={shell}_source broker-auth" in shown.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("broker-auth tok", "token"),
        ("broker-auth token ins", "inspect"),
        ("broker-auth token keys --sh", "--show-public"),
    ],
)
def test_shell_completion(words: str, expected: str) -> None:
    env = {"_BROKER_AUTH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    result = run(env=env)
    assert result.out.splitlines() == [f"plain,{expected}"]


@pytest.mark.parametrize(
    "words",
    [
        "token check",
        "token inspect",
        "token keys",
        "token client",
        "token client out.jwt up=alice",
        "token server out.jwt node1.example.net node1.public",
        "token provisioning",
        "config check",
        "config render",
        "explain",
        "replay",
        "why node1.example.net --audit",
        "why node1.example.net -c",
        "doctor --config",
    ],
)
def test_shell_completes_files(words: str) -> None:
    env = {"_BROKER_AUTH_COMPLETE": "bash_complete", "COMP_WORDS": f"broker-auth {words} "}
    assert run(env={**env, "COMP_CWORD": str(len(words.split()) + 1)}).out.splitlines() == ["file,"]


@pytest.mark.parametrize(
    "command",
    [
        ("why", "node1", "-c", "missing.conf"),
        ("why", "node1"),
        ("report", "conns", "--config", "missing.conf"),
        ("report", "waiting"),
        ("streams", "apply", "-c", "missing.conf"),
        ("token", "inspect", "missing.jwt"),
        ("explain", "missing.json", "-c", "missing.conf"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_early_error_is_a_json_document_too(command: tuple[str, ...]) -> None:
    failed = run(*command, "--json")
    assert failed.code in (1, 2)
    assert failed.json == {"errors": [failed.error]}


def test_error_after_a_document_adds_none() -> None:
    checked = run("config", "check", "missing.conf", "--json")
    assert checked.code == 1
    assert checked.json["valid"] is False


def test_version() -> None:
    assert run("--version") == Run(0, f"broker-auth {__version__}\n", "")


USAGE_ERRORS: list[tuple[tuple[str, ...], str]] = [
    (("tokne",), "no such command 'tokne'; did you mean 'token'?"),
    (("token", "chekc"), "no such command 'chekc'; did you mean 'check'?"),
    (("token", "xyz"), "no such command 'xyz'; see 'broker-auth token --help'"),
    (("--nonsense",), "No such option"),
    (("token", "check"), "Missing argument 'FILE|-...'"),
    (("token", "check", "f"), "one of --config, --signer and --issuer"),
    (("token", "check", "f", "--signer", "0" * 64, "--issuer", "a=b"), "one of --config, --signer and --issuer"),
    (("token", "check", "f", "--issuer", "a"), "--issuer 'a' is not NAME=KEY"),
    (("token", "check", "f", "--issuer", "=b"), "--issuer '=b' is not NAME=KEY"),
    (("token", "check", "f", "--signer", "x", "--purpose", "node"), "'node' is not one of"),
    (("token", "check", "f", "--signer", "x", "--min-validity", "soon"), "'soon' is not a duration"),
    (("token", "provisioning", "o", "k", "--token", "t"), "give --urls or --srv"),
    (("token", "provisioning", "o", "k", "--token", "t", "--urls", "nats://b:4222", "--srv", "d"), "give either"),
    (("token", "provisioning", "o", "k", "--urls", "u:4222", "--validity", "1x"), "not a duration"),
    (("token", "provisioning", "-", "k", "--urls", "u:4222", "--json"), "with --json the token must go to a file"),
    (("token", "server", "f", "i", "p"), "Missing argument 'SIGNING-KEY'"),
    (("token", "server", "f", "i", "p", "k", "--governor"), "--governor requires --stream-user"),
    (("token", "client", "f", "i"), "Missing argument 'SIGNING-KEY'"),
    (("token", "client", "f", "i", "k", "--issuer"), "need --public-key"),
    (("token", "client", "f", "i", "k", "--chain-issuer-token", "t"), "need --public-key"),
    (("token", "client", "f", "i", "k", "--issuer", "--chain-issuer-token", "t"), "cannot issue another chain issuer"),
    (("token", "client", "f", "i", "k", "--opa", "x", "--opa-file", "y"), "--opa or --opa-file"),
    (("token", "keys"), "Missing argument 'SEED'"),
    (("token", "keys", "a", "a"), "SEED and PUBLIC are the same file"),
    (("token", "keys", "a", "b", "--show-public"), "--show-public does not write files"),
    (("token", "inspect"), "Missing argument 'FILE|-'"),
    (("explain", "request.json"), "Missing option '--config'"),
    (("explain", "request.json", "--config", "c", "--at", "noon"), "write a time like"),
    (("explain", "request.json", "--config", "c", "--at", "2030-01-01T00:00:00"), "write a time like"),
    (("config", "check"), "name the configuration: FILE"),
]


@pytest.mark.parametrize(("words", "says"), USAGE_ERRORS, ids=lambda value: " ".join(value)[:40])
def test_wrong_usage_is_one_line_and_code_2(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        result = run(*words)
    assert result.code == 2
    assert says in result.error
    assert result.out == "" or result.json == {"errors": [result.error]}
    assert list(tmp_path.iterdir()) == []


FAILURES: list[tuple[tuple[str, ...], str]] = [
    (("token", "check", "none", "--signer", "0" * 64), "none does not exist"),
    (("token", "check", ".", "--signer", "0" * 64), ". is a directory"),
    (("token", "check", "none", "--signer", "zz"), "--signer 'zz' is neither a file nor 64 hex characters"),
    (("token", "check", "none", "--issuer", "choria=zz"), "choria: an Ed25519 public key is 64 hex characters"),
    (("token", "check", "none", "--config", "none.conf"), "none.conf: does not exist"),
    (("token", "inspect", "none"), "none does not exist"),
    (("token", "provisioning", "o", "none", "--token", "t", "--urls", "u:4222"), "none does not exist"),
    (("token", "server", "o", "i", "0" * 64, "none"), "none does not exist"),
    (("token", "client", "o", "i", "none"), "none does not exist"),
    (("token", "keys", "none", "--show-public"), "none does not exist"),
    (("token", "keys", "no/such/directory"), "no/such/directory cannot be written (No such file or directory)"),
    (("explain", "none", "--config", "none.conf"), "none does not exist"),
    (("config", "check", "none.conf"), "none.conf: does not exist"),
]


@pytest.mark.parametrize(("words", "says"), FAILURES, ids=lambda value: " ".join(value)[:40])
def test_failures_are_one_line_and_code_1(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        result = run(*words)
    assert (result.code, result.out) == (1, "")
    assert says in result.error
    assert list(tmp_path.iterdir()) == []


# --- Handling of errors


def raising(error: BaseException) -> Run:
    """Return the result of a command that raises this error."""

    def fail() -> None:
        raise error

    return running(fail)


def running(function: Callable[[], object]) -> Run:
    """Return the result of a command that calls this function."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Lazy, "load", lambda _: click.Command("explain", callback=function))
        return run_unchecked("explain")


def test_own_errors_are_one_line() -> None:
    assert raising(InputError("key.pem: is\nodd \x1b[31m")) == Run(1, "", "Error: key.pem: is odd \\x1b[31m\n")


def test_every_problem_of_a_configuration_gets_a_line() -> None:
    problems = ["a.conf:1: x: is odd; write y", "a.conf:2: z: is odd; write y"]
    assert raising(ConfigurationError(problems)) == Run(1, "", "".join(f"Error: {line}\n" for line in problems))


def test_system_errors_name_the_file() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/var/x")
    assert raising(error) == Run(1, "", "Error: /var/x: No space left on device\n")


def test_broken_pipe_is_silent() -> None:
    assert raising(BrokenPipeError(errno.EPIPE, "Broken pipe")) == Run(1, "", "")


def test_interrupt_exits_with_130() -> None:
    interrupted = raising(KeyboardInterrupt())
    assert (interrupted.code, interrupted.err.strip()) == (130, "")


def test_unexpected_error_is_one_line_without_its_message() -> None:
    result = raising(RuntimeError("s3cret-access-token"))
    assert result.code == 1
    assert result.error.startswith("internal error: tests.cli.test_root:")
    assert result.error.endswith("(RuntimeError); run with BROKER_AUTH_DEBUG=1 for the traceback, and report it")


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_AUTH_DEBUG", "1")
    result = raising(RuntimeError("odd"))
    assert "Traceback (most recent call last):" in result.err
    assert result.err.splitlines()[-1].startswith("Error: internal error: ")


def test_exit_codes_are_passed_through_but_results_are_not() -> None:
    def exits() -> None:
        click.get_current_context().exit(3)

    assert running(exits).code == 3
    assert running(lambda: "result").code == 0


# --- As a process


def test_program_runs_as_a_module() -> None:
    assert spawn("--version") == Run(0, f"broker-auth {__version__}\n", "")
    assert spawn("token", "chekc") == Run(2, "", "Error: no such command 'chekc'; did you mean 'check'?\n")


def test_closed_pipe_prints_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "broker_auth", "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.stderr == b""


def test_ctrl_c_while_reading_prints_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "broker_auth", "token", "inspect", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr
        for line in process.stderr:  # the last import before it reads
            if line.rstrip().endswith(b" broker_auth.tokens.show"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        process.wait(timeout=60)
    assert process.returncode == 130
    assert b"Error" not in rest


def test_token_check_imports_only_what_it_needs() -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "import broker_auth.cli.token_check, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = set(listed.stdout.split())
    assert "broker_auth.tokens.verify" in loaded
    unwanted = {
        "rich",
        "nats",
        "jinja2",
        "prometheus_client",
        "uvloop",
        "broker_auth.tokens.issue",
        "broker_auth.tokens.signing",
    }
    unwanted |= {"broker_auth.policy.decide", "broker_auth.settings.load", "broker_auth.certificates.verifier"}
    assert loaded & unwanted == set()
