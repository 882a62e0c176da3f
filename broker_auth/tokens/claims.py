"""Typed claims of the three kinds of Choria token.

Names and meanings are those of choria-io/tokens (Go). A claim that is ``null`` counts as absent, as it does
there; any other wrong type causes rejection of the token.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from broker_auth.times import MAX_TIME
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.jws import show

ORG_ISSUER_PREFIX: Final = "I-"
CHAIN_ISSUER_PREFIX: Final = "C-"


class Purpose(StrEnum):
    """The kinds of tokens (claim ``purpose``)."""

    CLIENT = "choria_client_id"
    SERVER = "choria_server"
    PROVISIONING = "choria_provisioning"


def earlier(one: float | None, other: float | None) -> float | None:
    """Return the earlier of two times, either of which may be absent."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


class ClientPermissions(msgspec.Struct, frozen=True, kw_only=True):
    """Claim ``permissions`` of a client token."""

    streams_admin: bool = False
    streams_user: bool = False
    events_viewer: bool = False
    election_user: bool = False
    system_user: bool = False
    governor: bool = False
    org_admin: bool = False
    fleet_management: bool = False
    signed_fleet_management: bool = False
    service: bool = False
    authentication_delegator: bool = False
    provisioner: bool = False


class ServerPermissions(msgspec.Struct, frozen=True, kw_only=True):
    """Claim ``permissions`` of a server token."""

    submission: bool = False
    streams: bool = False
    governor: bool = False
    service_host: bool = False


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """The claims that every token may carry. Times are Unix seconds; None if absent."""

    iss: str = ""
    sub: str = ""
    jti: str = ""
    ou: str = ""
    exp: float | None = None
    nbf: float | None = None
    iat: float | None = None
    issexp: float | None = None
    tcs: str = ""
    public_key: str = ""

    @property
    def expires(self) -> float | None:
        """The earlier of ``exp`` and ``issexp``; None if the token has neither."""
        return earlier(self.exp, self.issexp)


class ProvisioningClaims(Claims, frozen=True, kw_only=True):
    """The claims of a provisioning token. Omits the secret ones (``cht``, ``chpwd``) on purpose."""

    chs: bool = False
    chu: str = ""
    chsrv: str = ""
    chpd: bool = False


class ServerClaims(Claims, frozen=True, kw_only=True):
    """The claims of a server token."""

    identity: str = ""
    collectives: tuple[str, ...] = ()
    permissions: ServerPermissions = ServerPermissions()
    pub_subjects: tuple[str, ...] = ()


class ClientClaims(Claims, frozen=True, kw_only=True):
    """The claims of a client token."""

    callerid: str = ""
    permissions: ClientPermissions = ClientPermissions()
    pub_subjects: tuple[str, ...] = ()
    sub_subjects: tuple[str, ...] = ()


_TYPES: Final[dict[Purpose, type[Claims]]] = {
    Purpose.CLIENT: ClientClaims,
    Purpose.SERVER: ServerClaims,
    Purpose.PROVISIONING: ProvisioningClaims,
}


def purpose_of(claims: dict[str, Any]) -> Purpose:
    """Return the unverified purpose; ``sub`` counts only if ``purpose`` is absent or empty (docs/policy.md#3-tokens).

    Raises:
        TokenRejected: the purpose is missing or unknown.
    """
    named = claims.get("purpose")
    if named is None or named == "":
        named = claims.get("sub")
        if named == Purpose.PROVISIONING:
            return Purpose.PROVISIONING
        raise TokenRejected(TokenFault.PURPOSE, "token has no purpose")
    try:
        return Purpose(named)
    except ValueError as error:
        raise TokenRejected(TokenFault.PURPOSE, f"token has the unknown purpose {show(named)}") from error


def typed_claims(claims: dict[str, Any], purpose: Purpose) -> Claims:
    """Return the claims as the type for ``purpose``.

    Raises:
        TokenRejected: a claim has the wrong type, or a time is not a plain finite number.
    """
    present = {name: value for name, value in claims.items() if value is not None}
    for name in ("exp", "nbf", "iat", "issexp"):
        if name in present:
            _require_time(name, present[name])
    permissions = present.get("permissions")
    if isinstance(permissions, dict):
        present["permissions"] = {name: value for name, value in permissions.items() if value is not None}
    try:
        return msgspec.convert(present, _TYPES[purpose], strict=True)
    except msgspec.ValidationError as error:
        raise TokenRejected(TokenFault.CLAIM_TYPE, f"token claims: {error}") from error


def _require_time(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(TokenFault.CLAIM_TYPE, f"token claim '{name}' is not a time in seconds")
    if not -MAX_TIME <= value <= MAX_TIME:  # rejects infinities and NaN too, and is safe for integers of any size
        raise TokenRejected(TokenFault.CLAIM_TYPE, f"token claim '{name}' is out of range")
