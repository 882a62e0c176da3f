"""Writes the development PKI of ``init --dev-pki``: CAs and a certificate for each participant.

The edges' links have a CA to themselves: a client certificate of the other one makes a member of the fleet,
which an edge, that strangers talk to, must not be.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.deploy.pki import LOCAL_NAMES, CertificateAuthority, Pair, PrivateKey, private_key, signer
from broker_auth.deploy.plan import EDGE, PLACEHOLDER, USER_PLACEHOLDER, OwnFiles, Plan, Topology
from broker_auth.deploy.workspace import Workspace
from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.tokens.issue import new_seed, signing_key_from_seed

DIRECTORY = "pki"
LEAF_CA = "leaf-ca"
LEAF_DOMAIN = "leaf.example.net"  # of the names in link certificates
SERVICE_NAME = "broker-auth.example.net"
MEMBER_NAME = "member.fleet.example.net"
PROVISIONER_NAME = "provisioner.example.net"
OPERATOR_NAME = "operator.example.net"
_SINGLE = Topology.SINGLE


_CLIENTS: Final = {
    "service": SERVICE_NAME,
    "member": MEMBER_NAME,
    "provisioner": PROVISIONER_NAME,
    "operator": OPERATOR_NAME,
}


def pair_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of this plan's certificates, each ``pki/NAME.pem`` and ``pki/NAME.key``."""
    if plan.topology is _SINGLE:
        return ("ca", "server")
    links = (LEAF_CA, *_link_names(plan)) if plan.edges else ()
    signers = () if plan.issuers else ("signer",)  # in issuer mode the issuer signs provisioning tokens, too
    return ("ca", "server", *(edge.name for edge in plan.edges), *links, *_CLIENTS, *signers)


def names_in_use(plan: Plan) -> set[str]:
    """Return the names of certificates that an edge cannot have."""
    return {"ca", "server", LEAF_CA, *_link_names(plan), *_CLIENTS, "signer"}


def _link_names(plan: Plan) -> dict[str, str]:
    """Return the file name of each link's certificate, and the edge that it is for."""
    return {_link(plan).replace(PLACEHOLDER, edge.name): edge.name for edge in plan.edges}


def _link(plan: Plan) -> str:
    return f"{PLACEHOLDER}-leaf" if plan.named_edges else "leaf"


def file_names(plan: Plan) -> tuple[str, ...]:
    """Return the paths of all development PKI files of this plan, relative to its directory."""
    pairs = [f"{DIRECTORY}/{name}.{end}" for name in pair_names(plan) for end in ("pem", "key")]
    organization = [f"{DIRECTORY}/issuer.{end}" for end in ("seed", "public")] if plan.new_organization else []
    return (*pairs, *organization)


def write(workspace: Workspace, plan: Plan) -> None:
    """Create the missing files. An existing CA signs new certificates.

    Raises:
        InputError: a certificate exists without its key, or a key without its certificate; or another CA
            issued the edge's leaf certificate.
    """
    workspace.make_directory(DIRECTORY)
    authority = CertificateAuthority(_pair(workspace, "ca", lambda: CertificateAuthority.create().pair))
    links, edges = _link_names(plan), {edge.name: edge for edge in plan.edges}
    for name in pair_names(plan)[1:]:
        if name != LEAF_CA and name not in links:
            hosts = plan.edge_names(edges[name]) if name in edges else plan.fleet_names
            # An edge's is for servers only: with it nobody is a client of the fleet's listener.
            _pair(workspace, name, _maker(authority, name, hosts, routes=name not in edges))
    if links:
        _write_links(workspace, links)
    if plan.new_organization:
        seed = workspace.keep_or_write(f"{DIRECTORY}/issuer.seed", _seed, private=True)
        public = signing_key_from_seed(_secret(seed), "issuer").public_hex or ""
        workspace.keep_or_write(f"{DIRECTORY}/issuer.public", public.encode, private=False)


def _write_links(workspace: Workspace, names: dict[str, str]) -> None:
    links = CertificateAuthority(
        _pair(workspace, LEAF_CA, lambda: CertificateAuthority.create("broker-auth development link CA").pair)
    )
    for name, edge in names.items():
        link = _pair(workspace, name, functools.partial(links.client, f"{edge}.{LEAF_DOMAIN}"))
        try:
            link.certificate.verify_directly_issued_by(links.certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            path = workspace.path(f"{DIRECTORY}/{name}.pem")
            raise InputError(
                f"{path} was not issued by the CA {LEAF_CA}.pem beside it, which the fleet verifies edges with; remove "
                f"{path.name} and {name}.key to create them again"
            ) from error


def completed(workspace: Workspace, plan: Plan) -> Plan:
    """Return the plan with the development PKI's files instead of the operator's."""

    def path(name: str, end: str) -> str:
        return f"{DIRECTORY}/{name}.{end}"

    single, edge = plan.topology is _SINGLE, plan.topology is Topology.EDGE
    at = workspace.path
    server, link = PLACEHOLDER if plan.named_edges else EDGE, _link(plan)
    files = OwnFiles(
        ca=at(path("ca", "pem")),
        server_cert=at(path("server", "pem")),
        server_key=at(path("server", "key")),
        edge_cert=at(path(server, "pem")) if edge else None,
        edge_key=at(path(server, "key")) if edge else None,
        leaf_ca=at(path(LEAF_CA, "pem")) if edge else None,
        leaf_cert=at(path(link, "pem")) if edge else None,
        leaf_key=at(path(link, "key")) if edge else None,
        service_cert=None if single else at(path("service", "pem")),
        service_key=None if single else at(path("service", "key")),
        user_cert=None if single else at(path(USER_PLACEHOLDER, "pem")),
        user_key=None if single else at(path(USER_PLACEHOLDER, "key")),
    )
    plan = dataclasses.replace(plan, files=files, issuers=_issuers(workspace, plan))
    if single:
        return plan
    signers = () if plan.issuers else (str(at(path("signer", "pem"))),)
    provisioners = tuple(plan.provisioners) or (PROVISIONER_NAME,)
    return dataclasses.replace(plan, signer_cert=signers, provisioners=provisioners)


def _issuers(workspace: Workspace, plan: Plan) -> tuple[tuple[str, str], ...]:
    """Return the plan's issuers, with the public key of a new issuer."""
    if (made := plan.new_organization) is None:
        return tuple(plan.issuers)
    public = workspace.path(f"{DIRECTORY}/issuer.public").read_text(encoding="ascii").strip()
    return tuple((name, public_key or public) for name, public_key in plan.issuers or ((made, ""),))


def _maker(authority: CertificateAuthority, name: str, hosts: Sequence[str], *, routes: bool) -> Callable[[], Pair]:
    if name == "service":
        return lambda: authority.client(SERVICE_NAME)
    if name in _CLIENTS:  # Choria signs requests with the certificate's key, and with RSA only
        return lambda: authority.client(_CLIENTS[name], key=private_key("rsa"))
    if name == "signer":
        return lambda: signer()
    names = tuple(dict.fromkeys((*LOCAL_NAMES, *hosts)))
    return lambda: authority.server(name, hosts=names, routes=routes)


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
