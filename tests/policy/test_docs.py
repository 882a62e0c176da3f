"""Every table of the documentation agrees with the code."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import fields
from hashlib import md5, sha256
from typing import Any

import msgspec
import pytest

from broker_auth.certificates.paths import MAX_CERTIFICATES
from broker_auth.certificates.peer import identity_names
from broker_auth.policy import permissions, subjects
from broker_auth.policy.decision import DenyCode, Rule
from broker_auth.policy.model import Accounts
from broker_auth.policy.permissions import Permissions
from broker_auth.policy.revocations import RevocationKind
from broker_auth.settings.checks.identities import identity_patterns
from broker_auth.settings.checks.ignored import CHANGES_ADMISSION
from broker_auth.settings.keys import own as own_keys
from broker_auth.settings.keys.choria import CHORIA_KEYS
from broker_auth.settings.keys.table import find
from broker_auth.tokens import bounds, jws, keys, verify
from broker_auth.tokens.claims import ClientClaims, ClientPermissions, ServerClaims, ServerPermissions
from broker_auth.tokens.faults import TokenFault, TokenRejected
from broker_auth.tokens.verify import Rejected, TokenVerifier, TrustedKeys, Verified, check_times
from tests.builders import certificates as c
from tests.builders.clock import DAY, NOW
from tests.builders.policies import issuer_policy, x509_policy
from tests.builders.tokens import (
    CLIENT_SIGNER,
    CREATOR,
    HOLDER,
    ORG,
    ORGANIZATION,
    SERVER_SIGNER,
    Claims,
    Key,
    client_claims,
    creator_claims,
    ec_key,
    issued,
    ksuid,
    org_issuer,
    provisioning_claims,
    provisioning_signer,
    rsa_key,
    server_claims,
    sign,
)
from tests.interop.edges import EDGES
from tests.policy.markdown import DOCS, Table, code, tables

POLICY = tables("policy.md")
MOVING = tables("moving-from-choria.md")
COMPARED = {
    "System user",
    "Three accounts",
    "The rules, in order",
    "Names in certificates",
    "What is accepted as a token",
    "Claims that must be there",
    "The chain of trust",
    "Provisioning node",
    "Provisioning tokens for certain nodes",
    "Provisioning node, not isolated",
    "Server, by token",
    "Client",
    "Organization administrator",
    "Server, by default",
    "Pub-sub",
    "Unrestricted",
    "Revoked credentials",
    "The link of a gate",
}


def test_every_table_is_compared() -> None:
    assert set(POLICY) == COMPARED
    assert set(MOVING) == {
        "What carries over unchanged",
        "Keys without effect",
        "Tokens judged differently",
        "What was tried",
        "In place of `choria broker` commands",
        "Log lines of denials",
    }


def rows(heading: str, index: int = 0, page: dict[str, list[Table]] = POLICY) -> Table:
    """Return the rows of a table, without its header."""
    return page[heading][index][1:]


# --- Revocations


def test_kinds_of_revocations() -> None:
    assert [code(kind)[0] for kind, _, _ in rows("Revoked credentials")] == list(RevocationKind)


# --- Bounds


def test_bounds_of_provisioning_tokens() -> None:
    documented = {code(bound)[0]: code(denial) for bound, _, denial in rows("Provisioning tokens for certain nodes")}
    assert documented == {
        bounds.NAMES: [DenyCode.NODE_NAME_NOT_ALLOWED],
        bounds.NETWORKS: [DenyCode.ADDRESS_NOT_ALLOWED],
        bounds.MAX_NODES: [DenyCode.TOKEN_USED_UP, DenyCode.NODES_NOT_COUNTED],
    }
    page = (DOCS / "policy.md").read_text(encoding="utf-8")
    assert f"A list has 1 to {bounds.MAX_NAMES} entries." in page
    assert bounds.MAX_NAMES == bounds.MAX_NETWORKS
    assert f'`"max_nodes": N` (a whole number from 1 to {bounds.MOST_NODES};' in page


# --- Accounts and rules


def test_accounts() -> None:
    documented = {code(setting)[0]: code(name)[0] for name, setting, _ in rows("Three accounts")}
    defaults = Accounts()
    assert documented == {
        f"plugin.broker_auth.account.{field.name}": getattr(defaults, field.name) for field in fields(Accounts)
    }


def test_rules() -> None:
    documented = {code(name)[0]: int(number) for number, name, _, _ in rows("The rules, in order")}
    assert documented == {rule.value: rule.number for rule in Rule}


def test_each_rule_has_a_section() -> None:
    sections = re.findall(r"^### (\d)\.", (DOCS / "policy.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number in sections] == sorted({rule.number for rule in Rule})


def test_names_in_certificates() -> None:
    """Each identity matches the names of the certificate in its row, and of no other."""
    alternatives = {
        "DNS names": (c.dns("node1.example.net"),),
        "URIs": (c.uri("spiffe://example.net/x"),),
        "e-mail addresses": (c.email("jo@example.net"),),
        "IP addresses": (c.tlv(0x87, bytes((192, 0, 2, 7))),),
        "no alternative names": (),
    }
    made = {
        kind: c.make(extensions=(*c.CLIENT, *([c.alternative_names(*names)] if names else []))).parsed
        for kind, names in alternatives.items()
    }
    held = {kind: identity_names(leaf, leaf.alternative_names, constrained=False) for kind, leaf in made.items()}
    table = rows("Names in certificates")
    assert len(table) == len(held)
    for has, _, identities in table:
        own = next(names for kind, names in held.items() if has.startswith(kind))
        for identity in code(identities):
            pattern = identity_patterns([identity])
            assert [pattern.match(names) for names in held.values()] == [names == own for names in held.values()]


# --- Tokens


def test_bounds() -> None:
    documented = [int(value) for _, value in rows("What is accepted as a token")]
    assert documented == [
        jws.MAX_TOKEN_BYTES,
        jws.MAX_DEPTH,
        own_keys.MAX_LEEWAY,
        keys.MIN_RSA_BITS,
        keys.MAX_RSA_BITS,
        subjects.MAX_NAME_LENGTH,
        MAX_CERTIFICATES,
    ]


def test_algorithms() -> None:
    documented = {kind: set(code(algorithms)) for kind, algorithms in rows("What is accepted as a token", 1)}
    made: list[Key] = [rsa_key("documented"), HOLDER, ec_key("documented"), ec_key("documented", 384)]
    assert documented == {key.verifies.kind: set(key.verifies.checks) for key in made}
    assert set.union(*documented.values()) == verify.ALGORITHMS


VALID: dict[str, tuple[Claims, Key]] = {
    "choria_client_id": (client_claims(), CLIENT_SIGNER),
    "choria_server": (server_claims(), SERVER_SIGNER),
    "choria_provisioning": (provisioning_claims(), provisioning_signer()),
}
REQUIRED = [
    pytest.param(code(purpose)[0], code(always), code(issuer), id=code(purpose)[0])
    for purpose, always, issuer in rows("Claims that must be there")
]


@pytest.mark.parametrize(("purpose", "always", "issuer"), REQUIRED)
def test_required_claims(purpose: str, always: list[str], issuer: list[str]) -> None:
    claims, signer = VALID[purpose]
    for verifier, key, needed in (
        (x509_policy().tokens, signer, always),
        (issuer_policy().tokens, ORG, [*always, *issuer]),
    ):
        exactly = {name: claims[name] for name in needed}
        assert accepts(verifier, sign(exactly, key))
        for name in needed:
            for lacking in (without(exactly, name), exactly | {name: None}):
                assert not accepts(verifier, sign(lacking, key)), f"{name} is not required"


def test_chain_claims() -> None:
    parent = creator_claims(exp=NOW + DAY)
    made = {
        "I-<key>": (org_issuer(client_claims()), ORG),
        "C-<creator's jti>.<creator's key>": (issued(client_claims(jti=ksuid()), creator_token=parent), CREATOR),
    }
    chained = [row for row in rows("The chain of trust") if code(row[0])]
    assert {code(row[0])[0] for row in chained} == set(made)
    for row in chained:
        claims, key = made[code(row[0])[0]]
        assert accepts(issuer_policy().tokens, sign(claims, key))
        for name in code(row[1]):
            examined = issuer_policy().tokens.examine(sign(without(claims, name), key))
            assert isinstance(examined, Rejected)
            assert examined.fault == TokenFault.CHAIN_CLAIM_MISSING, name
    beside = sign(client_claims(tcs=made["I-<key>"][0]["tcs"]), ORG)
    assert not accepts(issuer_policy().tokens, beside)  # the last row: the claim "must be absent"


def accepts(verifier: TokenVerifier, token: str) -> bool:
    examined = verifier.examine(token)
    try:
        if isinstance(examined, Verified):
            check_times(examined, NOW)
    except TokenRejected:
        return False
    return isinstance(examined, Verified)


def without(claims: Claims, name: str) -> Claims:
    return {key: value for key, value in claims.items() if key != name}


# --- Permissions

FIXED = {
    "System user": permissions.SYSTEM,
    "Provisioning node": permissions.isolated_node("NAME"),
    "Provisioning node, not isolated": permissions.SHARED_NODE,
    "Organization administrator": permissions.ORG_ADMIN,
    "Server, by default": permissions.DEFAULT_SERVER,
    "Pub-sub": permissions.PUB_SUB,
    "Unrestricted": permissions.UNRESTRICTED,
    "The link of a gate": permissions.GATE_LINK,
}


@pytest.mark.parametrize("heading", FIXED)
def test_fixed_permissions(heading: str) -> None:
    documented = {what: (set(code(allowed)), set(code(denied))) for what, allowed, denied in rows(heading)}
    granted = FIXED[heading]
    assert documented == {
        "publish": (set(granted.pub.allow), set(granted.pub.deny)),
        "subscribe": (set(granted.sub.allow), set(granted.sub.deny)),
    }


def test_organization_administrator_is_documented() -> None:
    claims = ClientClaims(callerid="up=alice", permissions=ClientPermissions(org_admin=True, streams_user=True))
    assert permissions.client(claims) == permissions.ORG_ADMIN


@pytest.mark.parametrize("organization", [ORGANIZATION, "acme", ""])
def test_server_permissions(organization: str) -> None:
    identity, collectives = "node1.example.net", ("mcollective", "eu")
    names = hashes(identity) | {"ID": [identity], "C": collectives, "OU": [organization] if organization else []}
    names["API"] = ["$JS.API" if organization == "choria" else "choria.streams"]
    for flags in combinations([flag.name for flag in msgspec.structs.fields(ServerPermissions)]):
        claims = ServerClaims(
            identity=identity,
            collectives=collectives,
            ou=organization,
            public_key=HOLDER.hex,
            pub_subjects=("acme.>",),
            permissions=ServerPermissions(**dict.fromkeys(flags, True)),
        )
        expected = documented_grants("Server, by token", set(flags), names)
        assert grants(permissions.server(claims)) == (expected[0] | {"acme.>"}, expected[1]), flags


@pytest.mark.parametrize("organization", [ORGANIZATION, "acme", ""])
def test_client_permissions(organization: str) -> None:
    caller = "up=alice"
    names = hashes(caller) | {"OU": [organization] if organization else []}
    known = [flag.name for flag in msgspec.structs.fields(ClientPermissions) if flag.name != "org_admin"]
    for flags in combinations(known):
        claims = ClientClaims(
            callerid=caller,
            ou=organization,
            public_key=HOLDER.hex,
            pub_subjects=("acme.>",),
            sub_subjects=("acme.*",),
            permissions=ClientPermissions(**dict.fromkeys(flags, True)),
        )
        publish, subscribe = documented_grants("Client", set(flags), names)
        assert grants(permissions.client(claims)) == (publish | {"acme.>"}, subscribe | {"acme.*"}), flags


def documented_grants(heading: str, flags: set[str], names: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the subjects that the table grants with these flags."""
    publish: set[str] = set()
    subscribe: set[str] = set()
    for when, published, subscribed in rows(heading):
        if when == "always" or any(set(code(way)) <= flags for way in when.split(", or ")):
            publish |= set(written_out(published, names))
            subscribe |= set(written_out(subscribed, names))
    return publish, subscribe


def written_out(cell: str, names: dict[str, Any]) -> Iterator[str]:
    """Yield the subjects of a cell, with each of the values that its placeholders stand for."""
    for subject in code(cell):
        used = [token for token in subject.split(".") if token in names]
        for values in itertools.product(*(names[token] for token in used)):
            known = dict(zip(used, values, strict=True))
            yield ".".join(known.get(token, token) for token in subject.split("."))


def grants(granted: Permissions) -> tuple[set[str], set[str]]:
    assert not granted.pub.deny
    assert not granted.sub.deny
    return set(granted.pub.allow), set(granted.sub.allow)


def hashes(text: str) -> dict[str, Any]:
    data = text.encode()
    return {"MD5": [md5(data, usedforsecurity=False).hexdigest()], "SHA256": [sha256(data).hexdigest()]}


def combinations(flags: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield all combinations of zero to three flags, and all flags."""
    for size in (0, 1, 2, 3, len(flags)):
        yield from itertools.combinations(flags, size)


# --- Moving from Choria


def test_keys_that_carry_over() -> None:
    documented = [code(key)[0] for key, _ in rows("What carries over unchanged", page=MOVING)]
    assert sorted(documented) == sorted(key.name for key in CHORIA_KEYS)


def test_tokens_judged_differently() -> None:
    words = {True: "accepts", False: "rejects"}
    documented = {row[0]: (row[1], row[2]) for row in rows("Tokens judged differently", page=MOVING)}
    assert documented == {edge.name: (words[edge.go], words[edge.ours is None]) for edge in EDGES if edge.differs}


@pytest.mark.parametrize("edge", EDGES, ids=[edge.name for edge in EDGES])
def test_tokens_are_judged_as_documented(edge: Any) -> None:
    verifier = TokenVerifier(TrustedKeys(issuers={ORGANIZATION: ORG.verifies}))
    assert accepts(verifier, edge.make(NOW)) == (edge.ours is None)


@pytest.mark.parametrize("page", ["policy.md", "moving-from-choria.md"])
def test_own_keys_exist(page: str) -> None:
    mentioned = set(re.findall(r"plugin\.broker_auth\.[a-z_.<>]*[a-z_]", (DOCS / page).read_text(encoding="utf-8")))
    assert mentioned
    assert [key for key in mentioned if find(key.replace("<name>", "x")) is None] == []


def test_keys_without_effect_are_not_read_here() -> None:
    listed = {key for row in rows("Keys without effect", page=MOVING) for key in code(row[0])}
    assert [key for key in listed if find(key) is not None] == []
    assert listed >= set(CHANGES_ADMISSION)


def test_log_lines_of_choria_are_mapped_to_codes() -> None:
    known = {*DenyCode, *TokenFault}
    assert {name for row in rows("Log lines of denials", page=MOVING) for name in code(row[1])} <= known
