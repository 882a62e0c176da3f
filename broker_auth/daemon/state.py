"""The state of one zone of the service: for health, metrics, the service manager and the pid file."""

from __future__ import annotations

import msgspec

from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.crl_files import CrlState
from broker_auth.daemon.expiry import Expiry
from broker_auth.policy.model import Serves


class ZoneState(msgspec.Struct, kw_only=True):
    """The state of a zone at one moment; also the heartbeat of a zone's process.

    Attributes:
        zone: name of the zone.
        serves: which rules decide its requests, once its process runs.
        problems: reasons why it could not start, one line each; the process then ends.
        alive: a worker runs and has sent a heartbeat recently.
        ready: a worker is subscribed at every broker, and the zone is not stopping.
        expected_workers: configured number of workers.
        brokers: number of workers subscribed at each broker.
        counted: totals since the start, including workers that have ended.
        pending: requests received but not answered yet.
        resident: resident bytes of each running worker.
        replaced: number of replaced workers, by cause.
        accepted: reloads that changed the configuration.
        refused: reloads that changed nothing.
        reloading: whether new workers are currently taking over.
        oldest: age of the oldest pending request in seconds.
        audit_lost: number of lost audit records.
        audit_trouble: why audit records are currently being lost; empty if none are.
        skews: seconds by which this host's clock is ahead of a server's, by ``broker/server``.
        waiting: nodes that wait to be provisioned, by broker, where they are known.
        asked: messages that reached them over the leaf link of an edge, by broker.
        certificates: the earliest expiry of a connected server's certificate, in Unix seconds, by broker.
        log_lost: log lines dropped because stderr was not read in time.
        task_failures: number of long-lived tasks that ended unexpectedly and were restarted.
        expiries: expiry times of the configured certificates.
        revocations: version of the revocations by which every worker decides; empty while they differ.
        revoked: number of revocations.
        synchronized: when the file and the bucket of the fleet held the same last; 0 if never, None without a bucket.
        sync_trouble: why they do not; empty if they do.
        counting_trouble: why nodes of tokens for a number of nodes are not counted now; empty if they are.
        revocation_trouble: why the file of revocations cannot be read now; empty if it can.
        crls: the CRLs in force.
        crl_troubles: why a file of CRLs cannot be used now.
    """

    zone: str
    serves: Serves | None = None
    problems: tuple[str, ...] = ()
    alive: bool = False
    ready: bool = False
    expected_workers: int = 1
    brokers: dict[str, int] = {}
    counted: Snapshot = msgspec.field(default_factory=Snapshot)
    pending: int = 0
    resident: tuple[int, ...] = ()
    replaced: dict[str, int] = {}
    accepted: int = 0
    refused: int = 0
    reloading: bool = False
    oldest: float = 0.0
    audit_lost: int = 0
    audit_trouble: str = ""
    skews: dict[str, float] = {}
    waiting: dict[str, int] = {}
    asked: dict[str, int] = {}
    certificates: dict[str, float] = {}
    log_lost: int = 0
    task_failures: int = 0
    expiries: tuple[Expiry, ...] = ()
    revocations: str = ""
    revoked: int = 0
    revocation_trouble: str = ""
    crls: tuple[CrlState, ...] = ()
    crl_troubles: tuple[str, ...] = ()
    synchronized: float | None = None
    sync_trouble: str = ""
    counting_trouble: str = ""

    def after(self, earlier: ZoneState) -> ZoneState:
        """Return this state plus the counts of an earlier process of the zone."""
        return msgspec.structs.replace(
            self,
            counted=earlier.counted + self.counted,
            replaced={
                cause: self.replaced.get(cause, 0) + earlier.replaced.get(cause, 0)
                for cause in {*self.replaced, *earlier.replaced}
            },
            accepted=self.accepted + earlier.accepted,
            refused=self.refused + earlier.refused,
            audit_lost=self.audit_lost + earlier.audit_lost,
            task_failures=self.task_failures + earlier.task_failures,
            log_lost=self.log_lost + earlier.log_lost,
        )

    def down(self) -> ZoneState:
        """Return this state for a zone whose process is not running."""
        return msgspec.structs.replace(
            self,
            alive=False,
            ready=False,
            brokers=dict.fromkeys(self.brokers, 0),
            pending=0,
            oldest=0.0,
            resident=(),
            waiting={},
            asked={},
            certificates={},
            revocations="",
        )
