"""Keys of the Choria Broker that have no effect here, although they affect admission in Choria.

docs/moving-from-choria.md#keys-without-effect lists these and all others.
"""

from __future__ import annotations

from typing import Final

from broker_auth.settings.problems import shown_key
from broker_auth.settings.source import Source

_NETWORK: Final = "plugin.choria.network."
_OFF: Final = frozenset({"0", "false", "no", "n", "f"})
_WHERE_ON: Final = {
    f"{_NETWORK}gateway_port": "configure gateways in nats-server",
    f"{_NETWORK}leafnode_port": "see docs/topologies.md#branch-networks for leaf nodes of branch networks",
    f"{_NETWORK}websocket_port": "set plugin.broker_auth.broker.<name>.server.websocket.listen",
}
_WHERE_OFF: Final = {
    f"{_NETWORK}client_tls_force_required": "TLS is always required: remove it",
    "plugin.choria.broker_network": "start and stop the nats-servers themselves",
}
CHANGES_ADMISSION: Final = _WHERE_ON | _WHERE_OFF


def warn_of_ignored(source: Source) -> None:
    """Warn about each such key whose value would have an effect in Choria."""
    what = "affects admission in the Choria Broker, and has no effect here"
    for name, remedy in CHANGES_ADMISSION.items():
        entry = source.others.get(name)
        if entry is not None and entry.value and (entry.value.lower() in _OFF) == (name in _WHERE_OFF):
            source.findings.warning(entry.problem(what, remedy))


def choria_ca(source: Source) -> str:
    """Return the source of the CA in Choria's security provider if the configuration names no CA; else empty."""
    provider = source.others.get("plugin.security.provider")
    name = (provider.value or "puppet") if provider else "puppet"
    match name:
        case "puppet":
            directory = source.others.get("plugin.choria.ssldir")
            where = directory.value if directory and directory.value else "`puppet config print ssldir`"
            return f"Choria's provider 'puppet' takes {where}/certs/ca.pem"
        case "certmanager":
            return "Choria's provider 'certmanager' takes ca.crt of the secret that cert-manager made"
        case _:
            return f"Choria's provider {shown_key(name)!r} takes its own"
