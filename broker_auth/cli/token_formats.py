"""The formats of ``token check``: text, JSON, a Nagios plugin's line, and Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker_auth.cli import output
from broker_auth.times import short_duration
from broker_auth.tokens.check import CheckResult
from broker_auth.tokens.show import bounds_lines, chain_issuer_line, lines

FORMATS: Final = ("text", "json", "nagios", "prometheus")
UNREADABLE: Final = "unreadable"
ACCEPTED, REJECTED, EXPIRES_SOON = 0, 1, 3  # 2 is wrong usage
NAGIOS_UNKNOWN: Final = 3
_NAGIOS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")  # by exit code
METRICS: Final = (
    ("broker_auth_token_valid", "Whether the token is accepted."),
    ("broker_auth_token_expires_soon", "Whether the token expires sooner than required, and nothing else is wrong."),
    ("broker_auth_token_expiry_timestamp_seconds", "When the token stops being accepted."),
)


@dataclass(frozen=True, slots=True)
class Checked:
    """A file and the result of checking the token in it."""

    file: str
    result: CheckResult

    @property
    def status(self) -> int:
        """The exit code for this token alone."""
        if self.result.valid:
            return ACCEPTED
        return EXPIRES_SOON if self.result.soon else REJECTED

    @property
    def nagios(self) -> int:
        """The exit code of a Nagios plugin for this token alone."""
        if self.result.code == UNREADABLE:
            return NAGIOS_UNKNOWN
        return {ACCEPTED: 0, EXPIRES_SOON: 1, REJECTED: 2}[self.status]


def exit_code(checked: Sequence[Checked], form: str) -> int:
    """Return the exit code: that of the worst token, as the format counts them."""
    if form == "nagios":
        statuses = {item.nagios for item in checked}
        return next(status for status in (2, 3, 1, 0) if status in statuses)
    statuses = {item.status for item in checked}
    return next(status for status in (REJECTED, EXPIRES_SOON, ACCEPTED) if status in statuses)


def show(checked: Sequence[Checked], form: str, now: float) -> None:
    """Print the results; ``now`` is in Unix seconds."""
    match form:
        case "json":
            documents = [_document(item) for item in checked]
            output.document(documents[0] if len(documents) == 1 else documents)
        case "nagios":
            output.note(_nagios(checked, now))
        case "prometheus":
            for line in _prometheus(checked):
                output.note(line)
        case _:
            for item in checked:
                _text(item, now, named=len(checked) > 1)


def _document(item: Checked) -> dict[str, Any]:
    result = item.result
    issuer = result.chain_issuer
    return {
        "file": item.file,
        "valid": result.valid,
        "code": result.code,
        "reason": result.reason,
        "purpose": result.purpose,
        "signer": result.signer,
        "claims": result.claims,
        "expires": output.rfc3339(result.expires),
        "chain_issuer": issuer and {"token_id": issuer.id, "ends": output.rfc3339(issuer.ends)},
        "bounds": result.bounds and result.bounds.claim(),
    }


def _text(item: Checked, now: float, *, named: bool) -> None:
    result, place = item.result, f"{item.file}: " if named else ""
    if not result.valid:
        output.error(f"{place}token rejected: {result.reason}")
        return
    output.note(f"{place}accepted: {result.purpose} token signed by {result.signer}, {_ends(result, now)}")
    if not named:
        for line in lines(result.claims or {}, now):
            output.note(line)
        for line in bounds_lines(result.bounds):
            output.note(line)
        if result.chain_issuer is not None:
            output.note(chain_issuer_line(result.chain_issuer, now))


def _ends(result: CheckResult, now: float) -> str:
    return "never expires" if result.expires is None else f"expires in {short_duration(result.expires - now, ' ')}"


def _nagios(checked: Sequence[Checked], now: float) -> str:
    """Return one line as plugins for Nagios print it: state, text, and after ``|`` the seconds left of each token."""
    state = _NAGIOS[exit_code(checked, "nagios")]
    text = "; ".join(f"{item.file} {_summary(item, now)}" for item in checked).replace("|", "/")
    left = [(item.file, item.result.expires) for item in checked if item.result.expires is not None]
    performance = " ".join(f"{_label(file)}={expires - now:.0f}s" for file, expires in left)
    return f"TOKEN {state} - {text}" + (f" | {performance}" if performance else "")


def nagios_failure(error: Exception) -> str:
    """Return the line of a Nagios plugin that cannot check any token."""
    return f"TOKEN {_NAGIOS[NAGIOS_UNKNOWN]} - {error}".replace("|", "/")


def _summary(item: Checked, now: float) -> str:
    return _ends(item.result, now) if item.result.valid else str(item.result.reason)


def _label(file: str) -> str:
    """Return a label of performance data: quoted, without the characters that end one."""
    return "'" + file.translate({ord("'"): "_", ord("="): "_", ord("|"): "_"}) + "'"


def _prometheus(checked: Sequence[Checked]) -> Iterator[str]:
    for name, text in METRICS:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} gauge"
        for item in checked:
            value = _value(name, item)
            if value is not None:
                purpose = item.result.purpose or ""
                yield f"{name}{{file={_quoted(item.file)},purpose={_quoted(purpose)}}} {value}"


def _quoted(value: str) -> str:
    """Return a label's value. The format has fewer escapes than JSON, and another escape spoils the file."""
    plain = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(name: str, item: Checked) -> str | None:
    if name.endswith("_valid"):
        return str(int(item.result.valid))
    if name.endswith("_soon"):
        return str(int(item.result.soon))
    return None if item.result.expires is None else f"{item.result.expires:.0f}"
