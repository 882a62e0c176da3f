"""The figures of the bench that a plan is computed from, measured now or read from an earlier ``bench --json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from broker_auth.bench import connects, decision, measure, storm
from broker_auth.bench.planning import LoginCost, storm_seconds
from broker_auth.errors import InputError

PARTS: Final = ("decision", "connects", "storm")
_STORM: Final = 500  # connections of a quick storm
_SLOW: Final = 1.5  # times the predicted seconds: other programs took processors away


class _Decision(msgspec.Struct):
    cpu_us: float


class _Decisions(msgspec.Struct):
    mtls_xkey: _Decision
    mtls_cold_xkey: _Decision


class _Connect(msgspec.Struct):
    server_cpu_ms: float
    service_cpu_ms: float
    client_cpu_ms: float


class _Connects(msgspec.Struct):
    callout_xkey: _Connect
    callout_xkey_members: _Connect


class _Storm(msgspec.Struct):
    all_in_s: float
    failed_first: float
    missing: float
    connection_kb: float
    login_cpu_ms: float
    cores: float


class _Storms(msgspec.Struct):
    callout_xkey: _Storm | None = None  # None if too few files may be open


@dataclass(frozen=True, slots=True, kw_only=True)
class StormCheck:
    """A measured storm beside the time that the plan's arithmetic gives for it.

    Attributes:
        devices: that connected at the same moment.
        predicted: seconds until all are in, computed.
        measured: seconds until all were in.
        cpu_ratio: CPU of all logins, measured divided by computed; independent of other programs.
        failed: how many gave up their first attempt.
        missing: how many never got in; ``measured`` then means the others.
    """

    devices: int
    predicted: float
    measured: float
    cpu_ratio: float
    failed: int
    missing: int

    @property
    def slow(self) -> bool:
        """Whether it took much longer than predicted, although no client had to try again."""
        return not self.failed and self.measured > _SLOW * self.predicted


class BenchFigures(msgspec.Struct, kw_only=True):
    """The figures of the parts in :data:`PARTS`, with xkey on."""

    decision: _Decisions
    connects: _Connects
    storm: dict[str, _Storms]

    @classmethod
    def from_document(cls, document: Any, name: str) -> Self:
        """Return the figures in a document of ``bench --json``.

        Args:
            document: decoded JSON.
            name: of the file, for errors.

        Raises:
            InputError: a figure is missing.
        """
        try:
            figures = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"{name}: {error}; measure with: broker-auth bench {' '.join(PARTS)} --json") from None
        if not figures._storms():
            raise InputError(f"{name}: every storm was left out; allow more open files (ulimit -n) and measure again")
        return figures

    @property
    def nodes(self) -> LoginCost:
        """The cost of a waiting node, whose provisioning token is known because many devices share it."""
        return self._cost(self.connects.callout_xkey)

    @property
    def members(self) -> LoginCost:
        """The cost of a member, whose certificate is seen for the first time."""
        cold = (self.decision.mtls_cold_xkey.cpu_us - self.decision.mtls_xkey.cpu_us) / 1e6
        return self._cost(self.connects.callout_xkey_members, max(0.0, cold))

    def checks(self) -> list[StormCheck]:
        """Return each measured storm beside the prediction for it."""
        return [
            StormCheck(
                devices=devices,
                predicted=storm_seconds(devices, self.nodes, int(measured.cores)),
                measured=measured.all_in_s,
                cpu_ratio=measured.login_cpu_ms / 1000 / self.nodes.together,
                failed=int(measured.failed_first),
                missing=int(measured.missing),
            )
            for devices, measured in self._storms().items()
        ]

    def _cost(self, connect: _Connect, more: float = 0.0) -> LoginCost:
        storms = self._storms()
        return LoginCost(
            server=connect.server_cpu_ms / 1000,
            service=connect.service_cpu_ms / 1000 + more,
            client=connect.client_cpu_ms / 1000,
            memory=max(1.0, storms[max(storms)].connection_kb * 1000),
        )

    def _storms(self) -> dict[int, _Storm]:
        return {int(count): one.callout_xkey for count, one in self.storm.items() if one.callout_xkey is not None}


def read(path: Path) -> BenchFigures:
    """Return the figures in a file of ``bench --json``.

    Raises:
        InputError: the file cannot be read, or a figure is missing.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: not JSON: {error}") from None
    return BenchFigures.from_document(document, str(path))


def measure_now() -> BenchFigures:
    """Return figures measured now, in half a minute."""
    document = {
        "decision": decision.run(measure.QUICK, ("mtls",)),
        "connects": connects.run(connects.QUICK),
        "storm": storm.run((_STORM,)),
    }
    return BenchFigures.from_document(document, "the measurement")
