"""docs/interface.md agrees with the running service and with the wire."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final, cast

import msgspec
from prometheus_client import CollectorRegistry

from broker_auth.audit.record import VERSION
from broker_auth.callout import reply, request
from broker_auth.callout.request import WireFault
from broker_auth.daemon import supervisor, zones
from broker_auth.daemon.health import Endpoint
from broker_auth.daemon.pidfile import PidFile, ZoneLine
from broker_auth.daemon.serve import _Front
from broker_auth.daemon.state import ZoneState
from broker_auth.daemon.supervisor import Supervisor
from broker_auth.daemon.systemd import Notifier
from broker_auth.natsio.subjects import AUTH_QUEUE, AUTH_REQUEST_SUBJECT
from broker_auth.policy.decision import PHRASES, Deny, DenyCode, Rule
from broker_auth.tokens.faults import TokenFault
from tests.docs.pages import DOCS, fenced
from tests.docs.test_interface import PAGE, column, keys
from tests.policy.markdown import code

TEXT: Final = (DOCS / "interface.md").read_text(encoding="utf-8")
HANDLED: Final = re.compile(r"signal\.(SIG(?:TERM|INT|HUP|USR\d))")


# --- The running service


def test_signals() -> None:
    for module in (supervisor, zones):
        source = Path(cast(str, module.__file__)).read_text(encoding="utf-8")
        assert set(HANDLED.findall(source)) <= set(column("Signals"))
    assert set(column("Signals")) == {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"}


class _Host:
    """A service with one zone, as the HTTP endpoints see it."""

    def states(self) -> tuple[ZoneState, ...]:
        return (ZoneState(zone="fleet", brokers={"fleet": 0}),)


def test_health() -> None:
    front = _Front(cast(Supervisor, _Host()), Notifier({}), None)
    endpoint = Endpoint(CollectorRegistry(), front._health)
    statuses = {}
    for row in PAGE["HTTP endpoints"][0][1:]:
        (path,) = code(row[0])
        answer = endpoint._page(path.replace("ZONE", "fleet"), "")
        statuses[path] = answer.status
        assert str(answer.status.value) in " ".join(row) or path == "/metrics"
    assert statuses == dict.fromkeys(("/healthz", "/readyz", "/healthz/ZONE", "/readyz/ZONE"), 503) | {"/metrics": 200}
    assert endpoint._page("/readyz/other", "").status == 404
    body = json.loads(endpoint._page("/readyz", "").body)
    names = {name.replace("zones.fleet", "zones.ZONE") for name in keys(body, {"brokers"})} - {"zones.ZONE"}
    assert set(column("HTTP endpoints", 1)) == names


def test_pid_file_matches_the_page(tmp_path: Path) -> None:
    (shown,) = fenced(TEXT, "text")
    file = PidFile(tmp_path / "pid")
    file.write({"fleet": ZoneLine(1, 0, "5f3a0c1e8b7d2946")})
    written = (tmp_path / "pid").read_text().splitlines()
    assert (tmp_path / "pid").stat().st_mode & 0o777 == 0o600
    file.remove()
    assert shown[1:] == written[1:]
    assert [line.isdigit() for line in (shown[0], written[0])] == [True, True]


def test_audit_record_version_matches_the_page() -> None:
    assert f"`v` is the version of the format, now {VERSION};" in TEXT


# --- The wire


def test_request_matches_the_page() -> None:
    assert column("The request") == [fault.value for fault in WireFault]
    wire = TEXT[TEXT.index("## The wire") :]
    for constant in (AUTH_REQUEST_SUBJECT, AUTH_QUEUE, request.XKEY_HEADER, request.AUDIENCE, request.REQUEST_TYPE):
        assert f"`{constant}`" in wire
    assert f"at most {request.MAX_REQUEST_BYTES} bytes" in wire
    assert f"`nats.version` is {request.CLAIMS_VERSION}" in wire


def _claims(outer: type[msgspec.Struct], inner: type[msgspec.Struct]) -> set[str]:
    return {*(set(outer.__struct_fields__) - {"nats"}), *(f"nats.{name}" for name in inner.__struct_fields__)}


def test_response_matches_the_page() -> None:
    assert set(column("The response")) == _claims(reply._ResponseClaims, reply._Response)
    assert set(column("The user JWT")) == _claims(reply._UserClaims, reply._User)


def test_phrases() -> None:
    codes = [*DenyCode, *TokenFault]
    phrases = {Deny(rule=Rule.NONE, code=refused, detail="").phrase for refused in codes}
    assert column("The response", 1) == sorted(phrases)
    assert phrases <= {*PHRASES.values(), "token not accepted"}
