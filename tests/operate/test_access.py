"""Logins that are not attempted, because another login would take their place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from broker_auth.operate.access import Access
from broker_auth.operate.logins import AccessError
from tests.operate.deployment import EdgeDeployment


async def test_nobody_logs_in_as_the_service_without_its_seed(tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    zones = tuple(dataclasses.replace(zone, nkey_seed=None) for zone in settings.zones)
    access = Access(settings=dataclasses.replace(settings, zones=zones))
    for broker in settings.brokers:
        with pytest.raises(AccessError, match="is not on this machine; run this where the service runs"):
            await access.callout(broker)
