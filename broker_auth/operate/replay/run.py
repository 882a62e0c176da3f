"""A replay: every request decided again, by the new configuration and by what it is compared with."""

from __future__ import annotations

from collections.abc import Iterable

from broker_auth.audit.record import AuditRecord
from broker_auth.operate.replay.credentials import FileRequest
from broker_auth.operate.replay.effect import compare, judged, reason, recorded
from broker_auth.operate.replay.judge import Judge
from broker_auth.operate.replay.summary import Summary
from broker_auth.operate.stored import Stored, stored_of


class Replay:
    """A replay of requests; :attr:`summary` is its result."""

    def __init__(self, new: Judge, against: Judge | None = None, at: float | None = None) -> None:
        """Prepare it.

        Args:
            new: the configuration that is asked about.
            against: the configuration to compare with; without one, decisions are compared with those in the records.
            at: the time to decide for (Unix seconds); without one, the time of each record.
        """
        self.summary = Summary()
        self.at = at
        self._new, self._against = new, against

    def records(self, records: Iterable[AuditRecord]) -> None:
        """Decide the requests of audit records again."""
        summary = self.summary
        for record in records:
            stored = stored_of(record)
            name = record.name or record.user or record.host
            if record.decision == "admit":
                summary.saw(name, judged=stored is not None)
            if stored is None:
                if record.request is None:
                    summary.without_request += 1
                else:
                    summary.undecidable += 1
                continue
            self._decide(stored, name, record.account, record.time.timestamp())

    def files(self, requests: Iterable[FileRequest], now: float) -> None:
        """Decide the requests that tokens and certificates in files stand for, for ``now`` unless a time was given."""
        for request in requests:
            if request.stored is None:
                self.summary.undecidable += 1
            else:
                self._decide(request.stored, request.name, None, None, now)

    def _decide(
        self, stored: Stored, name: str, account: str | None, time: float | None, now: float | None = None
    ) -> None:
        moment = self.at if self.at is not None else (time or now or 0.0)
        former = recorded(stored, account)
        new = self._new.decide(stored, moment, self._against)
        if self._against is not None:
            former = judged(self._against.decide(stored, moment, self._against), former)
        self.summary.count(time, new.skipped)
        difference = compare(former, new)
        if difference is None:
            self.summary.unchanged += 1
        else:
            self.summary.add(difference, name, time, reason(new))
