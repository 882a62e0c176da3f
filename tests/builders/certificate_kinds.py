"""One chain for each kind of certificate in docs/certificates.md, by the row's first cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from cryptography.hazmat.primitives import hashes

from tests.builders import certificates as c
from tests.builders.certificates import CA, CLIENT, Made, make, name
from tests.builders.clock import DAY, NOW

_OTHER_NAME: Final = c.tlv(0xA0, c.oid("2b060104018237140203"), c.tlv(0xA0, c.tlv(c.UTF8, b"jo@example.net")))
_ODD_NAMES: Final = (
    _OTHER_NAME,
    c.tlv(0xA3, c.sequence()),  # x400Address
    c.tlv(0xA4, name(("CN", "directory"))),
    c.tlv(0xA5, c.tlv(0xA1, c.tlv(c.UTF8, b"x"))),  # ediPartyName
    c.tlv(0x88, bytes.fromhex("2b06")),  # registeredID
)
_POLICIES: Final = c.extension("551d20", c.sequence(c.sequence(c.oid("2b060104018237"))), critical=True)
_POINT: Final = c.sequence(c.tlv(0xA0, c.tlv(0xA0, c.uri("http://crl.example.net/ca.crl"))))
_CRL_POINTS: Final = c.extension("551d1f", c.sequence(_POINT), critical=True)
_SCT_LIST: Final = c.extension("2b06010401d679020402", c.tlv(0x04, b"\0\x04\0\x02\0\0"))


@dataclass(frozen=True, slots=True)
class Kind:
    """A chain, the leaf first; ``root`` is configured as a CA, and so are ``roots``.

    Attributes:
        connects: whether a client can present it; for some the private key does not exist, or OpenSSL cannot write it.
    """

    leaf: Made
    root: Made
    between: Sequence[Made] = ()
    roots: Sequence[Made] = field(default=())
    connects: bool = True

    @property
    def configured(self) -> tuple[Made, ...]:
        """Every CA that is configured for it."""
        return (self.root, *self.roots)

    @property
    def chain(self) -> tuple[str, ...]:
        """The chain as nats-server would report it."""
        return tuple(made.pem for made in (self.leaf, *self.between, self.root))


def _names_of(number: int) -> bytes:
    return name(("O", "Example"), ("CN", f"CA {number}"))


def _below(number: int, *, leaf: Mapping[str, object] | None = None, **root: object) -> Kind:
    """Return a leaf below a separate, numbered CA, so that kinds are independent; ``leaf`` and ``root`` are changes."""
    made = c.root(**({"subject": _names_of(number), "number": number} | root))  # type: ignore[arg-type]
    return Kind(make(made, **(leaf or {})), made)  # type: ignore[arg-type]


def _between(number: int, **changes: object) -> Kind:
    """Return a leaf below an intermediate CA; ``changes`` are the intermediate's."""
    top = c.root(subject=_names_of(number), number=number)
    defaults: dict[str, object] = {
        "subject": name(("CN", f"issuing {number}")),
        "own": c.key("ec", 900),
        "extensions": CA,
    }
    middle = make(top, **(defaults | changes))  # type: ignore[arg-type]
    return Kind(make(middle), top, (middle,))


def _extended(number: int, *extensions: bytes) -> Kind:
    return _below(number, leaf={"extensions": (*CLIENT, *extensions)})


def _constrained(number: int, permitted: bytes, *names: bytes) -> Kind:
    constraints = c.extension("551d1e", c.sequence(c.tlv(0xA0, c.sequence(permitted))), critical=True)
    leaf = {"extensions": (*CLIENT, c.alternative_names(*names))}
    return _below(number, leaf=leaf, extensions=(*CA, constraints))


def _renewed(number: int) -> Kind:
    """Return a CA renewed eight times with the same name and key, whose signing certificate has expired."""
    made = [
        c.root(
            subject=_names_of(number), number=number, serial=c.integer(1 + age), not_before=c.utc_time(NOW - age * DAY)
        )
        for age in range(900, 908)
    ]
    middle = make(made[0], subject=name(("CN", "renewed issuing")), own=c.key("ec", 900), extensions=CA)
    return Kind(make(middle), made[0], (middle,), made[1:])


def _signed(number: int, kind: str, **leaf: object) -> Kind:
    top = make(subject=_names_of(number), own=c.key(kind), extensions=CA)
    return Kind(make(top, **leaf), top)  # type: ignore[arg-type]


def _unsigned_key(number: int, modulus_bits: int, exponent: int) -> Kind:
    """Return a leaf below a CA with a key of this size and exponent, whose private key does not exist."""
    kind = _between(number, spki=c.rsa_public((1 << modulus_bits) - 1, exponent))
    return Kind(kind.leaf, kind.root, kind.between, connects=False)


_MAKERS: Final[dict[str, Callable[[int], Kind]]] = {
    "X.509 version 1": lambda n: _below(n, leaf={"version": 1}),
    "a CA of X.509 version 1, itself in `client_ca`": lambda n: _below(n, version=1),
    "names as TeletexString (Latin-1)": lambda n: _below(
        n,
        leaf={"subject": name(("O", "Müller AG", c.TELETEX), ("CN", "node1", c.TELETEX))},
        subject=name(("O", "Müller AG", c.TELETEX), ("CN", f"Werk {n}", c.TELETEX)),
    ),
    "names as BMPString": lambda n: _below(n, leaf={"subject": name(("CN", "Größe", c.BMP))}),
    "names as UniversalString": lambda n: _below(n, leaf={"subject": name(("CN", "node", c.UNIVERSAL))}),
    "`&` and `*` in PrintableString": lambda n: _below(
        n,
        leaf={"subject": name(("CN", "*.example.net", c.PRINTABLE))},
        subject=name(("O", "Smith & Sons", c.PRINTABLE), ("CN", f"Amp {n}", c.PRINTABLE)),
    ),
    "several common names": lambda n: _below(n, leaf={"subject": name(("CN", "Users"), ("CN", "Jo Doe"))}),
    "no alternative names": lambda n: _below(n),
    "no common name": lambda n: _below(
        n, leaf={"subject": name(("O", "x")), "extensions": (*CLIENT, c.alternative_names(c.dns("a.example.net")))}
    ),
    "alternative names of other kinds (UPN, directory names, …)": lambda n: _extended(
        n, c.alternative_names(*_ODD_NAMES)
    ),
    "underscores or `*` in DNS names": lambda n: _extended(
        n, c.alternative_names(c.dns("a_b.example.net"), c.dns("*.x"))
    ),
    "name constraints with a leading dot": lambda n: _constrained(n, c.dns(".example.net"), c.dns("node.example.net")),
    "name constraints on URIs": lambda n: _constrained(n, c.uri(".example.net"), c.uri("spiffe://a.example.net/x")),
    "critical certificate policies": lambda n: _extended(n, _POLICIES),
    "critical CRL distribution points": lambda n: _extended(n, _CRL_POINTS),
    "signed certificate timestamps": lambda n: _extended(n, _SCT_LIST),
    "GeneralizedTime before 2050": lambda n: _below(
        n, leaf={"not_before": c.generalized_time(c.NOT_BEFORE), "not_after": c.generalized_time(c.NOT_AFTER)}
    ),
    "valid until 9999": lambda n: _below(n, leaf={"not_after": c.tlv(0x18, b"99991231235959Z")}),
    "no extended key usage, or any": lambda n: _below(
        n, leaf={"extensions": (c.basic_constraints(ca=False), c.usages(c.ANY_USAGE))}
    ),
    "signed by RSA of 1024 bits": lambda n: _signed(n, "rsa1024"),
    "signed by RSA-PSS": lambda n: _signed(n, "rsa2048", algorithm=c.pss_algorithm(), pss=hashes.SHA256()),
    "signed by ECDSA P-224": lambda n: _signed(n, "p224"),
    "signed by ECDSA P-384": lambda n: _signed(n, "p384"),
    "signed by ECDSA P-521": lambda n: _signed(n, "p521"),
    "signed by Ed25519": lambda n: _signed(n, "ed25519"),
    "a CA renewed many times in one bundle": _renewed,
    "an intermediate CA": lambda n: _between(n),
    # --- refused by both
    "expired, at any place in the chain": lambda n: _between(
        n, not_before=c.utc_time(c.NOT_BEFORE), not_after=c.utc_time(c.NOT_BEFORE + DAY)
    ),
    "not yet valid": lambda n: _below(
        n, leaf={"not_before": c.utc_time(c.NOT_AFTER - DAY), "not_after": c.utc_time(c.NOT_AFTER)}
    ),
    "for TLS servers only": lambda n: _below(
        n, leaf={"extensions": (c.basic_constraints(ca=False), c.usages(c.SERVER_AUTH))}
    ),
    "an issuer without the CA flag": lambda n: _between(n, extensions=CLIENT),
    "an intermediate CA of X.509 version 1": lambda n: _between(n, version=1),
    "an issuer that may not sign certificates (keyUsage)": lambda n: _between(
        n, extensions=(*CA, c.extension("551d0f", bytes.fromhex("03020780")))
    ),
    "more CAs below another than it allows (pathLen)": lambda n: _too_deep(n),
    "an issuer of the same name with another key": lambda n: _below(n, leaf={"signs": c.key("ec", 999)}),
    "signed with SHA-1 or MD5": lambda n: _signed(n, "rsa2048", algorithm=c.rsa_algorithm(c.SHA1_RSA)),
    "RSA of more than 8192 bits": lambda n: _unsigned_key(n, 16384, 65537),
    "an RSA exponent above 2147483647": lambda n: _unsigned_key(n, 2048, 2**63 + 1),
    "one algorithm named within, another outside": lambda n: _below(n, leaf={"outer_algorithm": c.rsa_algorithm()}),
    "bytes behind the certificate": lambda n: replace(_below(n, leaf={"end": b"\0"}), connects=False),
    # --- refused by nats-server, not by the service
    "a negative serial number": lambda n: _below(n, leaf={"serial": c.tlv(0x02, b"\xff\x01")}),
}


def _too_deep(number: int) -> Kind:
    top = c.root(subject=_names_of(number), number=number, extensions=(c.basic_constraints(ca=True, path_length=0),))
    middle = make(top, subject=name(("CN", "deep")), own=c.key("ec", 900), extensions=CA)
    return Kind(make(middle), top, (middle,))


@cache
def kinds() -> dict[str, Kind]:
    """Return every kind, made once for each process."""
    return {label: maker(number) for number, (label, maker) in enumerate(_MAKERS.items(), start=100)}
