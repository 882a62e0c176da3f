"""Provisioning tokens that are for certain nodes only: names and networks (rule 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.policy.counting import Counted
from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Deny, DenyCode, Rule
from broker_auth.policy.model import Serves
from broker_auth.policy.request import AuthorizationRequest
from broker_auth.tokens.bounds import MAX_NAMES, MAX_NETWORKS, MOST_NODES
from broker_auth.tokens.faults import TokenFault
from tests.builders.clock import NOW
from tests.builders.policies import changed
from tests.builders.requests import HOST, NODE_NAME, gauge, node, presenting
from tests.builders.tokens import ORG, Key, client_claims, provisioning_claims, provisioning_signer, rsa_key, sign
from tests.policy.grants import NO_QUEUE, NODE_AGENTS, NODE_PUBLISH, SHARED_NODE
from tests.policy.table import ISSUER, X509, Row, Table, deny, grant, rows
from tests.policy.test_rule3_token import client, waiting

NODES = Rule.PROVISIONING
NAME, ADDRESS, MALFORMED = DenyCode.NODE_NAME_NOT_ALLOWED, DenyCode.ADDRESS_NOT_ALLOWED, TokenFault.BOUNDS
SHARED = changed(X509, isolate_nodes=False)
EDGE = replace(X509, serves=Serves.EDGE)


def bounded(bounds: Any, key: Key | None = None, **changes: Any) -> AuthorizationRequest:
    """Return a node whose token has these bounds."""
    extensions = {"broker-auth": bounds, "location": "lab"}
    return node(sign(provisioning_claims(extensions=extensions), key or provisioning_signer()), **changes)


def names(*values: Any, name: str = NODE_NAME, **changes: Any) -> AuthorizationRequest:
    return bounded({"names": list(values)}, name=name, **changes)


def networks(*values: Any, host: str = HOST) -> AuthorizationRequest:
    return bounded({"networks": list(values)}, host=host)


def named(name: str) -> dict[str, Any]:
    """Return the expected name and grant of an isolated node."""
    granted = grant(NODE_PUBLISH, f"{NODE_AGENTS} provisioning.node.{name}")
    return {"name": name, "grant": replace(granted, no_subscribe=NO_QUEUE)}


BOUNDS: Table = {
    "rule3-bounds-name": waiting(names(NODE_NAME)),
    "rule3-bounds-one-of-several-names": waiting(names("a", NODE_NAME, "b")),
    "rule3-bounds-name-at-an-edge": waiting(names(NODE_NAME), EDGE),
    "rule3-bounds-name-by-an-organization": waiting(bounded({"names": [NODE_NAME]}, ORG), ISSUER, "organization"),
    "rule3-bounds-another-name": deny(names("new2.example.net"), NODES, NAME),
    "rule3-bounds-another-name-at-an-edge": deny(names("new2.example.net"), NODES, NAME, EDGE),
    "rule3-bounds-another-name-by-an-organization": deny(bounded({"names": ["x"]}, ORG), NODES, NAME, ISSUER),
    "rule3-bounds-name-is-no-prefix": deny(names("new1", name="new1.example.net"), NODES, NAME),
    "rule3-bounds-name-has-its-case": deny(names("NEW1.example.net"), NODES, NAME),
    "rule3-bounds-name-is-no-wildcard": deny(names("*.example.net", ">"), NODES, NAME),
    "rule3-bounds-pattern": waiting(
        names(r"/new\d+\.example\.net/", name="new22.example.net"), **named("new22.example.net")
    ),
    "rule3-bounds-pattern-matches-the-whole-name": deny(names("/new1/"), NODES, NAME),
    "rule3-bounds-pattern-has-its-case": deny(names("/NEW1.*/"), NODES, NAME),
    "rule3-bounds-name-or-pattern": waiting(names("/x/", NODE_NAME)),
    "rule3-bounds-unfit-name": deny(names("a b", name="a b"), NODES, DenyCode.NODE_NAME),
    "rule3-bounds-empty-name": deny(names("/.*/", name=""), NODES, DenyCode.NODE_NAME),
    "rule3-bounds-name-where-nodes-are-not-isolated": waiting(names(NODE_NAME), SHARED, grant=SHARED_NODE),
    "rule3-bounds-another-name-where-nodes-are-not-isolated": deny(names("x"), NODES, NAME, SHARED),
    "rule3-bounds-empty-name-where-nodes-are-not-isolated": deny(names("x", name=""), NODES, NAME, SHARED),
    "rule3-bounds-name-of-any-length-where-nodes-are-not-isolated": deny(
        names("/.*/", name="a" * 254), NODES, NAME, SHARED
    ),
    "rule3-bounds-address": waiting(networks(HOST)),
    "rule3-bounds-network": waiting(networks("10.9.0.0/16", "192.0.2.0/24")),
    "rule3-bounds-network-with-host-bits": waiting(networks("192.0.2.99/24")),
    "rule3-bounds-network-ipv6": waiting(networks("2001:db8::/32", host="2001:db8::7")),
    "rule3-bounds-ipv4-in-ipv6": waiting(networks("192.0.2.0/24", host="::ffff:192.0.2.7")),
    "rule3-bounds-another-network": deny(networks("192.0.3.0/24"), NODES, ADDRESS),
    "rule3-bounds-another-version": deny(networks("::/0"), NODES, ADDRESS),
    "rule3-bounds-no-address": deny(networks("0.0.0.0/0", host="node1.example.net"), NODES, ADDRESS),
    "rule3-bounds-address-is-empty": deny(networks("0.0.0.0/0", host=""), NODES, ADDRESS),
    "rule3-bounds-both": waiting(bounded({"names": [NODE_NAME], "networks": ["192.0.2.0/24"]})),
    "rule3-bounds-both-another-name": deny(bounded({"names": ["x"], "networks": ["192.0.2.0/24"]}), NODES, NAME),
    "rule3-bounds-both-another-network": deny(
        bounded({"names": [NODE_NAME], "networks": ["10.0.0.0/8"]}), NODES, ADDRESS
    ),
    "rule3-bounds-come-before-the-places": deny(names("x"), NODES, NAME, changed(X509, gauge=gauge(3))),
    "rule3-bounds-come-after-the-signature": deny(bounded({"x": 1}, rsa_key("stranger")), NODES, TokenFault.SIGNATURE),
    "rule3-bounds-absent": waiting(
        node(sign(provisioning_claims(extensions={"location": "lab"}), provisioning_signer()))
    ),
    "rule3-bounds-extensions-null": waiting(node(sign(provisioning_claims(extensions=None), provisioning_signer()))),
    "rule3-bounds-extensions-text": deny(
        node(sign(provisioning_claims(extensions="x"), provisioning_signer())), NODES, TokenFault.CLAIM_TYPE
    ),
    "rule3-bounds-of-a-client-mean-nothing": client(
        presenting(sign(client_claims(extensions={"broker-auth": {"names": ["x"]}}), ORG))
    ),
}

BAD_BOUNDS: dict[str, Any] = {
    "null": None,
    "text": "node1",
    "list": ["node1"],
    "empty": {},
    "unknown": {"serials": ["1"]},
    "known-and-unknown-number": {"max_nodes": 1, "max_devices": 1},
    "number-null": {"max_nodes": None},
    "number-true": {"max_nodes": True},
    "number-text": {"max_nodes": "1"},
    "number-list": {"max_nodes": [1]},
    "number-not-whole": {"max_nodes": 1.5},
    "number-with-a-point": {"max_nodes": 1.0},
    "number-zero": {"max_nodes": 0},
    "number-negative": {"max_nodes": -1},
    "number-too-large": {"max_nodes": MOST_NODES + 1},
    "number-of-many-digits": {"max_nodes": 10**30},
    "known-and-unknown": {"names": [NODE_NAME], "serials": ["1"]},
    "another-case": {"Names": [NODE_NAME]},
    "names-null": {"names": None},
    "names-text": {"names": NODE_NAME},
    "names-empty": {"names": []},
    "names-number": {"names": [NODE_NAME, 1]},
    "names-with-an-empty-one": {"names": [NODE_NAME, ""]},
    "names-too-many": {"names": [NODE_NAME] * (MAX_NAMES + 1)},
    "name-too-long": {"names": ["a" * 254]},
    "name-with-a-line": {"names": ["a\nb"]},
    "pattern-empty": {"names": ["//"]},
    "pattern-without-an-end": {"names": ["/a"]},
    "pattern-of-a-slash": {"names": ["/"]},
    "pattern-with-an-error": {"names": ["/(/"]},
    "pattern-not-supported": {"names": ["/(?=a)a/"]},
    "pattern-too-long": {"names": [f"/{'a' * 257}/"]},
    "patterns-too-large-together": {"names": ["/a{100}/", "/b{100}/"]},
    "networks-null": {"networks": None},
    "networks-text": {"networks": "10.0.0.0/8"},
    "networks-empty": {"networks": []},
    "networks-number": {"networks": [10]},
    "networks-too-many": {"networks": ["10.0.0.0/8"] * (MAX_NETWORKS + 1)},
    "network-name": {"networks": ["example.net"]},
    "network-prefix": {"networks": ["10.0.0.0/33"]},
    "network-ipv4-in-ipv6": {"networks": ["::ffff:10.0.0.0/104"]},
}
BOUNDS |= {f"rule3-bad-bounds-{label}": deny(bounded(bad), NODES, MALFORMED) for label, bad in BAD_BOUNDS.items()}

TABLES = (BOUNDS,)


@rows(*TABLES)
def test_bounds(row: Row) -> None:
    row.check()


@pytest.mark.parametrize("second", ["new2.example.net", "x"])
def test_bounds_of_a_cached_token_are_compared_with_each_node(second: str) -> None:
    request = names(NODE_NAME)
    deny(names(NODE_NAME, name=second), NODES, NAME).check()
    waiting(request).check()
    deny(names(NODE_NAME, name=second), NODES, NAME).check()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from([NODE_NAME, "/.*/", "10.0.0.0/8"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["names", "networks", "max_nodes", "x"]), inner, max_size=3)
        | st.fixed_dictionaries({"max_nodes": st.integers(-1, MOST_NODES + 1) | st.booleans()})
    ),
    max_leaves=8,
)


COUNT = {
    None: DenyCode.NODES_NOT_COUNTED,
    Counted.UNKNOWN: DenyCode.NODES_NOT_COUNTED,
    Counted.USED_UP: DenyCode.TOKEN_USED_UP,
}


@given(JSON, st.sampled_from([NODE_NAME, "new2.example.net"]), st.sampled_from([None, *Counted]))
def test_any_bounds_admit_only_what_they_name(bounds: Any, name: str, counted: Counted | None) -> None:
    """A signer may write anything: only a node is admitted that is named, from a network that is named, and counted."""
    decision = decide(bounded(bounds, name=name), X509, NOW, counted=counted)
    if isinstance(decision, Deny):
        assert decision.code in (NAME, ADDRESS, MALFORMED, COUNT.get(counted))
        return
    assert isinstance(decision, Admit)
    assert isinstance(bounds, dict)
    assert bounds.keys() <= {"names", "networks", "max_nodes"}
    assert bounds.keys()
    assert "max_nodes" not in bounds or (counted is Counted.YES and 1 <= bounds["max_nodes"] <= MOST_NODES)
    assert "names" not in bounds or {name, "/.*/"} & set(bounds["names"])
    assert "networks" not in bounds
