"""Checks of the running service, by its HTTP endpoint (``plugin.broker_auth.metrics.listen``)."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from broker_auth.operate.doctor.codes import FindingCode
from broker_auth.operate.doctor.finding import BrokerFindings, Context, Finding
from broker_auth.printable import printable
from broker_auth.settings.model import Settings

_SECONDS: Final = 3.0
_MAX_BYTES: Final = 256 * 1024
_MAX_SHOWN: Final = 20
_LEAST_FREE: Final = 64 * 1024 * 1024  # bytes; below that audit records are about to be lost


def examine_service(context: Context) -> list[Finding]:
    """Read the troubles of the service on this machine, and check that its audit files can be written."""
    findings = BrokerFindings()
    address = context.settings.metrics_listen
    if address is not None:
        _ask(address, findings)
    _audit_files(context.settings, findings)
    return findings.items


def _ask(address: str, findings: BrokerFindings) -> None:
    zones = _page(address, "/healthz", findings)
    if zones is None:
        return
    count = 0
    for zone in list(zones.get("zones") or {})[:_MAX_SHOWN]:
        page = _page(address, f"/healthz/{zone}", findings) or {}
        for text in list(page.get("troubles") or [])[:_MAX_SHOWN]:
            count += 1
            what, _, remedy = printable(str(text)).partition("; ")
            if "clock is" in what:
                findings.error(FindingCode.CLOCK_SKEW, f"zone {zone}: {what}", remedy)
            else:
                findings.error(FindingCode.SERVICE_TROUBLE, f"zone {zone}: {what}", remedy or "see the runbook")
    if not count:
        findings.ok(FindingCode.SERVICE_HEALTH, "the service on this machine reports no troubles")


def _page(address: str, path: str, findings: BrokerFindings) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_SECONDS) as answer:
            body = answer.read(_MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_MAX_BYTES)
    except OSError as error:
        remedy = "start broker-auth serve on this machine, or correct plugin.broker_auth.metrics.listen"
        findings.warning(FindingCode.SERVICE_HEALTH, f"http://{address}{path} does not answer: {error}", remedy)
        return None
    try:
        page = json.loads(body)
    except ValueError:
        page = None
    if not isinstance(page, dict):
        findings.warning(
            FindingCode.SERVICE_HEALTH,
            f"http://{address}{path} is not answered by this service",
            "choose another address",
        )
        return None
    return page


def _audit_files(settings: Settings, findings: BrokerFindings) -> None:
    for path in settings.audit_files:
        problem = _problem(path)
        if problem:
            findings.error(
                FindingCode.AUDIT_FILE,
                f"{path}: {problem}, so audit records are lost",
                "free disk space, or configure another path",
                path,
            )


def _problem(path: Path) -> str:
    """Return why records cannot be written, as far as that is visible without writing."""
    there = path if path.exists() else path.parent
    try:
        system = os.statvfs(there)
    except OSError as error:
        return str(error.strerror)
    if path.exists() and not path.is_file():
        return ""  # a device or a pipe
    return "its disk is full" if system.f_frsize and system.f_bavail * system.f_frsize < _LEAST_FREE else ""
