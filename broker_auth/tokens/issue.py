"""Making tokens: the claims choria-io/tokens (Go) would write, signed by a key file as Choria keeps it.

Three steps, each a pure function but for the token id's randomness:

1. :func:`provisioning_claims`, :func:`server_claims` or :func:`client_claims` build the claims,
2. for trust chains, :func:`make_chain_issuer` or :func:`issue_under` adds what the chain needs,
3. :meth:`SigningKey.sign` signs, and refuses to hand out what verification would not even read.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from broker_auth.errors import InputError
from broker_auth.secret import Secret
from broker_auth.tokens import ksuid
from broker_auth.tokens.claims import CHAIN_ISSUER_PREFIX, MAX_TIME, ORG_ISSUER_PREFIX, Purpose, typed_claims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.jws import parse
from broker_auth.tokens.keys import MAX_RSA_BITS, MIN_RSA_BITS, verify_ed25519

DEFAULT_ISSUER: Final = "Choria Tokens Package"  # choria-io/tokens, where no issuer is given
DEFAULT_ORGANIZATION: Final = "choria"
CLIENT_FLAGS: Final = (
    "streams_admin",
    "streams_user",
    "events_viewer",
    "election_user",
    "system_user",
    "governor",
    "org_admin",
    "fleet_management",
    "signed_fleet_management",
    "service",
    "authentication_delegator",
    "provisioner",
)
SERVER_FLAGS: Final = ("submission", "streams", "governor", "service_host")

Claims = dict[str, Any]
"""Claims about to be signed, by their names in the token."""

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_HEX_SIGNATURE: Final = re.compile(r"[0-9a-fA-F]{128}")


# --- Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that signs tokens.

    Attributes:
        name: what errors call it.
        algorithm: the JWS algorithm it signs with.
        public_hex: the public key as lower-case hex, for Ed25519 keys only.
    """

    name: str
    algorithm: str
    public_hex: str | None
    _key: PrivateKey = field(repr=False)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The signed token.

        Raises:
            InputError: the token would be too large, nest too deep or hold a claim of the wrong type.
        """
        token = jwt.encode(dict(claims), self._key, algorithm=self.algorithm)
        try:
            typed_claims(parse(token).claims, Purpose(claims["purpose"]))
        except TokenRejected as rejected:
            raise InputError(f"a token with these claims would be refused: {rejected.detail}") from rejected
        return token

    def sign_chain(self, text: str) -> str:
        """The hex Ed25519 signature that trust chains are made of.

        Raises:
            InputError: this is no Ed25519 key.
        """
        if not isinstance(self._key, ed25519.Ed25519PrivateKey):
            raise InputError(f"{self.name}: trust chains need an Ed25519 key; make one with 'broker-auth token keys'")
        return self._key.sign(text.encode()).hex()


def load_signing_key(data: bytes, name: str) -> SigningKey:
    """The key in a file: an Ed25519 seed as 64 hex characters, or a PEM private key (PKCS 1, PKCS 8, SEC 1).

    RSA signs RS256 as Choria does, P-256 ES256, P-384 ES384, Ed25519 EdDSA.

    Raises:
        InputError: it is none of these. Errors never quote the data.
    """
    stripped = data.strip()
    if stripped.startswith(b"-----BEGIN"):
        return _signing_key(_pem_key(stripped, name), name)
    try:
        text = stripped.decode("ascii")
    except UnicodeDecodeError:
        text = ""  # from here on as any other text that is no seed; the error would quote the data
    if not _HEX_KEY.fullmatch(text):
        raise InputError(f"{name}: neither a PEM private key nor an Ed25519 seed of 64 hex characters")
    return _signing_key(ed25519.Ed25519PrivateKey.from_private_bytes(binascii.unhexlify(text)), name)


def new_seed() -> Secret:
    """A fresh Ed25519 seed, 64 hex characters as Choria stores them."""
    return Secret(ed25519.Ed25519PrivateKey.generate().private_bytes_raw().hex())


def signing_key_from_seed(seed: Secret, name: str) -> SigningKey:
    """The key of a seed in hex.

    Raises:
        InputError: it is not 64 hex characters.
    """
    return load_signing_key(seed.reveal().encode("utf-8", "replace"), name)


def _pem_key(data: bytes, name: str) -> object:
    if data.startswith((b"-----BEGIN CERTIFICATE", b"-----BEGIN PUBLIC KEY")):
        raise InputError(f"{name}: holds a public key; signing needs the private key that belongs to it")
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise InputError(f"{name}: the key is encrypted; decrypt it with 'openssl pkey -in FILE -out FILE'") from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{name}: cannot be read as a PEM private key") from None


def _signing_key(key: object, name: str) -> SigningKey:
    match key:
        case rsa.RSAPrivateKey():
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                raise InputError(
                    f"{name}: RSA keys must have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, this has {key.key_size}"
                )
            return SigningKey(name=name, algorithm="RS256", public_hex=None, _key=key)
        case ed25519.Ed25519PrivateKey():
            public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
            return SigningKey(name=name, algorithm="EdDSA", public_hex=public, _key=key)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return SigningKey(name=name, algorithm="ES256", public_hex=None, _key=key)
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return SigningKey(name=name, algorithm="ES384", public_hex=None, _key=key)
        case _:
            raise InputError(f"{name}: unsupported key type; use RSA, Ed25519, or EC on P-256 or P-384")


# --- Claims


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
    protocol_v2: bool = False,
    allow_update: bool = False,
    issuer: str = DEFAULT_ISSUER,
) -> Claims:
    """Claims of a provisioning token (choria-io/tokens ``ProvisioningClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        token: what the provisioner shows to the node; anyone who holds the JWT can read it.
        urls: brokers to provision through; these or ``srv_domain`` are required.
        srv_domain: domain whose SRV records name the brokers.
        secure: whether nodes use TLS and verify while they provision (``chs``).
        default: provision wherever no configuration says otherwise (``chpd``).
        registration: file nodes publish as registration data.
        facts: file nodes use as facts.
        username: user name for the broker.
        password: password for the broker.
        organization: ``ou``.
        extensions: free-form data for the provisioner.
        protocol_v2: use the version 2 network protocol.
        allow_update: allow the provisioner to upgrade the node's software.
        issuer: ``iss``.

    Raises:
        InputError: no token, neither URLs nor SRV domain, or an unusable validity.
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
        "extensions": None if extensions is None else dict(extensions),
    }
    return claims | _present(
        chu=",".join(urls),
        chsrv=srv_domain,
        chrd=registration,
        chf=facts,
        chusr=username,
        chpwd=password.reveal() if password else "",
        ou=organization or DEFAULT_ORGANIZATION,
        v2=protocol_v2,
        update=allow_update,
    )


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
    """Claims of a server token (choria-io/tokens ``ServerClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        identity: the server's identity.
        public_key: the server's Ed25519 public key, 64 hex characters.
        collectives: at least one.
        organization: ``ou``.
        permissions: names out of :data:`SERVER_FLAGS`.
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
    """Claims of a client token (choria-io/tokens ``ClientIDClaims``).

    Args:
        now: Unix seconds.
        validity: seconds until it expires.
        caller_id: usually ``provider=name``.
        public_key: the client's Ed25519 public key, 64 hex characters; without it a broker refuses the token.
        agents: agents, or ``agent.action``, it may use.
        organization: ``ou``.
        permissions: names out of :data:`CLIENT_FLAGS`.
        publish: additional subjects it may publish to.
        subscribe: additional subjects it may subscribe to.
        opa_policy: Open Policy Agent policy, its text.
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
    """An Ed25519 public key in hex, lower case as Go writes it.

    Raises:
        InputError: it is not 64 hex characters.
    """
    if not _HEX_KEY.fullmatch(text):
        raise InputError("an Ed25519 public key is 64 hex characters, or a file that holds them")
    return text.lower()


def _standard_claims(purpose: Purpose, now: float, validity: float, issuer: str) -> Claims:
    issued = int(now)
    expires = issued + int(validity)
    if expires <= issued:
        raise InputError("a token must be valid for at least one second")
    if expires > MAX_TIME:
        raise InputError("a token cannot be valid beyond the year 9999")
    return {
        "purpose": str(purpose),
        "jti": ksuid.new(issued),  # trust chains need the id made at `iat` (POLICY "Chain of trust")
        "iss": issuer,
        "iat": issued,
        "nbf": issued,
        "exp": expires,
    }


def _permissions(given: Sequence[str], known: Sequence[str]) -> dict[str, bool]:
    for name in given:
        if name not in known:
            raise InputError(f"no such permission {name!r}; known are {', '.join(known)}")
    return {name: True for name in known if name in given}


def _present(**claims: Any) -> Claims:
    """Only what is not empty, as Go's ``omitempty``."""
    return {name: value for name, value in claims.items() if value}


# --- Trust chains (POLICY "Chain of trust")


def make_chain_issuer(claims: Claims, org_key: SigningKey) -> Claims:
    """Claims of a client that may issue others; the organization's key must also sign the token.

    Raises:
        InputError: no public key in the claims, or not an Ed25519 key.
    """
    if not claims.get("public_key"):
        raise InputError("a chain issuer needs a public key")
    signature = org_key.sign_chain(f"{claims['jti']}.{claims['public_key']}")
    return claims | {"iss": f"{ORG_ISSUER_PREFIX}{org_key.public_hex}", "tcs": signature}


def issue_under(claims: Claims, issuer_token: str, issuer_key: SigningKey) -> Claims:
    """Claims of a token issued by a chain issuer, which must also sign it; it expires no later than the issuer.

    Args:
        claims: of a client or server token with a public key.
        issuer_token: the chain issuer's own token.
        issuer_key: the chain issuer's key.

    Raises:
        InputError: the token is not a chain issuer's, has expired, or its key is another one.
    """
    creator = _chain_issuer(issuer_token)
    if issuer_key.public_hex != creator.public_key.lower():
        raise InputError(f"{issuer_key.name}: is not the key of the chain issuer's token")
    if not claims.get("public_key"):
        raise InputError("a token issued by a chain issuer needs a public key")
    assert creator.exp is not None
    issuer_expires = int(creator.exp)
    if issuer_expires <= claims["iat"]:
        raise InputError("the chain issuer's token has expired; nothing it issues now would be accepted")
    signature = issuer_key.sign_chain(f"{claims['jti']}.{creator.tcs}")
    return claims | {
        "iss": f"{CHAIN_ISSUER_PREFIX}{creator.jti}.{creator.public_key}",
        "issexp": issuer_expires,
        "exp": min(claims["exp"], issuer_expires),
        "tcs": f"{creator.tcs}.{signature}",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChainIssuer:
    jti: str
    public_key: str
    tcs: str
    exp: float | None


def _chain_issuer(token: str) -> _ChainIssuer:
    """What a chain issuer's token says, its place in the chain verified against the key it names."""
    try:
        claims = typed_claims(parse(token).claims, Purpose.CLIENT)
    except TokenRejected as rejected:
        raise InputError(f"the chain issuer's token cannot be read: {rejected.detail}") from rejected
    org_hex = claims.iss.removeprefix(ORG_ISSUER_PREFIX)
    well_formed = (
        claims.iss.startswith(ORG_ISSUER_PREFIX)
        and _HEX_KEY.fullmatch(org_hex)
        and _HEX_SIGNATURE.fullmatch(claims.tcs)
        and _HEX_KEY.fullmatch(claims.public_key)
        and claims.jti
        and claims.exp is not None
    )
    if not well_formed:
        raise InputError("the chain issuer's token is not one; make it with 'broker-auth token client --issuer'")
    signed = f"{claims.jti}.{claims.public_key}".encode()
    if not verify_ed25519(binascii.unhexlify(org_hex), signed, binascii.unhexlify(claims.tcs)):
        raise InputError("the chain issuer's token is not signed into the chain by the key it names")
    return _ChainIssuer(jti=claims.jti, public_key=claims.public_key, tcs=claims.tcs, exp=claims.exp)
