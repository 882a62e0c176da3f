"""What all tests share: how property tests explore, and RSA keys that take long to generate.

Property tests explore the same examples each time, or with ``make fuzz`` others each time, and many. A suite that
fails at random is not believed. What ``make fuzz`` finds becomes an ``@example`` or a test of its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

from broker_auth.deploy import devpki
from broker_auth.deploy.pki import Algorithm, PrivateKey, private_key

_POOL = 6  # more than the RSA certificates of one deployment, so that no two of them share a key

settings.register_profile(
    "test", max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
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
