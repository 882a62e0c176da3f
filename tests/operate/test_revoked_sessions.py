"""Which brokers ``revoke`` asks for sessions, and which sessions it chooses by what hosts answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest
from msgspec import structs

from broker_auth.audit.admissions import Credential
from broker_auth.audit.record import make_record
from broker_auth.hosts.asking import AskedHost
from broker_auth.hosts.questions import Place, parts_of
from broker_auth.operate.access import Access
from broker_auth.operate.other_hosts import OtherHosts, lines_of
from broker_auth.operate.report.gathering import Row, Server
from broker_auth.operate.revoked_sessions import RevokedSessions, SessionTarget
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit
from broker_auth.policy.revocations import Revocation, RevocationKind
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.policies import x509_policy
from tests.operate.deployment import EdgeDeployment

VALUES = {
    RevocationKind.CHAIN_ISSUER: "team-a",
    RevocationKind.IDENTITY: "up=provisioner",
    RevocationKind.KEY: "0" * 64,
    RevocationKind.CERTIFICATE: "0" * 64,
    RevocationKind.NODE: "node1",
    RevocationKind.NETWORK: "192.0.2.0/24",
}
AT_EDGES = {RevocationKind.NODE, RevocationKind.NETWORK}
OF_PROVISIONERS = {RevocationKind.CHAIN_ISSUER, RevocationKind.IDENTITY, RevocationKind.KEY}


@pytest.mark.parametrize("require_mtls", [True, False])
def test_edge_is_asked_about_what_may_have_let_somebody_in_there(require_mtls: bool, tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    provisioning = dataclasses.replace(settings.provisioning, require_mtls=require_mtls)
    settings = dataclasses.replace(settings, provisioning=provisioning)
    fleet, edge = settings.brokers
    asked = set()
    for kind, value in VALUES.items():
        target = SessionTarget([Revocation(kind=kind, value=value)], {})
        selector = RevokedSessions(settings, target, list)
        assert selector.concerns(fleet)
        if selector.concerns(edge):
            asked.add(kind)
    assert asked == (AT_EDGES if require_mtls else AT_EDGES | OF_PROVISIONERS)


class AnsweredHosts(OtherHosts):
    """Hosts that answer at once."""

    def __init__(self, access: Access, matches: dict[Place, bool]) -> None:
        super().__init__(access)
        self.answers = matches
        self.asked: list[tuple[set[Credential], list[Place]]] = []

    async def ask(self, credentials: Collection[Credential], places: Collection[Place]) -> None:
        self.asked.append((set(credentials), list(places)))
        self._matches |= self.answers


async def test_session_is_chosen_or_spared_by_what_another_host_knows(tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    edge = settings.brokers[1]
    server = Server(id="E1")
    places = [Place(edge.zone, "E1", cid) for cid in range(3)]
    hosts = AnsweredHosts(Access(settings=settings), {places[0]: True, places[1]: False})
    target = SessionTarget([Revocation(kind=RevocationKind.TOKEN_SHA256, value="0" * 64)], {"0" * 64: "leaked"})
    selector = RevokedSessions(settings, target, list, hosts)
    rows = [Row(cid=cid, kind="Client") for cid in range(3)]
    assert all("on this host, so" in selector.choose(edge, server, row).unknown for row in rows)
    assert await selector.inquire(places)
    assert hosts.asked == [({(RevocationKind.TOKEN_ID, "leaked")}, places)]
    choices = [selector.choose(edge, server, row) for row in rows]
    assert [choice.ends for choice in choices] == [True, False, False]
    assert [bool(choice.unknown) for choice in choices] == [False, False, True]
    assert "and on those that answered" in choices[2].unknown
    assert "hosts that serve this zone only are not asked" in choices[2].unknown
    assert "this zone only" not in selector.choose(settings.brokers[0], server, rows[2]).unknown
    alone = RevokedSessions(settings, target, list)
    assert not await alone.inquire(places)
    assert alone.choose(edge, server, rows[0]).unknown


LONG = ["x" * 300, "é" * 65]  # longer than records show


@pytest.mark.parametrize("token_id", ["", "leaked", *LONG], ids=len)
def test_token_ends_its_own_sessions_whatever_id_its_issuer_chose(token_id: str, tmp_path: Path) -> None:
    settings = EdgeDeployment(tmp_path).settings()
    broker, request = settings.brokers[0], requests.fleet()
    admit = decide(request, x509_policy(), NOW)
    assert isinstance(admit, Admit)
    ids = {1: token_id, 2: "", 3: "other"}
    records = [
        make_record(
            structs.replace(request, client_info=structs.replace(request.client_info, id=cid)),
            structs.replace(admit, token_id=one),
            NOW,
            0,
            zone=broker.zone,
        )
        for cid, one in ids.items()
    ]
    entry = Revocation(kind=RevocationKind.TOKEN_SHA256, value="0" * 64)
    selector = RevokedSessions(settings, SessionTarget([entry], {"0" * 64: token_id}), lambda: records)
    selector.refresh()
    server = Server(id=request.server_id.id)
    ends = [selector.choose(broker, server, Row(cid=cid, kind="Client")).ends for cid in ids]
    assert ends == [bool(token_id), False, False]
    assert bool(selector.untold) == (not token_id)


@pytest.mark.parametrize("token_id", LONG, ids=len)
def test_long_token_id_can_be_asked_about(token_id: str, tmp_path: Path) -> None:
    target = SessionTarget([Revocation(kind=RevocationKind.TOKEN_SHA256, value="0" * 64)], {"0" * 64: token_id * 10})
    selector = RevokedSessions(EdgeDeployment(tmp_path).settings(), target, list)
    assert parts_of(sorted(selector._by_record), [Place("fleet", "N1", 1)])[0]


async def test_hosts_that_cannot_be_asked_are_remarked(tmp_path: Path) -> None:
    async with OtherHosts(Access(settings=EdgeDeployment(tmp_path).settings())) as hosts:
        assert hosts.remarks() == ()
        await hosts.ask([(RevocationKind.TOKEN_ID, "leaked")], [Place("fleet", "N1", 1)])  # no server runs
        [line] = hosts.remarks()
    assert line.startswith("hosts could not be asked what let these sessions in: cannot log in to broker fleet")


@pytest.mark.parametrize(
    ("host", "lines"),
    [
        (AskedHost("b", silent=True), ["host b did not answer within 3 s"]),
        (AskedHost("b", since=86_400), ["host b has no record of these sessions; its records go back to 1970-01-02T"]),
        (AskedHost("b", troubles={"y", "x"}), ["host b: x", "host b: y", "host b has no record of these sessions"]),
    ],
    ids=["silent", "without a record", "troubled"],
)
def test_line_says_what_to_do_about_a_host(host: AskedHost, lines: list[str]) -> None:
    for line, beginning in zip(lines_of(host), lines, strict=True):
        assert line.startswith(beginning)
