"""Receives the connection counts that nats-servers report: for the policy's gauge, and for metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from nats.aio.msg import Msg

from broker_auth.callout.connection import BrokerConnection
from broker_auth.callout.extra_subscriptions import ExtraSubscription
from broker_auth.callout.waiting import WaitingNodes
from broker_auth.natsio.account_connections import connections_subject, read_report
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.settings.model import Settings

_NOT_SHOWN: Final = (
    "does not report its connections, so the metric broker_auth_waiting_nodes is missing; render its configuration "
    "again (broker-auth config render) and restart nats-server"
)
_NOT_ALLOWED: Final = (
    "does not let the service count connections, so nodes can use the places of provisioners; render its "
    "configuration again (broker-auth config render) and restart nats-server"
)


class ConnectionReports:
    """Connection counts of brokers where nodes connect.

    Attributes:
        waiting: the nodes that wait, for metrics.
    """

    def __init__(self, settings: Settings, gauge: ConnectionGauge) -> None:
        """Create the state without subscribing."""
        self._gauge = gauge
        self._provisioning = settings.accounts.provisioning
        self._shared = {broker.name for broker in settings.brokers if broker.takes_nodes_and_provisioners}
        self._edges = {broker.name for broker in settings.brokers if broker.takes_nodes} - self._shared
        self.waiting = WaitingNodes(self._shared | self._edges, time.monotonic())

    @property
    def extra_subscriptions(self) -> Sequence[ExtraSubscription]:
        """The subscriptions, without a queue group, because each worker needs the counts."""
        subscriptions = []
        for account, brokers, refused in (
            (self._provisioning, self._shared, _NOT_ALLOWED),
            (CALLOUT_ACCOUNT, self._shared, _NOT_ALLOWED),
            (self._provisioning, self._edges, _NOT_SHOWN),
        ):
            if brokers:
                subject = connections_subject(account)
                subscriptions.append(
                    ExtraSubscription(
                        subject,
                        self._on_report,
                        brokers=brokers,
                        if_refused=refused,
                        on_refused=self.waiting.refuse,
                    )
                )
        return subscriptions

    async def _on_report(self, connection: BrokerConnection, message: Msg) -> None:
        report = read_report(message.data)
        if report is None:
            return
        server, count, now = report.server, report.connections, time.time()
        if report.account == self._provisioning:
            self.waiting.report(connection.name, server.name, report.clients, time.monotonic())
        if connection.name not in self._shared:  # nats-server itself limits the nodes of an edge
            if report.account == self._provisioning and report.by_leaf is not None:
                self.waiting.ask(connection.name, server.name, report.by_leaf)
            return
        if report.account == self._provisioning:
            self._gauge.report_nodes(connection.name, server.id, server.name, count, now)
        elif report.account == CALLOUT_ACCOUNT:
            self._gauge.report_services(connection.name, server.id, server.name, count, now)
