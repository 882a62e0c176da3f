"""A running nats-server accepts certificates, and reports their chains, as docs/certificates.md says."""

from __future__ import annotations

import ssl

import pytest

from broker_auth.certificates.peer import PeerIdentity
from broker_auth.certificates.verifier import PeerVerifier
from tests.builders.certificate_kinds import Kind, kinds
from tests.builders.clock import NOW
from tests.nats_server.site import Site
from tests.policy.markdown import tables

pytestmark = pytest.mark.e2e

ACCEPTED_SINCE_GO = {"names as UniversalString": (1, 27)}


async def test_every_kind_of_certificate_behaves_as_documented(sandbox: Site) -> None:
    roots = [root for kind in kinds().values() for root in kind.configured]
    sandbox.ca.write_bytes(sandbox.authority.certificate_pem + "".join(root.pem for root in roots).encode())
    server = await sandbox.serve(tls="verify")
    responder = await sandbox.responder(server, tls=sandbox.member())
    peers = PeerVerifier([root.parsed for root in roots])
    accepted = {}
    for label, kind in kinds().items():
        if not kind.connects:
            continue
        wire = await sandbox.wire(server, _presenting(sandbox, kind))
        accepted[label] = await wire.login(name=label) == "PONG"
    documented = tables("certificates.md")["Accepted and refused"][0][1:]
    older = {label for label, since in ACCEPTED_SINCE_GO.items() if _go(wire.info["go"]) < since}
    assert accepted == {
        label: behavior == "accepts" and label not in older for label, behavior, *_ in documented if label in accepted
    }
    reported = {
        request["connect_opts"]["name"]: request["client_tls"]["verified_chains"] for request in responder.requests
    }
    assert set(reported) == {label for label, admitted in accepted.items() if admitted}
    refused = {label for label, chains in reported.items() if not isinstance(peers.identify(chains, NOW), PeerIdentity)}
    assert refused == set()


def _go(version: str) -> tuple[int, int]:
    major, minor = version.removeprefix("go").split(".")[:2]
    return int(major), int(minor)


def _presenting(sandbox: Site, kind: Kind) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # permit short keys and old signatures
    chain, key = sandbox.directory / "presented.pem", sandbox.directory / "presented.key"
    chain.write_text("".join(made.pem for made in (kind.leaf, *kind.between)))
    key.write_bytes(kind.leaf.key_pem)
    context.load_cert_chain(chain, key)
    return context
