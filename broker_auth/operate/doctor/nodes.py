"""Waiting nodes that no provisioner reaches, because their connection does not have their name.

Choria's protocol 1 names a connection after the certificate of the user that runs the server, and the server subscribes
under its identity. With isolation nats-server then refuses this subscription, and the node waits without an error that
anybody notices (docs/policy.md#provisioning-node).
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context
from broker_auth.operate.doctor.system import SystemServer
from broker_auth.policy.permissions import NODE_SUBJECT
from broker_auth.printable import printable
from broker_auth.settings.model import BrokerSettings

_EXAMINED: Final = 1024  # connections; nats-server's answer has at most so large a page
_NAMED: Final = 5
_AGENTS: Final = "provisioning.broadcast.agent."
_REMEDY: Final = (
    "run Choria as root on these nodes, use protocol 2, or set plugin.broker_auth.provisioning.isolate_nodes = false"
)


class _Node(msgspec.Struct):
    name: str = ""
    ip: str = ""
    subscriptions_list: list[str] = []

    @property
    def waits(self) -> bool:
        """Whether it listens to provisioners' requests to all nodes, as every Choria server does."""
        return any(subject.startswith(_AGENTS) for subject in self.subscriptions_list)

    @property
    def is_reachable(self) -> bool:
        """Whether it is subscribed to the requests to a single node."""
        return any(subject.startswith(NODE_SUBJECT) for subject in self.subscriptions_list)


async def examine_nodes(
    server: SystemServer, context: Context, broker: BrokerSettings, findings: BrokerFindings
) -> None:
    """Find waiting nodes of a server that are not subscribed under the name of their connection."""
    settings = context.settings
    if not (broker.takes_nodes and settings.provisioning.isolate_nodes):
        return
    options = {"acc": settings.accounts.provisioning, "auth": True, "subscriptions": True, "limit": _EXAMINED}
    rows = (await server.data("CONNZ", options)).get("connections") or []
    waiting = [node for node in msgspec.convert(rows, list[_Node], strict=False) if node.waits]
    lost = [node for node in waiting if not node.is_reachable]
    if not lost:
        findings.ok(FindingCode.NODES_REACHABLE, "every waiting node is subscribed under the name of its connection")
        return
    names = ", ".join(f"{printable(node.name, 64)} from {printable(node.ip, 64)}" for node in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    findings.warning(
        FindingCode.NODES_UNREACHABLE,
        f"{len(lost)} of {len(waiting)} waiting nodes are not subscribed under the name of their connection, so no "
        f"provisioner reaches them: {names}{more}",
        _REMEDY,
    )
