"""Issuing tokens: the claims that choria-io/tokens (Go) writes, signed with a key file in Choria's format.

Three steps, each a pure function except for the random part of the token id:

1. :func:`provisioning_claims`, :func:`server_claims` or :func:`client_claims` build the claims,
2. for trust chains, :func:`make_chain_issuer` or :func:`issue_under` (:mod:`.issue_chain`) adds the claims
   of the chain,
3. :meth:`SigningKey.sign` (:mod:`.signing`) signs, and refuses to return a token that verification could not
   parse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from broker_auth.encoding import is_hex_key
from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.times import MAX_TIME
from broker_auth.tokens import ksuid
from broker_auth.tokens.bounds import EXTENSIONS, Bounds
from broker_auth.tokens.bounds import KEY as BOUNDS_KEY
from broker_auth.tokens.claims import ClientPermissions, Purpose, ServerPermissions
from broker_auth.tokens.issue_chain import issue_under, make_chain_issuer
from broker_auth.tokens.jws import show
from broker_auth.tokens.signing import SigningKey, load_signing_key, new_seed, signing_key_from_seed

__all__ = [
    "CLIENT_FLAGS",
    "DEFAULT_ISSUER",
    "DEFAULT_ORGANIZATION",
    "SERVER_FLAGS",
    "Claims",
    "SigningKey",
    "client_claims",
    "issue_under",
    "load_signing_key",
    "make_chain_issuer",
    "new_seed",
    "provisioning_claims",
    "require_public_key",
    "server_claims",
    "signing_key_from_seed",
]

DEFAULT_ISSUER: Final = "Choria Tokens Package"  # the default of choria-io/tokens
DEFAULT_ORGANIZATION: Final = "choria"
CLIENT_FLAGS: Final = ClientPermissions.__struct_fields__
SERVER_FLAGS: Final = ServerPermissions.__struct_fields__
_SCHEMES: Final = ("nats", "tls", "ws", "wss")

Claims = dict[str, Any]
"""Claims to be signed, by their names in the token."""


def provisioning_claims(
    *,
    now: float,
    validity: float,
    token: Secret,
    urls: Sequence[str] = (),
    srv_domain: str = "",
    secure: bool = False,
    default: bool = False,
    registration: str = "",
    facts: str = "",
    username: str = "",
    password: Secret | None = None,
    organization: str = DEFAULT_ORGANIZATION,
    extensions: Mapping[str, Any] | None = None,
    bounds: Bounds | None = None,
    protocol_v2: bool = False,
    allow_update: bool = False,
    issuer: str = DEFAULT_ISSUER,
) -> Claims:
    """Return the claims of a provisioning token (choria-io/tokens ``ProvisioningClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        token: secret that the provisioner presents to the node; anybody who has the JWT can read it.
        urls: brokers to provision through; these or ``srv_domain`` are required.
        srv_domain: domain whose SRV records name the brokers.
        secure: whether nodes use TLS and verify while they provision (``chs``).
        default: provision unless a configuration says otherwise (``chpd``).
        registration: file that nodes publish as registration data.
        facts: file that nodes use as facts.
        username: user name for the broker.
        password: password for the broker.
        organization: ``ou``.
        extensions: free-form data for the provisioner.
        bounds: the nodes that may wait by it; None for any. They are added to the extensions.
        protocol_v2: use the version 2 network protocol.
        allow_update: allow the provisioner to upgrade the node's software.
        issuer: ``iss``.

    Raises:
        InputError: no token, neither URLs nor SRV domain, an unusable URL or validity, or bounds in the extensions too.
    """
    if not token:
        raise InputError("a provisioning token needs an access token (cht)")
    if not srv_domain and not any(urls):
        raise InputError("a provisioning token needs broker URLs or an SRV domain")
    claims = _standard_claims(Purpose.PROVISIONING, now, validity, issuer)
    claims |= {
        "sub": str(Purpose.PROVISIONING),
        "cht": token.reveal(),
        "chs": secure,
        "chpd": default,
        EXTENSIONS: _extensions(extensions, bounds),
    }
    return claims | _present(
        chu=",".join([_broker_url(url) for one in urls for url in one.split(",")]),
        chsrv=srv_domain,
        chrd=registration,
        chf=facts,
        chusr=username,
        chpwd=password.reveal() if password else "",
        ou=organization or DEFAULT_ORGANIZATION,
        v2=protocol_v2,
        update=allow_update,
    )


def _broker_url(text: str) -> str:
    """Return a broker's URL with its scheme; Choria reads a host and a port without one as ``nats://``.

    Raises:
        InputError: a Choria Server could not use it: it needs a host and a port.
    """
    url = text.strip()
    url = url if "://" in url else f"nats://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _SCHEMES and parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s,]", url):
        raise InputError(f"{show(text)} is not the URL of a broker; write it like nats://edge.example.net:4222")
    return url


def server_claims(
    *,
    now: float,
    validity: float,
    identity: str,
    public_key: str,
    collectives: Sequence[str],
    organization: str = DEFAULT_ORGANIZATION,
    permissions: Sequence[str] = (),
    publish: Sequence[str] = (),
    issuer: str = DEFAULT_ISSUER,
) -> Claims:
    """Return the claims of a server token (choria-io/tokens ``ServerClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        identity: the server's identity.
        public_key: the server's Ed25519 public key, 64 hex characters.
        collectives: at least one.
        organization: ``ou``.
        permissions: names from :data:`SERVER_FLAGS`.
        publish: additional subjects it may publish to.
        issuer: ``iss``.

    Raises:
        InputError: something required is missing or malformed, or ``governor`` is given without ``streams``.
    """
    if not identity:
        raise InputError("a server token needs an identity")
    if not any(collectives):
        raise InputError("a server token needs at least one collective")
    if "governor" in permissions and "streams" not in permissions:
        raise InputError("a server's governor permission needs its streams permission too")
    claims = _standard_claims(Purpose.SERVER, now, validity, issuer)
    claims |= {
        "identity": identity,
        "collectives": list(collectives),
        "public_key": require_public_key(public_key),
        "permissions": _permissions(permissions, SERVER_FLAGS),
    }
    return claims | _present(ou=organization or DEFAULT_ORGANIZATION, pub_subjects=list(publish))


def client_claims(
    *,
    now: float,
    validity: float,
    caller_id: str,
    public_key: str = "",
    agents: Sequence[str] = (),
    organization: str = DEFAULT_ORGANIZATION,
    permissions: Sequence[str] = (),
    publish: Sequence[str] = (),
    subscribe: Sequence[str] = (),
    opa_policy: str = "",
    properties: Mapping[str, str] | None = None,
    issuer: str = DEFAULT_ISSUER,
) -> Claims:
    """Return the claims of a client token (choria-io/tokens ``ClientIDClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        caller_id: usually ``provider=name``.
        public_key: the client's Ed25519 public key, 64 hex characters; without it a broker refuses the token.
        agents: agents it may use, as ``agent`` or ``agent.action``.
        organization: ``ou``.
        permissions: names from :data:`CLIENT_FLAGS`.
        publish: additional subjects it may publish to.
        subscribe: additional subjects it may subscribe to.
        opa_policy: text of an Open Policy Agent policy.
        properties: user properties for that policy.
        issuer: ``iss``.

    Raises:
        InputError: something required is missing or malformed.
    """
    if not caller_id:
        raise InputError("a client token needs a caller id")
    claims = _standard_claims(Purpose.CLIENT, now, validity, issuer)
    claims |= {"callerid": caller_id, "permissions": _permissions(permissions, CLIENT_FLAGS)}
    return claims | _present(
        public_key=require_public_key(public_key) if public_key else "",
        agents=list(agents),
        ou=organization or DEFAULT_ORGANIZATION,
        user_properties=dict(properties or {}),
        opa_policy=opa_policy,
        pub_subjects=list(publish),
        sub_subjects=list(subscribe),
    )


def require_public_key(text: str) -> str:
    """Return an Ed25519 public key as hex in lower case, as Go writes it.

    Raises:
        InputError: the text is not 64 hex characters.
    """
    if not is_hex_key(text):
        raise InputError("an Ed25519 public key is 64 hex characters, or a file that holds them")
    return text.lower()


def _extensions(extensions: Mapping[str, Any] | None, bounds: Bounds | None) -> dict[str, Any] | None:
    if bounds is None or not (claim := bounds.claim()):
        return None if extensions is None else dict(extensions)
    if extensions and BOUNDS_KEY in extensions:
        raise InputError(f"the extensions hold {BOUNDS_KEY!r} already, so no other bounds can be added")
    return {**(extensions or {}), BOUNDS_KEY: claim}


def _standard_claims(purpose: Purpose, now: float, validity: float, issuer: str) -> Claims:
    issued = int(now)
    expires = issued + int(validity)
    if expires <= issued:
        raise InputError("a token must be valid for at least one second")
    if expires > MAX_TIME:
        raise InputError("a token cannot be valid beyond the year 9999")
    return {
        "purpose": str(purpose),
        "jti": ksuid.new(issued),  # trust chains need the id made at `iat` (docs/policy.md#the-chain-of-trust)
        "iss": issuer,
        "iat": issued,
        "nbf": issued,
        "exp": expires,
    }


def _permissions(names: Sequence[str], known: Sequence[str]) -> dict[str, bool]:
    for name in names:
        if name not in known:
            raise InputError(f"unknown permission {name!r}; the known ones are {', '.join(known)}")
    return {name: True for name in known if name in names}


def _present(**claims: Any) -> Claims:
    """Return the claims that are not empty, like Go's ``omitempty``."""
    return {name: value for name, value in claims.items() if value}
