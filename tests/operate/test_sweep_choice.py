"""Which sessions ``sweep`` chooses, spares or cannot judge, by what audit records and servers show of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from broker_auth.audit.record import AuditRecord, make_record
from broker_auth.operate.report.gathering import Row, Server
from broker_auth.operate.sessions import Choice
from broker_auth.operate.sweep import OTHER_ACCOUNT, UnadmittedSessions
from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Evidence
from broker_auth.policy.request import AuthorizationRequest, ClientInfo, ClientTLS, ConnectOpts, ServerId
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.settings.policy import build_policy
from broker_auth.settings.revocation_store import create, open_store
from tests.operate.deployment import EdgeDeployment

NODE = "node1.example.net"
SERVER = Server(id="NSERVER", name="edge")
ROW = Row(cid=7, kind="Client", ip="192.0.2.7", name=NODE, authorized_user=NODE, account="provisioning")
OTHER_SIGNER = "plugin.choria.network.provisioning.signer_cert = server.pem"


@dataclass(frozen=True)
class Found:
    """A session with its record, and what is expected of it."""

    id: str
    ends: bool = False
    code: str = ""
    unknown: str = ""
    row: Row = ROW
    record: Callable[[AuditRecord], AuditRecord | None] = lambda record: record
    revoked: tuple[RevocationKind, str] | None = None
    config: tuple[str, ...] = ()
    max_nodes: int | None = None


def of_record(**changes: object) -> Callable[[AuditRecord], AuditRecord]:
    return lambda record: msgspec.structs.replace(record, **changes)


def of_row(**changes: object) -> Row:
    return msgspec.structs.replace(ROW, **changes)


def uncounted(record: AuditRecord) -> AuditRecord:
    assert record.evidence
    return msgspec.structs.replace(record, evidence=Evidence(signer_key=record.evidence.signer_key))


BUCKET = ("plugin.broker_auth.revocations_bucket = true", "plugin.broker_auth.pid_file = pid")
NO_REQUEST = of_record(request=None, redacted=())
CASES = (
    Found("admitted again"),
    Found("the signer was replaced", ends=True, code="token_signature", config=(OTHER_SIGNER,)),
    Found("the account was renamed", ends=True, code=OTHER_ACCOUNT, row=of_row(account="former")),
    Found("its token was revoked", ends=True, code="revoked", revoked=(RevocationKind.TOKEN_ID, "")),
    Found("the same without its request", True, "revoked", "", ROW, NO_REQUEST, (RevocationKind.TOKEN_ID, "")),
    Found("its name was revoked", True, "revoked", "", ROW, lambda _: None, (RevocationKind.NODE, NODE)),
    Found(
        "its address was revoked", True, "revoked", "", ROW, lambda _: None, (RevocationKind.NETWORK, "192.0.2.0/24")
    ),
    Found("without a record", unknown="without an audit record", record=lambda _: None),
    Found("with a record of another zone", unknown="without an audit record", record=of_record(zone="fleet")),
    Found("without a request", unknown="holds no request", record=NO_REQUEST),
    Found("without evidence", unknown="token signature", record=of_record(evidence=None)),
    Found("counted for its token", max_nodes=2, config=BUCKET),
    Found("counted, and hosts count no longer", ends=True, code="nodes_not_counted", max_nodes=2),
    Found("not known whether counted", unknown="number of nodes", record=uncounted, max_nodes=2, config=BUCKET),
    Found("too many nodes", unknown="lower limit", record=lambda record: full(record)),
)


def full(record: AuditRecord) -> AuditRecord:
    assert record.evidence
    return msgspec.structs.replace(record, evidence=Evidence(signer_key=record.evidence.signer_key, connections=10**6))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_session_is_chosen_spared_or_not_known(case: Found, tmp_path: Path) -> None:
    choice = choose(case, tmp_path)
    assert (choice.ends, choice.code) == (case.ends, case.code), choice
    assert case.unknown in choice.unknown
    assert bool(case.unknown) == bool(choice.unknown)


def choose(case: Found, directory: Path) -> Choice:
    deployment = EdgeDeployment(directory)
    create(directory / "revoked.json")
    revocations = "plugin.broker_auth.revocations = revoked.json"
    deployment.write_config(revocations, *(BUCKET if case.max_nodes else ()))
    record = admitted(deployment, case.max_nodes)
    if case.revoked:
        kind, value = case.revoked
        with open_store(directory / "revoked.json") as store:
            store.revoke([Revocation(kind=kind, value=value or record.token_id, at=time.time())], time.time())
    deployment.write_config(revocations, *case.config)
    settings = deployment.settings()
    changed = case.record(record)
    selector = UnadmittedSessions(settings, lambda: [changed] if changed else [])
    selector.refresh()
    edge = settings.brokers[1]
    assert selector.concerns(edge)
    return selector.choose(edge, SERVER, case.row)


def admitted(deployment: EdgeDeployment, max_nodes: int | None = None) -> AuditRecord:
    """Return the record of the node's admission, as the service of the edge writes it."""
    request = AuthorizationRequest(
        server_id=ServerId(id=SERVER.id, name="edge"),
        user_nkey="U",
        client_info=ClientInfo(host=ROW.ip, id=ROW.cid, name=NODE, kind="Client", type="nats"),
        connect_opts=ConnectOpts(auth_token=deployment.provisioning_token(max_nodes=max_nodes), name=NODE),
        client_tls=ClientTLS(),
    )
    now = time.time()
    decision = decide(request, build_policy(deployment.settings(), "edge"), now, counted=Counted.YES)
    assert isinstance(decision, Admit), decision
    return make_record(request, decision, now, 100, with_request=True, zone="edge", broker="edge")


def test_request_of_the_same_credential_counts_for_a_session_without_one(tmp_path: Path) -> None:
    deployment = EdgeDeployment(tmp_path)
    earlier = admitted(deployment)
    later = msgspec.structs.replace(earlier, cid=8, request=None, redacted=(), evidence=None)
    settings = deployment.settings()
    selector = UnadmittedSessions(settings, lambda: [earlier, later])
    selector.refresh()
    assert selector.choose(settings.brokers[1], SERVER, of_row(cid=8)) == Choice(ends=False)
    other = msgspec.structs.replace(later, token_id="another")
    selector = UnadmittedSessions(settings, lambda: [earlier, other])
    selector.refresh()
    assert "holds no request" in selector.choose(settings.brokers[1], SERVER, of_row(cid=8)).unknown
