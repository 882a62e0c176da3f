"""Fixtures and settings of all tests: property tests, RSA keys, which tests may start nats-servers, coverage.

A suite that fails at random is not trusted: property tests try the same examples each time, or with ``make fuzz`` many
others. A failure found by ``make fuzz`` becomes an ``@example`` or a new test.
"""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import tempfile
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

from broker_auth.deploy import devpki
from broker_auth.deploy.natsbinary import BINARY_VARIABLE, find_binary
from broker_auth.deploy.pki import Algorithm, PrivateKey, private_key
from tests import mixed

settings.register_profile(
    "test", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("EXAMPLES", "5000")),
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("test")

_POOL = 6  # more than the RSA certificates of one deployment, so that no two of them share a key
ROOT: Final = Path(__file__).parents[1]

# Takes the place of nats-server, in the processes that a test starts, too. With -t nats-server starts nothing.
_REFUSING: Final = """\
#!/bin/sh
[ "$1" = -t ] && exec {binary} "$@"
echo "nats-server: a test that starts servers has to be marked e2e" >&2
exit 1
"""
_PROGRAM = pytest.StashKey[Path]()

_COVERAGE_VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"  # has the processes that a test starts measured
# Tracing costs half of the CPU time again before Python 3.14. These tests run code that others cover:
UNMEASURED: Final = (
    # many examples through a function that tables test
    "tests/certificates/test_pem.py",
    "tests/policy/test_properties.py",
    "tests/settings/test_formats.py",
    # a service whose speed under load, or when processes fail, is the point
    "tests/bench",
    "tests/callout/test_availability.py",
    "tests/callout/test_hostile_broker.py",
    "tests/callout/test_hosts.py",
    "tests/callout/test_stolen_edge.py",
    # a running service or nats-server as strangers see it
    "tests/deploy/test_cluster.py",
    "tests/deploy/test_fresh.py",
    "tests/deploy/test_topology.py",
    "tests/docs/test_quickstart.py",
    "tests/e2e/test_admission.py",
    "tests/e2e/test_certificates.py",
    "tests/e2e/test_contexts.py",
    "tests/e2e/test_examples.py",
    "tests/e2e/test_full.py",
    "tests/e2e/test_onboarding.py",
    "tests/e2e/test_permissions.py",
    "tests/interop",
    "tests/nats_server",
    "tests/packaging",
)
# Here only this process is measured. The service beside it does what it does in tests/daemon and tests/e2e.
PROCESSES_UNMEASURED: Final = (
    "tests/callout",
    "tests/deploy",
    "tests/natsio",
    "tests/operate",
)


def pytest_configure(config: pytest.Config) -> None:
    """Write the program that stands in for nats-server, and let the processes that tests start end on SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # inherited from a shell that runs this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = tempfile.TemporaryDirectory(prefix="unmarked-")
    config.add_cleanup(directory.cleanup)
    program = config.stash[_PROGRAM] = Path(directory.name) / "nats-server"
    program.write_text(_REFUSING.format(binary=shlex.quote(str(find_binary()))))
    program.chmod(0o700)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files so that those that start servers, and wait for them, run beside those that only compute."""
    files = dict.fromkeys(item.path for item in items)
    servers = {item.path for item in items if item.get_closest_marker("e2e") is not None}
    groups = [path for path in files if path in servers], [path for path in files if path not in servers]
    place = {path: number / len(group) for group in groups for number, path in enumerate(group)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test, with its fixtures, under the environment that its marks and its place ask for."""
    unmeasured = _is_in(item.path, UNMEASURED)
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker(mixed.MARK) is not None and (server := mixed.server()):
            patch.setenv(BINARY_VARIABLE, server)
        elif item.get_closest_marker("e2e") is None:
            patch.setenv(BINARY_VARIABLE, str(item.config.stash[_PROGRAM]))
        if unmeasured or _is_in(item.path, PROCESSES_UNMEASURED):
            patch.delenv(_COVERAGE_VARIABLE, raising=False)
        coverage = Coverage.current() if unmeasured else None
        if coverage is None:
            return (yield)
        coverage.stop()
        try:
            return (yield)
        finally:
            coverage.start()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests of an optional server that is not on this machine."""
    if item.get_closest_marker(mixed.MARK) is not None and not mixed.server():
        pytest.skip(mixed.SKIPPED)


def _is_in(path: Path, places: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / place) for place in places)


@pytest.fixture(scope="session", autouse=True)
def reused_rsa_keys() -> Iterator[None]:
    """Give the certificates of ``init --dev-pki`` RSA keys of a pool: generating one takes a tenth of a second."""
    numbers = itertools.count()

    @cache
    def pooled(_: int) -> PrivateKey:
        return private_key("rsa")

    def reused(algorithm: Algorithm) -> PrivateKey:
        return pooled(next(numbers) % _POOL) if algorithm == "rsa" else private_key(algorithm)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devpki, "private_key", reused)
        yield
