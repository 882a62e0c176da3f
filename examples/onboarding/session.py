"""Sessions with a broker, one at a time, and one line with the reason of each end.

nats-py never reconnects after a session has expired (fact 25), and a program's credentials may have been replaced on
disk meanwhile. So nothing reconnects automatically here: `run` lets its program read everything again and log in again.
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
_JITTER: Final = random.SystemRandom()  # spreads the attempts of devices that were refused at the same time


class RefusedError(Exception):
    """A broker cannot be reached or denies the login. A later attempt may succeed, such as with a running service."""


class EndedError(Exception):
    """A session that had been admitted has ended."""


class FatalError(Exception):
    """An error that needs an operator: the program ends with status 1."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """The credentials that a connection presents.

    Attributes:
        tls: the CA of the brokers, and optionally our certificate and key.
        options: fields of CONNECT: user, pass, auth_token.
        key: signs the broker's nonce for client and server tokens (docs/policy.md#claims-that-must-be-there).
    """

    name: str
    tls: TLSFiles
    options: dict[str, str] = field(default_factory=dict, repr=False)
    key: Ed25519PrivateKey | None = None
    inbox: str = "_INBOX"


class Client(SecuredClient):
    """A client that requires TLS, which nats-py does not, and adds the fields of its login to CONNECT."""

    def __init__(self, login: Login) -> None:
        """Create the client without connecting."""
        super().__init__()
        self._login = login

    def connect_options(self) -> dict[str, Any]:
        """Return the fields that the login adds to CONNECT."""
        login = self._login
        if login.key is None or not self.nonce:
            return login.options
        signature = base64.urlsafe_b64encode(login.key.sign(self.nonce.encode())).rstrip(b"=")
        return {**login.options, "sig": signature.decode()}


async def session(urls: Sequence[str], login: Login, work: Callable[[Client], Awaitable[None]]) -> None:
    """Connect to one of the URLs, and run `work` until it is done.

    Raises:
        RefusedError: no broker admits us.
        EndedError: the session ended before the work was done.
    """
    failures = []
    for url in _JITTER.sample(urls, len(urls)):
        closed = asyncio.Event()
        try:
            client = await _connect(url, login, closed)
        except (NatsError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            failures.append(f"{url}: {str(error) or type(error).__name__}")
            continue
        working, ending = asyncio.ensure_future(work(client)), asyncio.ensure_future(closed.wait())
        try:
            await asyncio.wait((working, ending), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
            if not client.is_connected:  # a subscription of a closed connection ends without an error
                raise EndedError(f"the session at {url} ended: {client.last_error or 'the broker closed it'}")
        except (NatsError, OSError) as error:
            raise EndedError(f"the session at {url} ended: {str(error) or type(error).__name__}") from error
        else:
            return
        finally:
            for task in (working, ending):
                task.cancel()
            await asyncio.gather(working, ending, return_exceptions=True)
            await client.close()
    raise RefusedError(f"login failed: {'; '.join(failures)}")


async def _connect(url: str, login: Login, closed: asyncio.Event) -> Client:
    client = Client(login)

    async def on_close() -> None:
        closed.set()

    async def on_error(error: Exception) -> None:
        """Ignore the error, which `last_error` has too; by default nats-py would log a traceback."""

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
            await client.flush()  # with TLS 1.3 a client learns only now that its certificate is missing
    except BaseException:
        client.abort()
        with contextlib.suppress(Exception):
            await client.close()
        raise
    return client


def run(live: Callable[[], Awaitable[None]]) -> None:
    """Run sessions until a signal (exit status 0) or until an error is fatal (status 1, with the reason)."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it warns about each closed TLS connection

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
    """Print one line; text from strangers cannot make it two."""
    print("".join(character if character.isprintable() else "?" for character in line), flush=True)
