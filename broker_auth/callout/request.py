"""From bytes to an :class:`AuthorizationRequest`: every check of docs/interface.md#the-wire, in its order.

A message that fails a check gets no reply: it was not sent by nats-server, or it is too late.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from broker_auth import encoding
from broker_auth.cache import BoundedCache
from broker_auth.errors import BrokerAuthError, InputError
from broker_auth.natsio.nkey import NkeyKind, decode_public
from broker_auth.natsio.xkey import Sealer, SealError
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.keys import verify_ed25519

MAX_REQUEST_BYTES: Final = 512 * 1024  # docs/interface.md#the-wire
AUDIENCE: Final = "nats-authorization-request"
REQUEST_TYPE: Final = "authorization_request"
CLAIMS_VERSION: Final = 2
XKEY_HEADER: Final = "Nats-Server-Xkey"
HEADER: Final = encoding.encode(b'{"typ":"JWT","alg":"ed25519-nkey"}')
_MAX_HEADER_BYTES: Final = 256  # of a JWT
MAX_HEADERS_BYTES: Final = 1024  # of a message; the server's are some 100
_XKEY_NAME: Final = XKEY_HEADER.encode()
_SERVERS: Final = 1024  # server keys remembered


class WireFault(StrEnum):
    """Reasons for not answering a message; the codes are used in metrics and in the log."""

    NO_REPLY_SUBJECT = "no_reply_subject"
    TOO_LARGE = "too_large"
    NOT_SEALED = "not_sealed"
    SEALED = "sealed_without_xkey"
    SEAL = "seal"
    NOT_A_JWT = "not_a_jwt"
    HEADER = "header"
    CLAIMS = "claims"
    LATE = "late"
    SHED = "shed"
    ISSUER = "issuer"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    USER_NKEY = "user_nkey"
    TYPE = "type"
    VERSION = "version"
    XKEY = "xkey"


class WireError(BrokerAuthError):
    """A message that is not a valid authorization request; never answered."""

    def __init__(self, fault: WireFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


class _Header(msgspec.Struct):
    typ: str
    alg: str


_Seconds = Annotated[
    int, msgspec.Meta(ge=0, le=2**40)
]  # Unix seconds; larger numbers are not valid times and not exact as floats


class _Claims(msgspec.Struct):
    iss: str
    aud: str
    exp: _Seconds
    iat: _Seconds
    nats: AuthorizationRequest


class Parked(msgspec.Struct):
    """A request that waits under load: its signed token only, which takes a third of the memory.

    Attributes:
        token: the JWT, decrypted and not verified.
        server_xkey: the ``Nats-Server-Xkey`` header.
    """

    token: bytes
    server_xkey: str | None


class Opened(Parked):
    """A request that is decrypted and decoded. Nothing in it is verified yet.

    Attributes:
        claims: the token's claims.
    """

    claims: _Claims

    def park(self) -> Parked:
        """Return the request without its decoded claims."""
        return Parked(self.token, self.server_xkey)


class RequestReader:
    """The reader of requests, which must be encrypted if there is a sealer, and must not be otherwise."""

    def __init__(self, sealer: Sealer | None) -> None:
        self._sealer = sealer
        self._decoder = msgspec.json.Decoder(_Claims)
        self._headers = msgspec.json.Decoder(_Header)
        self._servers: BoundedCache[str, bytes] = BoundedCache(_SERVERS)

    def open(self, data: bytes, server_xkey: str | None) -> Opened:
        """Decrypt and decode a message, without verifying it.

        The result is enough to choose which of many waiting requests to verify first, never to decide by.

        Args:
            data: the message as received.
            server_xkey: its ``Nats-Server-Xkey`` header, None if absent.

        Raises:
            WireError: the message cannot be read.
        """
        if len(data) > MAX_REQUEST_BYTES:
            raise WireError(WireFault.TOO_LARGE, f"request is larger than {MAX_REQUEST_BYTES} bytes")
        token = self._unseal(data, server_xkey)
        header, claims, _ = _split(token)
        if header != HEADER:
            self._check_header(header)
        return Opened(token, server_xkey, self._claims(claims))

    def verify(self, received: Parked, now: float) -> AuthorizationRequest:
        """Return the request, with every check of docs/interface.md#the-wire done.

        Args:
            received: the request as :meth:`open` returned it, or as it was parked.
            now: Unix seconds.

        Raises:
            WireError: a check failed.
        """
        claims = received.claims if isinstance(received, Opened) else self._claims(_split(received.token)[1])
        request = claims.nats
        # Before any signature: answers that come too late are thrown away by the server. `exp` is
        # in whole seconds, so a request is late as soon as its second has begun.
        if claims.exp <= now:
            raise WireError(WireFault.LATE, "request came too late to be answered")
        if claims.iss != request.server_id.id:
            raise WireError(WireFault.ISSUER, "request is issued by another server than it names")
        signed, _, signature = received.token.rpartition(b".")
        if not verify_ed25519(self._servers_key(claims.iss), signed, _signature(signature)):
            raise WireError(WireFault.SIGNATURE, "request is not signed by the server it names")
        _check_content(claims, request)
        if self._sealer is not None and request.server_id.xkey != received.server_xkey:
            raise WireError(WireFault.XKEY, "request names another xkey than its header")
        return request

    def _unseal(self, data: bytes, server_xkey: str | None) -> bytes:
        if self._sealer is None:
            if server_xkey is not None:
                raise WireError(WireFault.SEALED, "request is encrypted, but no xkey is configured")
            return data
        if server_xkey is None:
            raise WireError(WireFault.NOT_SEALED, "request is not encrypted, but an xkey is configured")
        try:
            return self._sealer.open(data, server_xkey)
        except SealError as error:
            raise WireError(WireFault.SEAL, str(error)) from error

    def _check_header(self, part: bytes) -> None:
        try:
            if len(part) > _MAX_HEADER_BYTES:
                raise ValueError("too long")
            header = self._headers.decode(encoding.decode(part))
        except (ValueError, RecursionError) as error:
            raise WireError(WireFault.HEADER, "request header cannot be read") from error
        if header.typ.upper() != "JWT" or header.alg != "ed25519-nkey":
            raise WireError(WireFault.HEADER, "request header is not that of an ed25519-nkey JWT")

    def _claims(self, part: bytes) -> _Claims:
        try:
            return self._decoder.decode(encoding.decode(part))
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise WireError(WireFault.CLAIMS, "request claims cannot be read") from error

    def _servers_key(self, nkey: str) -> bytes:
        key = self._servers.get(nkey)
        if key is None:
            try:
                key = decode_public(nkey, NkeyKind.SERVER)
            except InputError as error:
                raise WireError(WireFault.ISSUER, "request issuer is not a server nkey") from error
            self._servers.put(nkey, key)
        return key


def server_xkey(headers: bytes | None) -> str | None:
    """Return the ``Nats-Server-Xkey`` of a message's headers; None if it is missing or the headers are too long."""
    if not headers or len(headers) > MAX_HEADERS_BYTES:
        return None
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == _XKEY_NAME:
            return value.strip().decode("ascii", "replace")
    return None


def _split(token: bytes) -> list[bytes]:
    parts = token.split(b".", 3)
    if len(parts) != 3 or not (parts[0] and parts[1] and parts[2]):
        raise WireError(WireFault.NOT_A_JWT, "request does not have three non-empty parts")
    return parts


def _signature(part: bytes) -> bytes:
    try:
        return encoding.decode(part)
    except ValueError as error:
        raise WireError(WireFault.NOT_A_JWT, "request signature is not base64url") from error


def _check_content(claims: _Claims, request: AuthorizationRequest) -> None:
    if claims.aud != AUDIENCE:
        raise WireError(WireFault.AUDIENCE, f"request audience is not {AUDIENCE}")
    if request.type != REQUEST_TYPE:
        raise WireError(WireFault.TYPE, f"request type is not {REQUEST_TYPE}")
    if request.version != CLAIMS_VERSION:
        raise WireError(WireFault.VERSION, f"request version is not {CLAIMS_VERSION}")
    try:
        decode_public(request.user_nkey, NkeyKind.USER)
    except InputError as error:
        raise WireError(WireFault.USER_NKEY, "request names no user nkey") from error
