"""A configuration with everything loaded that a worker needs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from broker_auth.policy.model import Policy
from broker_auth.settings.model import ServingSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that was accepted as a whole, with its keys loaded: all that a worker needs."""

    settings: ServingSettings
    policy: Policy
    contexts: dict[str, ssl.SSLContext | None]
    reader: ssl.SSLContext | None = None  # for the zone's reader at the fleet, where it is served apart
