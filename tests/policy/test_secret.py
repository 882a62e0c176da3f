"""Passwords: comparison, and never shown."""

from __future__ import annotations

import pytest

from broker_auth.secret import Secret


def test_only_the_secret_itself_matches() -> None:
    secret = Secret("hunter2")
    assert secret.matches("hunter2")
    # enough values that some share a prefix of the digest
    assert not any(secret.matches(f"hunter{number}") for number in range(3, 20_000))
    assert not any(secret.matches(text) for text in ("", "hunter", "hunter22", "Hunter2", "hunter2\0", "\ud800"))


@pytest.mark.parametrize("value", ["", "ünï", "\ud800", "x" * 100_000])
def test_arbitrary_text_can_be_a_secret(value: str) -> None:
    assert Secret(value).matches(value)
    assert not Secret(value).matches(value + "x")
    assert bool(Secret(value)) is bool(value)
    assert Secret(value).reveal() == value


def test_equal_secrets_are_equal() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_secret_is_never_shown() -> None:
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", repr([secret]), "%s" % secret):  # noqa: UP031
        assert "hunter2" not in shown
