"""Edge cases of tokens, and the result of each implementation.

Every row has a valid signature of :data:`ORG`, so that only the edge case decides. The differences are listed in
``docs/moving-from-choria.md``; a test compares that table with this one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import DAY, HOUR
from tests.builders.tokens import (
    ABSENT,
    CREATOR,
    HOLDER,
    ORG,
    Claims,
    client_claims,
    creator_claims,
    issued,
    ksuid,
    org_issuer,
    provisioning_claims,
    server_claims,
    sign,
    sign_hmac,
    sign_parts,
    unb64,
)

Kind = Literal["client", "server", "provisioning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One token.

    Attributes:
        name: the edge case, as in the documentation.
        kind: the expected kind of token.
        make: returns the token for a time in Unix seconds.
        ours: the reason of the rejection here; None if it is accepted.
        go: whether choria-io/tokens accepts it.
    """

    name: str
    make: Callable[[int], str]
    ours: TokenFault | None
    go: bool
    kind: Kind = "client"

    @property
    def differs(self) -> bool:
        """Whether the implementations disagree."""
        return (self.ours is None) != self.go


def client_at(now: int, **changes: object) -> Claims:
    """Return a valid client token's claims at ``now``."""
    times: Claims = {"jti": ksuid(now), "iat": now, "nbf": now, "exp": now + HOUR}
    return client_claims(**(times | changes))


def _client(**changes: object) -> Callable[[int], str]:
    return lambda now: sign(client_at(now, **changes), ORG)


def _timed(**offsets: float) -> Callable[[int], str]:
    return lambda now: sign(client_at(now, **{name: now + offset for name, offset in offsets.items()}), ORG)


def _server(**changes: object) -> Callable[[int], str]:
    def make(now: int) -> str:
        times: Claims = {"jti": ksuid(now), "iat": now, "nbf": now, "exp": now + HOUR}
        return sign(server_claims(**(times | changes)), ORG)

    return make


def _provisioning(**changes: object) -> Callable[[int], str]:
    def make(now: int) -> str:
        times: Claims = {"jti": ksuid(now), "iat": now, "nbf": now, "exp": now + HOUR}
        return sign(provisioning_claims(**(times | changes)), ORG)

    return make


def _spelled(change: Callable[[str], str]) -> Callable[[int], str]:
    """Return a valid token, its text changed after it was signed."""
    return lambda now: change(sign(client_at(now), ORG))


def _text(change: Callable[[str, int], str | bytes]) -> Callable[[int], str]:
    """Return a token signed over changed JSON."""
    return lambda now: sign(change(json.dumps(client_at(now)), now), ORG)


def _chained(**changes: object) -> Callable[[int], str]:
    """Return a token issued by a chain issuer, some of its claims changed before the chain is signed."""

    def make(now: int) -> str:
        return sign(issued(client_at(now, **changes), creator_token=_creator(now)), CREATOR)

    return make


def _chained_then(change: Callable[[Claims], Claims]) -> Callable[[int], str]:
    """Return a token issued by a chain issuer, its claims changed after the chain was signed."""
    return lambda now: sign(change(issued(client_at(now), creator_token=_creator(now))), CREATOR)


def _creator(now: int) -> Claims:
    return creator_claims(jti=ksuid(now, b"fedcba9876543210"), iat=now, nbf=now, exp=now + DAY)


def _aged(now: int, made: int) -> Claims:
    """Return a chain issuer made at ``made`` whose own token still lasts a day."""
    return creator_claims(jti=ksuid(made, b"fedcba9876543210"), iat=made, nbf=made, exp=now + DAY)


def _below(creator: Callable[[int], Claims]) -> Callable[[int], str]:
    return lambda now: sign(issued(client_at(now), creator_token=creator(now)), CREATOR)


def _chain_issuer(change: Callable[[Claims], Claims] = lambda claims: claims) -> Callable[[int], str]:
    return lambda now: sign(change(_creator(now)), ORG)


def _server_chain_issuer(now: int) -> str:
    claims = server_claims(jti=ksuid(now), iat=now, nbf=now, exp=now + DAY)
    return sign(org_issuer(claims), ORG)


def _upper_case_issuer(claims: Claims) -> Claims:
    prefix, key = claims["iss"].split(".")
    return claims | {"iss": f"{prefix}.{key.upper()}"}


def _other_trailing_bits(token: str) -> str:
    """Change one of the four bits of the last character that 64 bytes do not use."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    assert unb64(other.rpartition(".")[2]) == unb64(token.rpartition(".")[2])
    return other


def _without_signature_algorithm(now: int) -> str:
    return sign_parts('{"alg":"none","typ":"JWT"}', client_at(now), lambda message: ORG.signature(message))


EDGES: Final = (
    # Accepted by both
    Edge(name="nothing special", make=_client(), ours=None, go=True),
    Edge(name="upper-case hex in `public_key`", make=_client(public_key=HOLDER.hex.upper()), ours=None, go=True),
    Edge(
        name="`null` for claims that may be absent",
        make=_client(sub=None, tcs=None, issexp=None, agents=None, permissions=None, pub_subjects=None),
        ours=None,
        go=True,
    ),
    Edge(name="`null` for a permission", make=_client(permissions={"org_admin": None}), ours=None, go=True),
    Edge(name="unknown claims and permissions", make=_client(permissions={"x": 1}, x=[1]), ours=None, go=True),
    Edge(name="fractional times", make=_timed(iat=-1.5, nbf=-1.5, exp=60.5), ours=None, go=True),
    Edge(name="a trailing newline", make=_spelled(lambda token: token + "\n"), ours=None, go=True),
    Edge(name="trailing carriage return and newline", make=_spelled(lambda token: token + "\r\n"), ours=None, go=True),
    Edge(name="a chain issuer's token", make=_chain_issuer(), ours=None, go=True),
    Edge(name="a token issued by a chain issuer", make=_chained(), ours=None, go=True),
    Edge(name="upper-case hex in a chain's `iss`", make=_chained_then(_upper_case_issuer), ours=None, go=True),
    Edge(
        name="provisioning by `sub`, without `purpose`",
        make=_provisioning(purpose=ABSENT, sub="choria_provisioning"),
        kind="provisioning",
        ours=None,
        go=True,
    ),
    # Rejected by both
    Edge(name="expired", make=_timed(iat=-HOUR, nbf=-HOUR, exp=-1), ours=TokenFault.EXPIRED, go=False),
    Edge(name="not valid yet", make=_timed(nbf=HOUR, exp=DAY), ours=TokenFault.NOT_YET_VALID, go=False),
    Edge(name="padding", make=_spelled(lambda token: token + "=="), ours=TokenFault.ENCODING, go=False),
    Edge(name="a time that is `true`", make=_client(exp=True), ours=TokenFault.CLAIM_TYPE, go=False),
    Edge(name="`alg` is `none`", make=_without_signature_algorithm, ours=TokenFault.ALGORITHM, go=False),
    Edge(
        name="an HMAC keyed with the public key",
        make=lambda now: sign_hmac(client_at(now), ORG.hex.encode()),
        ours=TokenFault.ALGORITHM,
        go=False,
    ),
    Edge(name="wrong type of a known claim", make=_client(callerid=5), ours=TokenFault.CLAIM_TYPE, go=False),
    Edge(
        name="an issued token without `issexp`",
        make=_chained_then(lambda claims: {k: v for k, v in claims.items() if k != "issexp"}),
        ours=TokenFault.CHAIN_CLAIM_MISSING,
        go=False,
    ),
    Edge(
        name="an issued token whose `jti` was not made at `iat`",
        make=lambda now: _chained(jti=ksuid(now - 1))(now),
        ours=TokenFault.CHAIN_ID_TIME,
        go=False,
    ),
    Edge(
        name="an issued token signed by the organization",
        make=lambda now: sign(issued(client_at(now), creator_token=_creator(now)), ORG),
        ours=TokenFault.SIGNATURE,
        go=False,
    ),
    # Rejected only here
    Edge(name="no `exp`", make=_client(exp=ABSENT), ours=TokenFault.NO_EXPIRY, go=True),
    Edge(name="`iat` in the future", make=_timed(iat=HOUR, exp=DAY), ours=TokenFault.ISSUED_IN_FUTURE, go=True),
    Edge(
        name="times as text",
        make=lambda now: sign(client_at(now, exp=str(now + HOUR)), ORG),
        ours=TokenFault.CLAIM_TYPE,
        go=True,
    ),
    Edge(
        name="a claim twice",
        make=_text(lambda text, _: text[:-1] + ', "ou": "choria"}'),
        ours=TokenFault.DUPLICATE_CLAIM,
        go=True,
    ),
    Edge(
        name="a `crit` header",
        make=lambda now: sign(client_at(now), ORG, header={"crit": ["exp"]}),
        ours=TokenFault.CRITICAL_HEADER,
        go=True,
    ),
    Edge(
        name="unused bits set in base64url",
        make=_spelled(_other_trailing_bits),
        ours=TokenFault.ENCODING,
        go=True,
    ),
    Edge(
        name="a newline within the signature",
        make=_spelled(lambda token: f"{token[:-4]}\n{token[-4:]}"),
        ours=TokenFault.ENCODING,
        go=True,
    ),
    Edge(
        name="bytes that are not UTF-8",
        make=_text(lambda text, _: text.encode().replace(b"alice", b"al\xffice")),
        ours=TokenFault.NOT_JSON,
        go=True,
    ),
    Edge(name="more than 16 KiB", make=_client(opa_policy="x" * 17_000), ours=TokenFault.TOO_LARGE, go=True),
    Edge(
        name="nested deeper than 16",
        make=_text(lambda text, _: text[:-1] + ', "x": ' + "[" * 17 + "]" * 17 + "}"),
        ours=TokenFault.TOO_DEEP,
        go=True,
    ),
    Edge(name="`tcs` without a chain's `iss`", make=_client(tcs="ab" * 64), ours=TokenFault.CHAIN_ISSUER, go=True),
    Edge(
        name="`issexp` in the past, outside a chain",
        make=_timed(issexp=-HOUR),
        ours=TokenFault.ISSUER_EXPIRED,
        go=True,
    ),
    Edge(
        name="a chain issuer without `tcs`",
        make=_chain_issuer(lambda claims: claims | {"tcs": None}),
        ours=TokenFault.CHAIN_CLAIM_MISSING,
        go=True,
    ),
    Edge(
        name="a chain issuer whose `jti` is not a KSUID",
        make=lambda now: sign(org_issuer(client_at(now, jti="an id")), ORG),
        ours=TokenFault.CHAIN_ID,
        go=True,
    ),
    Edge(
        name="a chain issuer that names another organization's key",
        make=_chain_issuer(lambda claims: claims | {"iss": f"I-{CREATOR.hex}"}),
        ours=TokenFault.CHAIN_ISSUER_KEY,
        go=True,
    ),
    Edge(
        name="a server's token as chain issuer, without `tcs`",
        make=_server(iss=f"I-{ORG.hex}"),
        kind="server",
        ours=TokenFault.CHAIN_CLAIM_MISSING,
        go=True,
    ),
    Edge(
        name="a chain issuer whose `tcs` does not verify",
        make=_chain_issuer(lambda claims: claims | {"tcs": "ab" * 64}),
        ours=TokenFault.CHAIN_ORG_SIGNATURE,
        go=True,
    ),
    Edge(
        name="a chain issuer's token older than 366 days",
        make=lambda now: sign(_aged(now, now - 367 * DAY), ORG),
        ours=TokenFault.CHAIN_ISSUER_TOO_OLD,
        go=True,
    ),
    Edge(
        name="a token issued by a chain issuer older than 366 days",
        make=_below(lambda now: _aged(now, now - 367 * DAY)),
        ours=TokenFault.CHAIN_ISSUER_TOO_OLD,
        go=True,
    ),
    Edge(
        name="a token issued by a chain issuer made in the future",
        make=_below(lambda now: _aged(now, now + HOUR)),
        ours=TokenFault.CHAIN_ISSUER_IN_FUTURE,
        go=True,
    ),
    Edge(
        name="a token issued by a chain issuer whose `jti` is not a KSUID",
        make=_below(lambda now: org_issuer(client_claims(jti="an id", public_key=CREATOR.hex, exp=now + DAY))),
        ours=TokenFault.CHAIN_ISSUER_ID,
        go=True,
    ),
    Edge(
        name="a fractional `iat` in a chain",
        make=lambda now: _chained(iat=now - 59.5)(now - 60),
        ours=TokenFault.CHAIN_ID_TIME,
        go=True,
    ),
    Edge(
        name="a server in no collective",
        make=_server(collectives=[]),
        kind="server",
        ours=TokenFault.CLAIM_MISSING,
        go=True,
    ),
    Edge(
        name="provisioning by `sub`, beside another `purpose`",
        make=_provisioning(purpose="other", sub="choria_provisioning"),
        kind="provisioning",
        ours=TokenFault.PURPOSE,
        go=True,
    ),
    # Rejected only by Go
    Edge(name="white space around the token", make=_spelled(lambda token: f" \t{token} "), ours=None, go=False),
    Edge(name="wrong type of a claim that is not used", make=_client(aud=5), ours=None, go=False),
    Edge(
        name="a claim again under a name in other letters",
        make=_text(lambda text, now: f'{text[:-1]}, "EXP": {now - HOUR}}}'),
        ours=None,
        go=False,
    ),
    Edge(name="a server's token as chain issuer", make=_server_chain_issuer, kind="server", ours=None, go=False),
)
