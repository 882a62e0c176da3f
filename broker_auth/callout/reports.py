"""Updates the policy's gauge from the connection counts that nats-servers report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from nats.aio.msg import Msg

from broker_auth.callout.connection import BrokerConnection, ExtraSubscription
from broker_auth.natsio.account_connections import connections_subject, read_report
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.settings.model import Settings

_NOT_ALLOWED: Final = (
    "does not let the service count connections, so nodes can use the places of provisioners; render its "
    "configuration again (broker-auth config render) and restart nats-server"
)


class ConnectionReports:
    """Connection counts of brokers where nodes and provisioners share the provisioning account."""

    def __init__(self, settings: Settings, gauge: ConnectionGauge) -> None:
        """Create the state without subscribing."""
        self._gauge = gauge
        self._provisioning = settings.accounts.provisioning
        self._brokers = [broker.name for broker in settings.brokers if broker.takes_nodes_and_provisioners]

    @property
    def extra_subscriptions(self) -> Sequence[ExtraSubscription]:
        """The subscriptions, without a queue group, because each worker needs the counts."""
        if not self._brokers:
            return ()
        return [
            ExtraSubscription(
                connections_subject(account), self._on_report, brokers=self._brokers, if_refused=_NOT_ALLOWED
            )
            for account in (self._provisioning, CALLOUT_ACCOUNT)
        ]

    async def _on_report(self, connection: BrokerConnection, message: Msg) -> None:
        report = read_report(message.data)
        if report is None:
            return
        server, count, now = report.server, report.connections, time.time()
        if report.account == self._provisioning:
            self._gauge.report_nodes(connection.name, server.id, server.name, count, now)
        elif report.account == CALLOUT_ACCOUNT:
            self._gauge.report_services(connection.name, server.id, server.name, count, now)
