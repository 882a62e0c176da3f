"""One session with a broker at a time, and one line for why it ended.

nats-py never comes back from a session that expired (fact 25), and what lets a program in may have been replaced on
disk meanwhile. So nothing reconnects by itself here: `run` has its program read everything again and log in again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.errors import Error as NatsError

from broker_auth.errors import BrokerAuthError
from broker_auth.natsio.client import SecuredClient
from broker_auth.natsio.tls import TLSFiles, tls_context

CONNECT_SECONDS: Final = 15
FIRST_PAUSE: Final = 1.0  # seconds; doubled at each refusal, up to
LONGEST_PAUSE: Final = 60.0
_JITTER: Final = random.SystemRandom()  # a fleet of devices that was refused together comes back one by one


class RefusedError(Exception):
    """A broker cannot be reached, or does not let us in. Perhaps it will: no service may run, or files be replaced."""


class EndedError(Exception):
    """A session that was let in has ended."""


class FatalError(Exception):
    """Something that does not mend itself: the program ends with status 1."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """The credentials that a connection presents.

    Attributes:
        tls: the CA of the brokers, and our certificate and key if there are any.
        options: what CONNECT says: user, pass, auth_token.
        key: signs the broker's nonce, as client and server tokens need it (docs/policy.md#claims-that-must-be-there).
    """

    name: str
    tls: TLSFiles
    options: dict[str, str] = field(default_factory=dict, repr=False)
    key: Ed25519PrivateKey | None = None
    inbox: str = "_INBOX"


class Client(SecuredClient):
    """A client that insists on TLS, which nats-py does not, and says in CONNECT what its login says."""

    def __init__(self, login: Login) -> None:
        """Connect nowhere yet."""
        super().__init__()
        self._login = login

    def connect_options(self) -> dict[str, Any]:
        """Return what the login adds to CONNECT."""
        login = self._login
        if login.key is None or not self.nonce:
            return login.options
        signature = base64.urlsafe_b64encode(login.key.sign(self.nonce.encode())).rstrip(b"=")
        return {**login.options, "sig": signature.decode()}


async def session(urls: Sequence[str], login: Login, work: Callable[[Client], Awaitable[None]]) -> None:
    """Connect to one of the URLs, and work until that is done.

    Raises:
        RefusedError: none lets us in.
        EndedError: the session ended before the work was done.
    """
    failures = []
    for url in _JITTER.sample(urls, len(urls)):
        closed = asyncio.Event()
        try:
            client = await _connect(url, login, closed)
        except (NatsError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            failures.append(f"{url}: {error or type(error).__name__}")
            continue
        working, ending = asyncio.ensure_future(work(client)), asyncio.ensure_future(closed.wait())
        try:
            await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            if not client.is_connected:  # a subscription of a closed connection ends like one with nothing more to say
                raise EndedError(f"the session at {url} ended: {client.last_error or 'the broker closed it'}")
        except (NatsError, OSError) as error:
            raise EndedError(f"the session at {url} ended: {error or type(error).__name__}") from error
        else:
            return
        finally:
            for task in (working, ending):
                task.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)
            await client.close()
    raise RefusedError(f"not let in: {'; '.join(failures)}")


async def _connect(url: str, login: Login, closed: asyncio.Event) -> Client:
    client = Client(login)

    async def on_close() -> None:
        closed.set()

    async def on_error(error: Exception) -> None:
        """Leave it to `last_error`; nats-py would log a traceback."""

    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                url,
                name=login.name,
                tls=tls_context(login.tls),
                inbox_prefix=login.inbox,
                allow_reconnect=False,
                closed_cb=on_close,
                error_cb=on_error,
            )
            await client.flush()  # TLS 1.3 tells a client only now that its certificate is missing
    except BaseException:
        client.abort()
        with contextlib.suppress(Exception):
            await client.close()
        raise
    return client


def run(live: Callable[[], Awaitable[None]]) -> None:
    """Run sessions until told to stop (exit status 0) or until an error is fatal (status 1, with the reason)."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it warns of each TLS connection that is refused or closed

    async def until_stopped() -> None:
        task = asyncio.current_task()
        assert task
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await _run_sessions(live)

    try:
        asyncio.run(until_stopped())
    except asyncio.CancelledError:
        say("stopped")
    except (FatalError, BrokerAuthError, ImportError, OSError) as error:  # a missing file is named by its error
        sys.exit(f"error: {error}")


async def _run_sessions(live: Callable[[], Awaitable[None]]) -> None:
    pause, reported = FIRST_PAUSE, ""
    while True:
        try:
            await live()
        except RefusedError as error:
            if str(error) != reported:  # once for each reason, not for each attempt
                say(f"{error}; trying again")
            reported = str(error)
            await asyncio.sleep(pause * _JITTER.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)
        except EndedError as error:
            say(f"{error}; connecting again")
            pause, reported = FIRST_PAUSE, ""
            await asyncio.sleep(pause * _JITTER.uniform(0.5, 1))
        else:
            pause, reported = FIRST_PAUSE, ""


def say(line: str) -> None:
    """Print one line; what strangers wrote into it cannot make it two."""
    print("".join(character if character.isprintable() else "?" for character in line), flush=True)
