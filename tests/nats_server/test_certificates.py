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


async def test_every_kind_of_certificate_behaves_as_documented(site: Site) -> None:
    roots = [root for kind in kinds().values() for root in kind.configured]
    site.ca.write_bytes(site.authority.certificate_pem + "".join(root.pem for root in roots).encode())
    server = await site.serve(tls="verify")
    oracle = await site.oracle(server, tls=site.member())
    peers = PeerVerifier([root.parsed for root in roots])
    taken = {}
    for label, kind in kinds().items():
        if not kind.connects:
            continue
        wire = await site.wire(server, _shows(site, kind))
        taken[label] = await wire.login(name=label) == "PONG"
    documented = tables("certificates.md")["Accepted and refused"][0][1:]
    assert taken == {label: said == "accepts" for label, said, *_ in documented if label in taken}
    reported = {
        request["connect_opts"]["name"]: request["client_tls"]["verified_chains"] for request in oracle.requests
    }
    assert set(reported) == {label for label, was in taken.items() if was}
    refused = {label for label, chains in reported.items() if not isinstance(peers.identify(chains, NOW), PeerIdentity)}
    assert refused == set()


def _shows(site: Site, kind: Kind) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")  # permit short keys and old signatures
    chain, key = site.directory / "shown.pem", site.directory / "shown.key"
    chain.write_text("".join(made.pem for made in (kind.leaf, *kind.between)))
    key.write_bytes(kind.leaf.key_pem)
    context.load_cert_chain(chain, key)
    return context
