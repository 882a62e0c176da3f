"""The doctor at three fleet servers and two edges: a healthy cluster, and each planted fault exactly once."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from nats.aio.client import Client

from broker_auth.deploy.pki import Validity
from broker_auth.natsio.nkey import NkeyKind, generate_seed, public_nkey
from broker_auth.operate.access import Access
from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.examine import examine
from broker_auth.operate.doctor.finding import Context, Finding, Severity
from broker_auth.operate.logins import Login, connect
from broker_auth.operate.streams.change import change_streams
from broker_auth.secret import Secret
from broker_auth.settings.load import check
from tests.operate.cluster import EDGES, FLEET, ClusterDeployment
from tests.operate.deployment import MEMBER, Edit

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
Errors = list[tuple[str, str | None, str | None]]
Check = Callable[[tuple[Finding, ...]], None]
INTRUDER = generate_seed(NkeyKind.USER)
SLOW = {"callout.latency", "clock.skew"}  # measured times, which a busy machine makes worse
LOOKS = 5  # at most: on a busy machine a server or the service may answer too late


def with_intruder(text: str) -> str:
    """Add a second user to the callout account, who may answer requests (fact 4)."""
    nkey = public_nkey(INTRUDER)
    text = re.sub(r'auth_users: \[ "', f'auth_users: [ "{nkey}", "', text, count=1)
    return re.sub(r'("AUTH": \{\n    users: \[)', rf'\1 {{ nkey: "{nkey}" }}', text, count=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClusterDeployment]:
    """Yield the running cluster with its streams; the break-glass seeds are elsewhere."""
    deployment = ClusterDeployment(tmp_path_factory.mktemp("cluster"))
    for path in deployment.directory.glob("*break-glass.seed"):
        path.unlink()
    deployment.edits = dict.fromkeys((*FLEET, *EDGES), with_intruder)
    with deployment.running():
        await change_streams(deployment.access(), dry_run=False)
        yield deployment


def access_to(cluster: ClusterDeployment, *, break_glass: bool = True) -> Access:
    pair = {"certificate": cluster.directory / "provisioner.pem", "key": cluster.directory / "provisioner.key"}
    return cluster.access(break_glass=cluster.break_glass_seeds if break_glass else (), **pair)


async def look(cluster: ClusterDeployment, access: Access | None = None, ahead: float = 0.0) -> tuple[Finding, ...]:
    context = Context(
        access=access or access_to(cluster),
        now=lambda: time.time() + ahead,
        provisioning_token=Secret(cluster.provisioning_token()),
    )
    return await examine(context, check(cluster.config, {}, serving=True))


async def see(cluster: ClusterDeployment, agrees: Check, access: Access | None = None, ahead: float = 0.0) -> None:
    """Look until the findings agree; the last look decides."""
    for left in reversed(range(LOOKS)):
        try:
            agrees(await look(cluster, access, ahead))
        except AssertionError:
            if not left:
                raise
        else:
            return


def errors(findings: tuple[Finding, ...]) -> Errors:
    return [(item.code, item.broker, item.server) for item in findings if item.severity is Severity.ERROR]


async def test_healthy_cluster_has_no_finding_but_the_single_service(cluster: ClusterDeployment) -> None:
    every = {"streams.present", "isolation.crossing", "isolation.accounts", "leaf.link", "jetstream"}
    every |= {"listener.ca", "listener.closed", "callout.rights", "break_glass.login", "break_glass.seed", "timeouts"}

    def healthy(findings: tuple[Finding, ...]) -> None:
        good = [item for item in findings if item.severity is Severity.OK or item.code in SLOW]
        bad = [(item.code, item.broker) for item in findings if item not in good]
        assert bad == [("callout.alone", "fleet"), ("callout.alone", "edge"), ("callout.alone", "edge2")]
        assert errors(findings) == []
        ok = {(item.code, item.server) for item in good}
        for name in (*FLEET, *EDGES):
            assert {(code, cluster.address(name)) for code in ("callout.denies", "clock.skew", "callout.account")} <= ok
        assert every <= {code for code, _ in ok}

    await see(cluster, healthy)


async def test_break_glass_users_are_checked_without_their_seeds(cluster: ClusterDeployment) -> None:
    def known_to_all(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == []
        known = {item.server for item in findings if item.code == "break_glass.known"}
        assert known == {cluster.address(name) for name in (*FLEET, *EDGES)}
        about = {item.code: item for item in findings if item.code in ("break_glass.used", "break_glass.unused")}
        assert about
        if used := about.get(FindingCode.BREAK_GLASS_USED):
            assert re.search(r"logged in \d+ times? from 127\.0\.0\.1, last (just now|.* ago)", used.what)

    await see(cluster, known_to_all, access_to(cluster, break_glass=False))


async def intrude(cluster: ClusterDeployment, name: str) -> Client:
    """Return a connection of the intruder to a server."""
    tls = cluster.access().tls(cluster.settings().brokers[0])
    return await connect(cluster.url(name), Login(what="an intruder", nkey_seed=Secret(INTRUDER)), tls)


async def test_intruders_in_the_callout_account_are_found_at_their_servers(cluster: ClusterDeployment) -> None:
    def both(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [
            ("callout.foreigner", broker, cluster.address(name))
            for broker, name in (("fleet", "fleet3"), ("edge2", "edge2"))
        ]
        assert all(public_nkey(INTRUDER) in item.what for item in findings if item.code == "callout.foreigner")

    clients = [await intrude(cluster, name) for name in ("fleet3", "edge2")]
    try:
        await see(cluster, both)
    finally:
        for client in clients:
            await client.close()


async def test_intruder_is_found_at_a_server_that_the_configuration_does_not_list(cluster: ClusterDeployment) -> None:
    def named(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [("callout.foreigner", "fleet", "fleet3")]

    client = await intrude(cluster, "fleet3")
    cluster.write_config(f"plugin.broker_auth.broker.fleet.urls = {cluster.url('fleet1')}")
    try:
        await see(cluster, named)
    finally:
        cluster.write_config()
        await client.close()


@contextlib.contextmanager
def without_service(cluster: ClusterDeployment) -> Iterator[None]:
    assert cluster.service
    cluster.service.terminate()
    try:
        yield
    finally:
        mark = cluster.service.mark()
        cluster.service.launch()
        cluster.service.wait_for_log("ready brokers=", since=mark)


async def test_stopped_service_is_one_finding(cluster: ClusterDeployment) -> None:
    def nobody(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [("callout.nobody", None, None)]
        assert findings[0].what == "no service answers at any broker: fleet, edge, edge2"

    def clock(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [("clock.skew", None, None)]
        assert re.match(r"this machine's clock is [23]\d\.\d s ahead of the clocks of all servers", findings[0].what)

    with without_service(cluster):
        await see(cluster, nobody)
        # The clock comes before keys and services: a service whose clock is wrong does not answer.
        await see(cluster, clock, access_to(cluster, break_glass=False), ahead=30)


async def test_expired_certificate_of_the_service_is_one_finding(cluster: ClusterDeployment) -> None:
    def expired(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [("service.certificate", None, None)]
        assert f"{certificate} expired 3 days ago" in findings[0].what
        about = [item for item in findings if item.code == "configuration"]
        assert not [item.what for item in about if "expired" in item.what]

    certificate = cluster.directory / "client.pem"
    kept = certificate.read_bytes(), (cluster.directory / "client.key").read_bytes()
    past = Validity(not_before=datetime.now(UTC) - timedelta(days=9), not_after=datetime.now(UTC) - timedelta(days=3))
    cluster.authority.client(MEMBER, validity=past).write(cluster.directory, "client")
    try:
        await see(cluster, expired, cluster.access(break_glass=cluster.break_glass_seeds))
    finally:
        certificate.write_bytes(kept[0])
        (cluster.directory / "client.key").write_bytes(kept[1])


async def test_servers_that_are_down_are_one_finding_each(cluster: ClusterDeployment) -> None:
    def one_each(findings: tuple[Finding, ...]) -> None:
        assert errors(findings) == [
            ("listener.unreachable", broker, cluster.address(name)) for name, broker in names.items()
        ]
        assert "streams" not in {item.code for item in findings}  # the fleet's streams are examined nevertheless

    assert cluster.service
    *_, line = [line for line in cluster.service.log() if "broker fleet: subscribed" in line]
    unused = next(name for name in FLEET if cluster.address(name) not in line)  # others can answer for this one at once
    names = {unused: "fleet", "edge2": "edge2"}
    for name in names:
        cluster.servers[name].kill()
    await see(cluster, one_each)
    mark = cluster.service.mark()
    for name in names:
        cluster.restart(name)
    cluster.service.wait_for_log("broker edge2: subscribed again", since=mark)


def edited(pattern: str, text: str) -> Edit:
    return lambda conf: re.sub(pattern, text, with_intruder(conf), count=1, flags=re.DOTALL)


async def test_each_fault_names_its_server(cluster: ClusterDeployment) -> None:
    """The last test, because it leaves the faults in place."""
    faults = {
        "fleet2": (r'publish: \[ "broker-auth.peers" \]', 'publish: ">"'),
        "fleet3": (r"\njetstream \{.*?\}", ""),
        "edge2": (r'xkey: "X\w+"', f'xkey: "{public_nkey(generate_seed(NkeyKind.CURVE))}"'),
    }

    def one_each(findings: tuple[Finding, ...]) -> None:
        assert sorted(errors(findings)) == sorted(
            [
                ("callout.may_publish", "fleet", cluster.address("fleet2")),
                ("jetstream.down", "fleet", cluster.address("fleet3")),
                ("callout.no_answer", "edge2", cluster.address("edge2")),
            ]
        )
        (remedy,) = [item.remedy for item in findings if item.code == "callout.no_answer"]
        assert remedy.startswith("keys differ")

    assert cluster.service
    mark = cluster.service.mark()
    for name, (pattern, text) in faults.items():
        cluster.edits[name] = edited(pattern, text)
        cluster.restart(name)
    cluster.service.wait_for_log("broker edge2: subscribed again", since=mark)
    await see(cluster, one_each)
