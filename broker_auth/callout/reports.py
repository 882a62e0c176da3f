"""Keeps the gauge of the policy up to date with what nats-servers report of connections."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from nats.aio.msg import Msg

from broker_auth.callout.connection import BrokerLink, Interest
from broker_auth.natsio.account_connections import connections_subject, read_report
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.settings.model import Settings

_NOT_ALLOWED: Final = (
    "does not let the service count connections, so nodes can take the places of provisioners: render its "
    "configuration again (broker-auth config render) and restart nats-server"
)


class ConnectionReports:
    """Subscribes where nodes and provisioners share the connections of the provisioning account."""

    def __init__(self, settings: Settings, gauge: ConnectionGauge) -> None:
        """Subscribe to nothing yet."""
        self._gauge = gauge
        self._provisioning = settings.accounts.provisioning
        self._brokers = [broker.name for broker in settings.brokers if broker.takes_nodes_and_provisioners]

    @property
    def interests(self) -> Sequence[Interest]:
        """What to subscribe to, without a queue group because each worker counts by itself."""
        if not self._brokers:
            return ()
        return [
            Interest(connections_subject(account), self._on_report, brokers=self._brokers, if_refused=_NOT_ALLOWED)
            for account in (self._provisioning, CALLOUT_ACCOUNT)
        ]

    async def _on_report(self, link: BrokerLink, message: Msg) -> None:
        report = read_report(message.data)
        if report is None:
            return
        server, count, now = report.server, report.connections, time.time()
        if report.account == self._provisioning:
            self._gauge.report_nodes(link.name, server.id, server.name, count, now)
        elif report.account == CALLOUT_ACCOUNT:
            self._gauge.report_services(link.name, server.id, server.name, count, now)
