"""Tests with a nats-server that verifies a client certificate if one is given: opt-in, because no release can.

The variable ``NATS_SERVER_MIXED`` names such a server. Tests with the mark ``mixed_server`` run with it in place of the
installed one, and are skipped without it.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from broker_auth.deploy.natsbinary import OPTIONAL_CERTIFICATES
from broker_auth.deploy.plan import Topology

VARIABLE: Final = "NATS_SERVER_MIXED"
SKIPPED: Final = f"set {VARIABLE} to a nats-server that knows {OPTIONAL_CERTIFICATES}"
MARK: Final = "mixed_server"
MIXED: Final = pytest.param(Topology.MIXED, marks=pytest.mark.mixed_server)
TOPOLOGIES: Final = [MIXED if item is Topology.MIXED else pytest.param(item) for item in Topology]


def server() -> str | None:
    """Return the path of the server that the variable names."""
    return os.environ.get(VARIABLE)
