"""What the running service says of itself, where it can be asked (``plugin.broker_auth.metrics.listen``)."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from broker_auth.operate.doctor.finding import Case, Finding, Notes
from broker_auth.printable import printable
from broker_auth.settings.model import Settings

_SECONDS: Final = 3.0
_MAX_BYTES: Final = 256 * 1024
_MAX_SHOWN: Final = 20
_LEAST_FREE: Final = 64 * 1024 * 1024  # bytes, below which audit records are about to be lost


def examine_service(case: Case) -> list[Finding]:
    """Ask the service on this machine what is wrong, and look whether its audit files can be written."""
    notes = Notes()
    address = case.settings.metrics_listen
    if address is not None:
        _ask(address, notes)
    _audit_files(case.settings, notes)
    return notes.findings


def _ask(address: str, notes: Notes) -> None:
    zones = _page(address, "/healthz", notes)
    if zones is None:
        return
    found = 0
    for zone in list(zones.get("zones") or {})[:_MAX_SHOWN]:
        page = _page(address, f"/healthz/{zone}", notes) or {}
        for text in list(page.get("troubles") or [])[:_MAX_SHOWN]:
            found += 1
            what, _, remedy = printable(str(text)).partition("; ")
            if "clock is" in what:
                notes.error("clock.skew", f"zone {zone}: {what}", remedy)
            else:
                notes.error("service.trouble", f"zone {zone}: {what}", remedy or "see the runbook")
    if not found:
        notes.ok("service.health", "the service on this machine knows of nothing that is wrong")


def _page(address: str, path: str, notes: Notes) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_SECONDS) as answer:
            body = answer.read(_MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_MAX_BYTES)
    except OSError as error:
        remedy = "start broker-auth serve on this machine, or correct plugin.broker_auth.metrics.listen"
        notes.warning("service.health", f"http://{address}{path} does not answer: {error}", remedy)
        return None
    try:
        page = json.loads(body)
    except ValueError:
        page = None
    if not isinstance(page, dict):
        notes.warning("service.health", f"http://{address}{path} is not this service's", "choose another address")
        return None
    return page


def _audit_files(settings: Settings, notes: Notes) -> None:
    for path in settings.audit_files:
        problem = _problem(path)
        if problem:
            notes.error(
                "audit.file", f"{path}: {problem}, so audit records are lost", "make room, or name another place"
            )


def _problem(path: Path) -> str:
    """Return why records cannot be written, as far as it shows without writing any."""
    there = path if path.exists() else path.parent
    try:
        system = os.statvfs(there)
    except OSError as error:
        return str(error.strerror)
    if path.exists() and not path.is_file():
        return ""  # a device or a pipe
    return "its disk is full" if system.f_frsize and system.f_bavail * system.f_frsize < _LEAST_FREE else ""
