"""A service process: settings in, signals handled, one event loop, exit when drained."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from broker_auth.callout.service import Service, make_callout
from broker_auth.errors import BrokerAuthError, ConfigurationError
from broker_auth.observe.audit import AuditSink
from broker_auth.settings.load import load
from broker_auth.settings.model import Settings
from broker_auth.settings.policy import build_policy

_log = logging.getLogger(__name__)

try:  # the `fast` extra is optional
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
except ImportError:
    _new_loop = None


def run(config: Path, settings: Settings, audit: AuditSink) -> None:
    """Serve in this process until SIGTERM or SIGINT; SIGHUP reloads the policy from ``config``."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_serve(config, settings, audit))


async def _serve(config: Path, settings: Settings, audit: AuditSink) -> None:
    service = Service(settings, make_callout(settings, build_policy(settings), audit))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload_policy, config, service)
    try:
        await service.run(stop)
    finally:
        audit.close()
    _log.info("drained, every request received is answered")


def reload_policy(config: Path, service: Service) -> bool:
    """Replace the policy if the configuration is usable as a whole; keep the old one if not."""
    try:
        service.callout.policy = build_policy(load(config, os.environ, serving=True))
    except ConfigurationError as error:
        for problem in error.problems:
            _log.error("not reloaded: %s", problem)
        return False
    except BrokerAuthError as error:
        _log.error("not reloaded: %s", error)
        return False
    _log.info("reloaded %s", config)
    return True
