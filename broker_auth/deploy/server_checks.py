"""The settings without which the configuration of a nats-server cannot be rendered, or would let strangers in."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker_auth.deploy.leaf_links import leaf_files
from broker_auth.errors import InputError
from broker_auth.natsio.subjects import CALLOUT_ACCOUNT, reader_account
from broker_auth.settings.model import BrokerSettings, Role, Settings

_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_server(settings: Settings, broker: BrokerSettings) -> None:
    """Check the settings that the role of a nats-server needs; all missing keys are reported at once.

    Raises:
        InputError: one is missing, or cannot be used.
    """
    _Checks(settings, broker).run()


def is_address(host: str) -> bool:
    """Return whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Checks:
    settings: Settings
    broker: BrokerSettings

    def run(self) -> None:
        if missing := self._missing():
            prefix = f"plugin.broker_auth.broker.{self.broker.name}.server."
            keys = ", ".join(prefix + key for key in missing)
            raise InputError(f"{self.settings.path}: a server of role {self.broker.role} is incomplete; set {keys}")
        self._static()
        self._accounts()
        self._routes()
        self._monitor()

    def _missing(self) -> list[str]:
        server, role = self.broker.server, self.broker.role
        needs: list[tuple[str, object]] = [
            ("listen", server.listen),
            ("tls.certificate", server.tls.certificate),
            ("tls.key", server.tls.key),
        ]
        if role.verifies_clients or server.cluster_listen:
            needs.append(("tls.ca", server.tls.ca))
        if role.is_outpost:
            needs.append(("leaf.remotes", server.leaf_remotes))
        if server.cluster_listen:
            needs += [("cluster.name", server.cluster_name), ("cluster.routes", server.cluster_routes)]
        if role.is_outpost or server.leaf_listen:
            leaf = leaf_files(self.broker)
            needs += [("leaf.tls.ca", leaf.ca), ("leaf.tls.certificate", leaf.certificate)]
            needs.append(("leaf.tls.key", leaf.key))
        if server.leaf_listen:
            needs.append(("leaf.user", server.leaf_users or server.leaf_gates or server.leaf_branches))
        return [key for key, value in needs if not value]

    def _static(self) -> None:
        """Refuse a default user on a listener that asks for no certificate, which would let anybody in."""
        broker = self.broker
        if self.settings.zone(broker.zone).served:
            return
        if broker.server.leaf_gates:
            raise InputError(
                f"{self.settings.path}: broker {broker.name} has gates, so it cannot decide by itself; set "
                "plugin.broker_auth.fleet.auth to callout"
            )
        if broker.role is not Role.FLEET or broker.server.websocket_listen:
            raise InputError(
                f"{self.settings.path}: broker {broker.name} has a listener without client certificates, so it cannot "
                "decide by itself; set plugin.broker_auth.fleet.auth to callout"
            )

    def _accounts(self) -> None:
        names = self.settings.accounts
        for name in (names.fleet, names.provisioning, names.system):
            if not _ACCOUNT.fullmatch(name) or name in (CALLOUT_ACCOUNT, *map(reader_account, self.settings.readers)):
                raise InputError(
                    f"{self.settings.path}: {name!r} is not a valid account name; use letters, digits, '_', '-' "
                    f"and '.', and not {CALLOUT_ACCOUNT} or {reader_account('…')}, which are reserved for the service"
                )

    def _routes(self) -> None:
        """Refuse addresses: members are distinguished from fleet members by the DNS names in their certificates."""
        addresses = [url for url in self.broker.server.cluster_routes if is_address(urlsplit(url).hostname or "")]
        if self.broker.server.cluster_listen and addresses:
            raise InputError(
                f"{self.settings.path}: plugin.broker_auth.broker.{self.broker.name}.server.cluster.routes: "
                f"{', '.join(addresses)}: nats-server identifies cluster members by the DNS names in their "
                "certificates; use host names"
            )

    def _monitor(self) -> None:
        listen = self.broker.server.monitor_listen
        if listen is None:
            return
        host = listen.rpartition(":")[0].strip("[]")
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise InputError(
                f"{self.settings.path}: plugin.broker_auth.broker.{self.broker.name}.server.monitor_listen: "
                f"{listen!r} is not a loopback address, and the monitor needs no authentication; use 127.0.0.1:PORT"
            )
