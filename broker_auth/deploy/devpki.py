"""Writes the development PKI of ``init --dev-pki``: CAs and a certificate for each participant.

The edge's leaf certificate has a separate CA: a client certificate of the main CA identifies a fleet member,
and an edge, which untrusted clients connect to, must not be one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.deploy.pki import LOCAL_NAMES, CertificateAuthority, Pair, PrivateKey, signer
from broker_auth.deploy.plan import OwnFiles, Plan, Topology
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.tokens.issue import new_seed, signing_key_from_seed

DIRECTORY = "pki"
LEAF_CA = "leaf-ca"
LEAF_NAME = "edge.leaf.example.net"
SERVICE_NAME = "broker-auth.example.net"
MEMBER_NAME = "member.fleet.example.net"
PROVISIONER_NAME = "provisioner.example.net"
OPERATOR_NAME = "operator.example.net"
ORGANIZATION = "choria"
_SINGLE = Topology.SINGLE


def pair_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of this plan's certificates, each ``pki/NAME.pem`` and ``pki/NAME.key``."""
    if plan.topology is _SINGLE:
        return ("ca", "server")
    edge = ("edge", LEAF_CA, "leaf") if plan.topology is Topology.EDGE else ()
    return ("ca", "server", *edge, "service", "member", "provisioner", "operator", "signer")


def file_names(plan: Plan) -> tuple[str, ...]:
    """Return the paths of all development PKI files of this plan, relative to its directory."""
    pairs = [f"{DIRECTORY}/{name}.{end}" for name in pair_names(plan) for end in ("pem", "key")]
    organization = [f"{DIRECTORY}/issuer.{end}" for end in ("seed", "public")] if plan.topology is _SINGLE else []
    return (*pairs, *organization)


def write(workspace: Workspace, plan: Plan) -> None:
    """Create the missing files. An existing CA signs new certificates.

    Raises:
        InputError: a certificate exists without its key, or a key without its certificate; or another CA
            issued the edge's leaf certificate.
    """
    workspace.make_directory(DIRECTORY)
    authority = CertificateAuthority(_pair(workspace, "ca", lambda: CertificateAuthority.create().pair))
    for name in pair_names(plan)[1:]:
        if name not in (LEAF_CA, "leaf"):
            _pair(workspace, name, _maker(authority, name, (*LOCAL_NAMES, *plan.hosts, plan.edge_host or "localhost")))
    if plan.topology is Topology.EDGE:
        _write_leaf(workspace)
    if plan.topology is _SINGLE:
        seed = workspace.keep_or_write(f"{DIRECTORY}/issuer.seed", _seed, private=True)
        public = signing_key_from_seed(_secret(seed), "issuer").public_hex or ""
        workspace.keep_or_write(f"{DIRECTORY}/issuer.public", public.encode, private=False)


def _write_leaf(workspace: Workspace) -> None:
    authority = CertificateAuthority(
        _pair(workspace, LEAF_CA, lambda: CertificateAuthority.create("broker-auth development leaf CA").pair)
    )
    leaf = _pair(workspace, "leaf", lambda: authority.client(LEAF_NAME))
    try:
        leaf.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        path = workspace.path(f"{DIRECTORY}/leaf.pem")
        raise InputError(
            f"{path} was not issued by the CA {LEAF_CA}.pem beside it, which the fleet verifies edges with; remove "
            f"{path.name} and leaf.key to create them again"
        ) from error


def completed(workspace: Workspace, plan: Plan) -> Plan:
    """Return the plan with the development PKI's files instead of the operator's."""

    def path(name: str, end: str) -> str:
        return f"{DIRECTORY}/{name}.{end}"

    single, edge = plan.topology is _SINGLE, plan.topology is Topology.EDGE
    at = workspace.path
    files = OwnFiles(
        ca=at(path("ca", "pem")),
        server_cert=at(path("server", "pem")),
        server_key=at(path("server", "key")),
        edge_cert=at(path("edge", "pem")) if edge else None,
        edge_key=at(path("edge", "key")) if edge else None,
        leaf_ca=at(path(LEAF_CA, "pem")) if edge else None,
        leaf_cert=at(path("leaf", "pem")) if edge else None,
        leaf_key=at(path("leaf", "key")) if edge else None,
        service_cert=None if single else at(path("service", "pem")),
        service_key=None if single else at(path("service", "key")),
    )
    if single:
        public = at(path("issuer", "public")).read_text(encoding="ascii").strip()
        return dataclasses.replace(plan, files=files, issuers=((ORGANIZATION, public),))
    provisioners = tuple(plan.provisioners) or (PROVISIONER_NAME,)
    return dataclasses.replace(
        plan, files=files, signer_cert=(str(at(path("signer", "pem"))),), provisioners=provisioners
    )


def _maker(authority: CertificateAuthority, name: str, hosts: Sequence[str]) -> Callable[[], Pair]:
    clients = {
        "service": SERVICE_NAME,
        "member": MEMBER_NAME,
        "provisioner": PROVISIONER_NAME,
        "operator": OPERATOR_NAME,
    }
    if name in clients:
        return lambda: authority.client(clients[name])
    if name == "signer":
        return lambda: signer()
    # The edge's certificate is for servers only, so that it cannot be used as a client of the fleet's listener.
    return lambda: authority.server(name, hosts=tuple(dict.fromkeys(hosts)), routes=name != "edge")


def _pair(workspace: Workspace, name: str, make: Callable[[], Pair]) -> Pair:
    names = [f"{DIRECTORY}/{name}.{end}" for end in ("pem", "key")]
    there = [workspace.path(item).exists() for item in names]
    if any(there) and not all(there):
        have, lack = (names[0], names[1]) if there[0] else (names[1], names[0])
        raise InputError(f"{workspace.path(have)} exists, but {lack} does not; restore it, or remove the other")
    if not any(there):
        made = make()
        workspace.keep_or_write(names[1], lambda: made.key_pem, private=True)
        workspace.keep_or_write(names[0], lambda: made.certificate_pem, private=False)
        return made
    return _read(workspace.path(names[0]), workspace.path(names[1]))


def _read(certificate: Path, key: Path) -> Pair:
    advice = "remove both to create them again"
    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
        if isinstance(loaded, PrivateKey):
            return Pair(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InputError(f"{certificate} or {key.name} beside it is not usable PEM; {advice}") from error
    raise InputError(f"{key} contains a type of key that `init` does not create; {advice}")


def _seed() -> bytes:
    return new_seed().reveal().encode()


def _secret(seed: bytes) -> Secret:
    return Secret(seed.decode("ascii", "replace").strip())
