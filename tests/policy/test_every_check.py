"""The deciding code cannot skip a check: by no argument, attribute or module."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import broker_auth
from broker_auth.policy.case import Case
from broker_auth.policy.decide import decide, decide_case
from broker_auth.tokens.check import check_token
from broker_auth.tokens.jws import parse
from broker_auth.tokens.verify import TokenVerifier, check_times

PACKAGE = Path(broker_auth.__file__).parent
CORE = [path for part in ("policy", "tokens", "callout") for path in sorted((PACKAGE / part).glob("*.py"))]
WORDS = ("redact", "replay", "unsigned", "unverif", "skip", "insecure", "bypass")
ALLOWED = {
    "NONCE_UNSIGNED",  # a reason to deny
}


def names(tree: ast.AST) -> set[str]:
    """Return every name that code defines or uses, without comments and strings."""
    collected: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.alias(name=name):
                collected.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                collected.add(name)
            case ast.keyword(arg=str(name)):
                collected.add(name)
    return collected - ALLOWED


@pytest.mark.parametrize("path", CORE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_name_mentions_a_skipped_check(path: Path) -> None:
    used = names(ast.parse(path.read_text(encoding="utf-8")))
    assert not [name for name in used if any(word in name.lower() for word in WORDS)]


def test_checking_functions_have_no_option_to_skip() -> None:
    taken = {
        function.__qualname__: list(inspect.signature(function).parameters)
        for function in (
            decide,
            decide_case,
            parse,
            TokenVerifier.examine,
            Case.require_password,
            Case.require_counting,
            Case.require_counted,
            Case.examine_token,
        )
    }
    assert taken == {
        "decide": ["request", "policy", "now", "broker", "counted"],
        "decide_case": ["case"],
        "parse": ["raw"],
        "TokenVerifier.examine": ["self", "raw"],
        "Case.require_password": ["self", "accepted", "code"],
        "Case.require_counting": ["self", "most"],
        "Case.require_counted": ["self", "most"],
        "Case.examine_token": ["self"],
    }


@pytest.mark.parametrize("function", [check_times, check_token])
def test_leniency_is_off_by_default(function: object) -> None:
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
        if parameter.default is not inspect.Parameter.empty
    }
    assert not any(defaults.values())


def test_service_loads_no_module_that_can_skip_a_check() -> None:
    code = (
        "import sys, broker_auth.daemon.serve, broker_auth.daemon.worker, broker_auth.callout.service\n"
        "print([name for name in sys.modules if name.endswith(('.stored', '.explain'))])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
