"""The files of ``init --dev-pki``: a certificate for everyone who takes part, and the CAs that sign them.

The edge's link has a CA of its own: a client certificate of the other one makes a member of the fleet,
and an edge, which strangers talk to, is to be none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_auth.deploy.pki import LOCAL_NAMES, Authority, Pair, PrivateKey, signer
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
    """The certificates this plan has, each ``pki/NAME.pem`` and ``pki/NAME.key``."""
    if plan.topology is _SINGLE:
        return ("ca", "server")
    edge = ("edge", LEAF_CA, "leaf") if plan.topology is Topology.EDGE else ()
    return ("ca", "server", *edge, "service", "member", "provisioner", "operator", "signer")


def file_names(plan: Plan) -> tuple[str, ...]:
    """Every file this plan has below its directory."""
    pairs = [f"{DIRECTORY}/{name}.{end}" for name in pair_names(plan) for end in ("pem", "key")]
    organization = [f"{DIRECTORY}/issuer.{end}" for end in ("seed", "public")] if plan.topology is _SINGLE else []
    return (*pairs, *organization)


def write(workspace: Workspace, plan: Plan) -> None:
    """Make what is missing. An existing CA signs what is new.

    Raises:
        InputError: a certificate is there without its key, or the other way round; or the edge's link
            has one of another CA.
    """
    workspace.make_directory(DIRECTORY)
    authority = Authority(_pair(workspace, "ca", lambda: Authority.create().pair))
    for name in pair_names(plan)[1:]:
        if name not in (LEAF_CA, "leaf"):
            _pair(workspace, name, _maker(authority, name, (*LOCAL_NAMES, *plan.hosts, plan.edge_host or "localhost")))
    if plan.topology is Topology.EDGE:
        _write_link(workspace)
    if plan.topology is _SINGLE:
        seed = workspace.keep_or_write(f"{DIRECTORY}/issuer.seed", _seed, private=True)
        public = signing_key_from_seed(_secret(seed), "issuer").public_hex or ""
        workspace.keep_or_write(f"{DIRECTORY}/issuer.public", public.encode, private=False)


def _write_link(workspace: Workspace) -> None:
    links = Authority(_pair(workspace, LEAF_CA, lambda: Authority.create("broker-auth development link CA").pair))
    link = _pair(workspace, "leaf", lambda: links.client(LEAF_NAME))
    try:
        link.certificate.verify_directly_issued_by(links.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        path = workspace.path(f"{DIRECTORY}/leaf.pem")
        raise InputError(
            f"{path} is not by the CA {LEAF_CA}.pem beside it, which the fleet knows edges by; remove {path.name} "
            "and leaf.key to have them made again"
        ) from error


def completed(workspace: Workspace, plan: Plan) -> Plan:
    """The plan with the development PKI's files in place of the operator's."""

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


def _maker(authority: Authority, name: str, hosts: Sequence[str]) -> Callable[[], Pair]:
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
    # The edge's is for servers only: with it nobody is a client of the fleet's listener.
    return lambda: authority.server(name, hosts=tuple(dict.fromkeys(hosts)), routes=name != "edge")


def _pair(workspace: Workspace, name: str, make: Callable[[], Pair]) -> Pair:
    names = [f"{DIRECTORY}/{name}.{end}" for end in ("pem", "key")]
    there = [workspace.path(item).exists() for item in names]
    if any(there) and not all(there):
        have, lack = (names[0], names[1]) if there[0] else (names[1], names[0])
        raise InputError(f"{workspace.path(have)} is there, but {lack} is not; put it back, or remove the other")
    if not any(there):
        made = make()
        workspace.keep_or_write(names[1], lambda: made.key_pem, private=True)
        workspace.keep_or_write(names[0], lambda: made.certificate_pem, private=False)
        return made
    return _read(workspace.path(names[0]), workspace.path(names[1]))


def _read(certificate: Path, key: Path) -> Pair:
    advice = "remove both to have them made again"
    try:
        loaded = load_pem_private_key(key.read_bytes(), password=None)
        if isinstance(loaded, PrivateKey):
            return Pair(x509.load_pem_x509_certificate(certificate.read_bytes()), loaded)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InputError(f"{certificate} or {key.name} beside it is no usable PEM; {advice}") from error
    raise InputError(f"{key} holds a kind of key that is not made here; {advice}")


def _seed() -> bytes:
    return new_seed().reveal().encode()


def _secret(seed: bytes) -> Secret:
    return Secret(seed.decode("ascii", "replace").strip())
