"""What one zone of the service tells of itself: for health, metrics, the service manager and the pid file."""

from __future__ import annotations

import msgspec

from broker_auth.callout.stats import Snapshot
from broker_auth.daemon.expiry import Expiry


class ZoneState(msgspec.Struct, kw_only=True):
    """One zone at one moment. It is also the heartbeat of a zone's process.

    Attributes:
        zone: its name.
        problems: why it could not start, a line each; it ends then.
        alive: a worker runs and has been heard lately.
        ready: every broker can ask a worker, and the zone is not stopping.
        wanted: workers there should be.
        brokers: workers subscribed at each broker.
        counted: everything counted since the start, by workers that ended too.
        pending: requests received and not answered.
        resident: bytes of each worker that runs.
        replaced: workers that had to be replaced, by cause.
        accepted: reloads that changed the configuration.
        refused: reloads that changed nothing.
        reloading: whether new workers are taking over just now.
        oldest: seconds that the oldest request has waited.
        audit_lost: audit records that could not be kept.
        audit_trouble: why audit records are being lost just now; empty while they are kept.
        skews: by ``broker/server``, how many seconds this host's clock is ahead of that server's.
        log_lost: log lines that nobody read in time.
        task_failures: how often a long-lived task beside the workers ended unforeseen and was started again.
        expiries: when the certificates expire that the configuration names.
    """

    zone: str
    problems: tuple[str, ...] = ()
    alive: bool = False
    ready: bool = False
    wanted: int = 1
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
    log_lost: int = 0
    task_failures: int = 0
    expiries: tuple[Expiry, ...] = ()

    def after(self, earlier: ZoneState) -> ZoneState:
        """Return this state with what was counted by a process of the zone that ended."""
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
        """Return this state for a zone whose process does not run."""
        return msgspec.structs.replace(
            self, alive=False, ready=False, brokers=dict.fromkeys(self.brokers, 0), pending=0, oldest=0.0, resident=()
        )
