"""Policies with everything enabled; a test changes one field with :func:`changed`."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from broker_auth.policy.model import HostList, IdentityPatterns, Policy, Provisioning, SystemUser
from broker_auth.secret import Secret
from broker_auth.tokens.keys import VerificationKey
from broker_auth.tokens.verify import TokenVerifier, TrustedKeys
from tests.builders.peers import PROVISIONER_NAME, verifier
from tests.builders.tokens import CLIENT_SIGNER, ORG, ORGANIZATION, SERVER_SIGNER, provisioning_signer

PASSWORD: Final = "provisioner password"
SYSTEM_USER: Final = "admin"
SYSTEM_PASSWORD: Final = "system password"


def x509_policy(**changes: Any) -> Policy:
    """Return a policy without organization issuers: signers for each kind of token; verified peers are members."""
    keys = TrustedKeys(
        issuers={},
        provisioning=(provisioning_signer().verifies,),
        client=(CLIENT_SIGNER.verifies,),
        server=(SERVER_SIGNER.verifies,),
    )
    return replace(_policy(keys), **changes)


def issuer_policy(**changes: Any) -> Policy:
    """Return a policy with the organization issuer :data:`ORG` of ``choria``, and an RSA signer for provisioning."""
    keys = issuer_keys({ORGANIZATION: ORG.verifies})
    return replace(_policy(keys), issuer_mode=True, pub_sub=True, **changes)


def issuer_keys(issuers: dict[str, VerificationKey]) -> TrustedKeys:
    """Return the trusted keys with these issuers."""
    return TrustedKeys(issuers=issuers, provisioning=(provisioning_signer().verifies,))


def changed(policy: Policy, **provisioning: Any) -> Policy:
    """Return ``policy`` with fields of its :class:`Provisioning` changed."""
    return replace(policy, provisioning=replace(policy.provisioning, **provisioning))


def hosts(*entries: str) -> HostList:
    """Return the list for ``client_hosts``."""
    return HostList(networks=tuple(ip_network(entry) for entry in entries))


def _policy(keys: TrustedKeys) -> Policy:
    return Policy(
        tokens=TokenVerifier(keys),
        peers=verifier(),
        provisioning=Provisioning(
            enabled=True,
            passwords=(Secret(PASSWORD),),
            identities=IdentityPatterns(literals=frozenset({PROVISIONER_NAME})),
        ),
        system=SystemUser(user=SYSTEM_USER, passwords=(Secret(SYSTEM_PASSWORD),)),
    )
