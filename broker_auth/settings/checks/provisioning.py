"""Provisioning: whether it is enabled, for whom, and the limits of waiting nodes."""

from __future__ import annotations

from typing import Final

from broker_auth.settings.checks.fleet_auth import fleet_is_static
from broker_auth.settings.checks.passwords import rotating
from broker_auth.settings.checks.trust import TrustSettings, issuer_mode
from broker_auth.settings.keys import choria, own
from broker_auth.settings.model import ProvisioningSettings
from broker_auth.settings.source import Source

_DISABLED: Final = "provisioning is not enabled, and every unverified connection without another credential is denied"


def provisioning(source: Source, trusted: TrustSettings) -> ProvisioningSettings:
    """Return how nodes are provisioned; ``trusted`` are the keys and CAs that the configuration names."""
    with_issuers = issuer_mode(source)
    if not source.get(own.REQUIRE_MTLS) and not with_issuers:
        source.problem(
            own.REQUIRE_MTLS,
            "can only be false with organization issuers: otherwise the password alone would be sufficient",
            f"remove it, or set {choria.ISSUER_NAMES.name}",
        )
    _warn_of_half(source, with_issuers=with_issuers)
    has_signer = with_issuers or bool(trusted.signers)
    return ProvisioningSettings(
        enabled=source.is_set(choria.CLIENT_PASSWORD) and has_signer,
        signers=trusted.signers,
        client_passwords=rotating(source, choria.CLIENT_PASSWORD, own.PREVIOUS_CLIENT_PASSWORD),
        provisioner_without_token=source.get(choria.PROVISIONER_WITHOUT_TOKEN),
        provisioner_identities=source.get(own.IDENTITIES),
        require_mtls=source.get(own.REQUIRE_MTLS),
        isolate_nodes=source.get(own.ISOLATE_NODES),
        allow_non_expiring_tokens=source.get(own.ALLOW_NON_EXPIRING),
        max_subscriptions=source.get(own.MAX_SUBSCRIPTIONS),
        max_payload=source.get(own.MAX_PAYLOAD_BYTES),
        max_connections=source.get(own.MAX_CONNECTIONS),
    )


def _warn_of_half(source: Source, *, with_issuers: bool) -> None:
    """Warn about missing keys for provisioning, and the consequence (docs/policy.md#two-modes)."""
    signer, password = source.is_set(choria.SIGNER_CERT), source.is_set(choria.CLIENT_PASSWORD)
    if not password and (with_issuers or signer):
        source.warning(choria.CLIENT_PASSWORD, f"is not set: {_DISABLED}", "set it to enable provisioning")
    elif password and not signer and not with_issuers:
        source.warning(choria.SIGNER_CERT, f"is not set: {_DISABLED}", "set it to enable provisioning")
    elif password and not (with_issuers or source.is_set(own.IDENTITIES) or fleet_is_static(source)):
        source.warning(
            own.IDENTITIES,
            "is not set, so every verified certificate may be the provisioner, given the password",
            "name the provisioners' certificates",
        )
