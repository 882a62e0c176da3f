"""Building the policy from the settings: keys are parsed and patterns compiled once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from broker_auth.certificates.certificate import Certificate
from broker_auth.certificates.pemfile import MAX_BYTES
from broker_auth.certificates.verifier import PeerVerifier, load_roots
from broker_auth.files.reading import read
from broker_auth.policy.crls import CrlSet
from broker_auth.policy.gauge import ConnectionGauge
from broker_auth.policy.model import HostList, Policy, Provisioning, Serves, SystemUser
from broker_auth.policy.revocation_index import NO_REVOCATIONS, Revocations
from broker_auth.settings.checks.identities import identity_patterns
from broker_auth.settings.crls import read_crls
from broker_auth.settings.model import FLEET_ZONE, KeySource, Settings
from broker_auth.settings.revocations import read_revocations
from broker_auth.tokens.keys import MAX_KEY_FILE_BYTES, VerificationKey, ed25519_key, load_verification_key
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys


def build_policy(settings: Settings, zone: str = FLEET_ZONE, *, cached_peers: int | None = None) -> Policy:
    """Return the policy for the brokers of one zone, with empty caches.

    Args:
        settings: the configuration.
        zone: the zone.
        cached_peers: how many verified peers are cached; as many as the service caches by default.

    Raises:
        InputError: a key or certificate file has become unusable since the settings were checked.
    """
    serves = settings.serves(zone)
    # Chains are read for the fleet only (docs/policy.md#at-an-edge, docs/policy.md#at-a-gate).
    roots = _roots(settings.client_ca) if serves is Serves.FLEET else []
    revocations = NO_REVOCATIONS if settings.revocations is None else _revocations(settings.revocations)
    if roots and settings.client_crl:
        crls = read_crls(settings.client_crl, roots)
        revocations = revocations.with_crls(CrlSet(crls, deny_expired=settings.deny_expired_crl))
    system = None
    if settings.system_user is not None:
        system = SystemUser(user=settings.system_user, passwords=settings.system_passwords)
    return Policy(
        tokens=TokenVerifier(trusted_keys(settings)),
        peers=PeerVerifier(roots, cached_peers),
        serves=serves,
        accounts=settings.accounts,
        issuer_mode=settings.issuer_mode,
        provisioning=_provisioning(settings, settings.zone(zone).workers),
        system=system,
        client_hosts=HostList(networks=settings.client_hosts),
        deny_servers=settings.deny_server_connections,
        pub_sub=settings.pub_sub_ca,
        token_leeway=settings.token_leeway,
        revocations=revocations,
        session_grace=settings.session_grace,
    )


def _revocations(path: Path) -> Revocations:
    return read_revocations(path).index


def trusted_keys(settings: Settings) -> TrustedKeys:
    """Return the keys whose tokens are accepted.

    Raises:
        InputError: a key cannot be read.
    """
    return TrustedKeys(
        issuers={issuer.name: load_key(issuer) for issuer in settings.issuers},
        provisioning=_keys(settings.provisioning.signers),
        client=_keys(settings.client_signers),
        server=_keys(settings.server_signers),
        chain_issuer_max_age=settings.chain_issuer_max_age,
    )


def load_key(source: KeySource) -> VerificationKey:
    """Load the key of a source.

    Raises:
        InputError: the source cannot be read or does not hold a key.
    """
    if source.path is None:
        return ed25519_key(source.hex or "", source.name)
    return load_verification_key(read(source.path, MAX_KEY_FILE_BYTES).data, source.name)


def _keys(sources: Iterable[KeySource]) -> tuple[VerificationKey, ...]:
    return tuple(load_key(source) for source in sources)


def _roots(files: Iterable[Path]) -> list[Certificate]:
    return [root for file in files for root in load_roots(read(file, MAX_BYTES).data, str(file))]


def _provisioning(settings: Settings, workers: int) -> Provisioning:
    provisioning = settings.provisioning
    return Provisioning(
        counts_nodes=settings.revocations_bucket,
        enabled=provisioning.enabled,
        passwords=provisioning.client_passwords,
        identities=identity_patterns(provisioning.provisioner_identities),
        require_mtls=provisioning.require_mtls,
        provisioner_without_token=provisioning.provisioner_without_token,
        isolate_nodes=provisioning.isolate_nodes,
        allow_non_expiring_tokens=provisioning.allow_non_expiring_tokens,
        gauge=ConnectionGauge(provisioning.max_connections, workers),
    )
