"""Permissions from the claims of an admitted token: every flag, alone and with all others."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from hashlib import md5, sha256
from typing import Any

import pytest

from broker_auth.policy.decide import decide
from broker_auth.policy.decision import Admit, Rule
from broker_auth.policy.permissions import restricted
from broker_auth.tokens.faults import TokenFault
from broker_auth.tokens.verify import TokenVerifier
from tests.builders import requests
from tests.builders.clock import NOW
from tests.builders.policies import issuer_keys
from tests.builders.tokens import ABSENT, CLIENT_SIGNER, ORG, ORGANIZATION, SERVER_SIGNER
from tests.policy.grants import ALICE, NODE1_MD5, NODE1_SHA256, ORG_ADMIN, SERVER
from tests.policy.table import ISSUER, X509, Grant, Table, deny, grant, granted, rows

OTHER = replace(
    ISSUER, tokens=TokenVerifier(issuer_keys({ORGANIZATION: ORG.verifies, "other": ORG.verifies}))
)  # two organizations that share a key


def plus(*grants: Grant) -> Grant:
    """Return the union of the grants."""
    return Grant(
        frozenset().union(*(one.publish for one in grants)),
        frozenset().union(*(one.subscribe for one in grants)),
        frozenset().union(*(one.no_publish for one in grants)),
        frozenset().union(*(one.no_subscribe for one in grants)),
    )


def flags(names: frozenset[str] | set[str]) -> dict[str, Any]:
    return {"permissions": dict.fromkeys(sorted(names), True)}


def client(claims: dict[str, Any], policy: Any = OTHER, key: Any = ORG) -> Grant:
    decision = decide(requests.client(key, claims), policy, NOW)
    assert isinstance(decision, Admit), decision
    return granted(decision.permissions)


def server(claims: dict[str, Any], policy: Any = OTHER, key: Any = ORG) -> Grant:
    decision = decide(requests.server(key, claims), policy, NOW)
    assert isinstance(decision, Admit), decision
    return granted(decision.permissions)


# --- Clients: the exact subjects that each set of flags adds

CLIENT_ADDS: dict[frozenset[str], Grant] = {
    frozenset({"streams_admin"}): grant("$JS.>", "$JS.EVENT.>"),
    frozenset({"streams_user"}): grant(
        """
        $JS.API.INFO $JS.API.STREAM.NAMES $JS.API.STREAM.LIST $JS.API.STREAM.INFO.* $JS.API.STREAM.MSG.GET.*
        $JS.API.STREAM.MSG.DELETE.* $JS.API.DIRECT.GET.* $JS.API.DIRECT.GET.*.> $JS.API.CONSUMER.CREATE.*
        $JS.API.CONSUMER.CREATE.*.> $JS.API.CONSUMER.DURABLE.CREATE.*.* $JS.API.CONSUMER.DELETE.*.*
        $JS.API.CONSUMER.NAMES.* $JS.API.CONSUMER.LIST.* $JS.API.CONSUMER.INFO.*.* $JS.API.CONSUMER.MSG.NEXT.*.*
        $JS.ACK.> $JS.FC.> $KV.> $O.>
        """,
        "choria.republish.>",
    ),
    frozenset({"events_viewer"}): grant(
        "", "choria.lifecycle.event.> choria.machine.watcher.> choria.machine.transition"
    ),
    frozenset({"election_user"}): grant("$JS.API.STREAM.INFO.KV_CHORIA_LEADER_ELECTION $KV.CHORIA_LEADER_ELECTION.>"),
    frozenset({"governor", "streams_user"}): grant("*.governor.* choria.lifecycle.event.governor.>"),
    frozenset({"governor", "streams_admin"}): grant("*.governor.* choria.lifecycle.event.governor.>"),
    frozenset({"fleet_management"}): grant(
        "*.broadcast.agent.> *.broadcast.service.> *.node.> choria.federation.*.federation"
    ),
    frozenset({"signed_fleet_management"}): grant(
        "*.broadcast.agent.> *.broadcast.service.> *.node.> choria.federation.*.federation"
    ),
}
EFFECTIVE = sorted({flag for key in CLIENT_ADDS for flag in key})
WITHOUT_EFFECT = ["system_user", "service", "authentication_delegator", "provisioner"]


def every_set(names: list[str]) -> list[frozenset[str]]:
    return [frozenset(chosen) for size in range(len(names) + 1) for chosen in itertools.combinations(names, size)]


@pytest.mark.parametrize("chosen", every_set(EFFECTIVE), ids=lambda chosen: "+".join(sorted(chosen)) or "none")
def test_client_gets_the_permissions_of_its_flags(chosen: frozenset[str]) -> None:
    expected = plus(ALICE, *(added for needed, added in CLIENT_ADDS.items() if needed <= chosen))
    assert client(flags(chosen)) == expected
    assert client(flags(chosen | set(WITHOUT_EFFECT))) == expected


def test_org_admin_gets_everything() -> None:
    assert client(flags({"org_admin"})) == ORG_ADMIN
    assert client(flags({"org_admin", *EFFECTIVE, *WITHOUT_EFFECT})) == ORG_ADMIN


@pytest.mark.parametrize("flag", [*EFFECTIVE, *WITHOUT_EFFECT, "org_admin"])
def test_a_flag_that_is_false_adds_nothing(flag: str) -> None:
    assert client({"permissions": {flag: False}}) == ALICE


def test_unknown_flags_add_nothing() -> None:
    assert client({"permissions": {"ORG_ADMIN": True, "orgadmin": True, "admin": True}}) == ALICE
    assert client({"org_admin": True}) == ALICE


REPUBLISH: list[tuple[Any, str]] = [("choria", "choria.republish.>"), ("other", "other.republish.>")]


@pytest.mark.parametrize(("ou", "subject"), REPUBLISH)
def test_streams_user_may_subscribe_to_republished_messages_of_its_organization(ou: str, subject: str) -> None:
    permissions = client({"ou": ou} | flags({"streams_user"}))
    assert permissions.subscribe == ALICE.subscribe | {subject}


def test_streams_user_without_organization_gets_no_republished_messages() -> None:
    assert client({"ou": ABSENT} | flags({"streams_user"}), X509, CLIENT_SIGNER).subscribe == ALICE.subscribe


def test_subjects_of_a_client_token_are_added() -> None:
    claims = {"pub_subjects": ["a.>", "b.*.c"], "sub_subjects": ["x", "*.y"]}
    assert client(claims) == plus(ALICE, grant("a.> b.*.c", "x *.y"))
    assert client(claims | flags({"org_admin"})) == ORG_ADMIN


@pytest.mark.parametrize("callerid", ["up=bob", "choria=ünïcode", "a.b c", "x" * 4000])
def test_a_clients_inbox_is_the_digest_of_its_callerid(callerid: str) -> None:
    name = callerid.encode()
    inboxes = f"*.reply.{md5(name, usedforsecurity=False).hexdigest()}.> *.reply.{sha256(name).hexdigest()}.>"
    assert client({"callerid": callerid}) == grant("$SYS.REQ.USER.INFO", inboxes)


# --- Servers

API = """
    STREAM.INFO.* STREAM.MSG.GET.* STREAM.MSG.DELETE.* DIRECT.GET.* DIRECT.GET.*.> CONSUMER.CREATE.*
    CONSUMER.CREATE.*.> CONSUMER.DURABLE.CREATE.*.* CONSUMER.INFO.*.* CONSUMER.MSG.NEXT.*.*
"""


@cache
def api(prefix: str) -> str:
    return " ".join(f"{prefix}.{name}" for name in API.split()) + " $JS.ACK.> $JS.FC.>"


def server_adds(ou: str | None) -> dict[frozenset[str], Grant]:
    prefix = "$JS.API" if ou == "choria" else "choria.streams"
    return {
        frozenset({"service_host"}): grant("", "mcollective.broadcast.service.>"),
        frozenset({"submission"}): grant("mcollective.submission.in.>"),
        frozenset({"governor", "streams"}): grant("mcollective.governor.*"),
        frozenset({"streams"}): grant(api(prefix), f"{ou}.republish.>" if ou else ""),
    }


@pytest.mark.parametrize("chosen", every_set(["service_host", "submission", "governor", "streams"]))
@pytest.mark.parametrize("ou", ["choria", "other", None])
def test_server_gets_the_permissions_of_its_flags(chosen: frozenset[str], ou: str | None) -> None:
    expected = plus(SERVER, *(added for needed, added in server_adds(ou).items() if needed <= chosen))
    if ou is None:
        assert server({"ou": ABSENT} | flags(chosen), X509, SERVER_SIGNER) == expected
    else:
        assert server({"ou": ou} | flags(chosen)) == expected


def test_server_of_organization_choria_uses_the_api_directly() -> None:
    permissions = server({"ou": "choria"} | flags({"streams"}), X509, SERVER_SIGNER)
    assert permissions == plus(SERVER, grant(api("$JS.API"), "choria.republish.>"))


def test_server_is_member_of_each_collective() -> None:
    claims = {"collectives": ["one", "two"]} | flags({"service_host", "submission", "governor", "streams"})
    expected = grant(
        f"""
        choria.lifecycle.> choria.machine.transition choria.machine.watcher.>
        one.reply.> one.broadcast.agent.registration choria.federation.one.collective
        two.reply.> two.broadcast.agent.registration choria.federation.two.collective
        one.submission.in.> two.submission.in.> one.governor.* two.governor.* {api("$JS.API")}
        """,
        f"""
        one.broadcast.agent.> one.node.node1.example.net one.reply.{NODE1_MD5}.> one.reply.{NODE1_SHA256}.>
        two.broadcast.agent.> two.node.node1.example.net two.reply.{NODE1_MD5}.> two.reply.{NODE1_SHA256}.>
        one.broadcast.service.> two.broadcast.service.> choria.republish.>
        """,
    )
    assert server(claims) == expected
    assert server(claims | {"collectives": ["one", "two", "one"]}) == expected


def test_server_token_adds_publish_subjects_only() -> None:
    assert server({"pub_subjects": ["a.>"], "sub_subjects": [">"]}) == plus(SERVER, grant("a.>"))


def test_client_flags_are_ignored_for_servers() -> None:
    assert server(flags({"org_admin", "streams_admin", "fleet_management"})) == SERVER


# --- Claims that become subjects

UNFIT_ANYWHERE = {
    "empty": "",
    "star": "*",
    "star-token": "a.*",
    "star-in-a-word": "a*b",
    "all": ">",
    "all-last": "a.>",
    "space": "a b",
    "tab": "a\tb",
    "newline": "a\n",
    "no-break-space": "a\xa0b",
    "null": "a\0",
    "empty-token": "a..b",
    "dot-first": ".a",
    "dot-last": "a.",
}
UNFIT_PART = UNFIT_ANYWHERE | {"dots": "a.b"}
UNFIT_SUBJECT = {
    "empty": "",
    "space": "a b",
    "tab": "a\tb",
    "newline": "a\n",
    "em-space": "a\u2003b",
    "all-not-last": ">.a",
    "all-within": "a.>.b",
    "empty-token": "a..b",
    "dot": ".",
    "dot-first": ".a",
    "dot-last": "a.",
}
STREAMS = {"permissions": {"streams": True}}
USER = {"permissions": {"streams_user": True}}
BAD = TokenFault.CLAIM_SUBJECT
UNFIT: Table = {}
for label, text in UNFIT_PART.items():
    UNFIT[f"server-collective-{label}"] = deny(
        requests.server(SERVER_SIGNER, {"collectives": ["good", text]}), Rule.SERVER, BAD
    )
    if text:
        UNFIT[f"server-ou-{label}"] = deny(requests.server(SERVER_SIGNER, {"ou": text} | STREAMS), Rule.SERVER, BAD)
        UNFIT[f"client-ou-{label}"] = deny(requests.client(CLIENT_SIGNER, {"ou": text} | USER), Rule.CLIENT, BAD)
for label, text in UNFIT_ANYWHERE.items():
    if text:
        UNFIT[f"server-identity-{label}"] = deny(requests.server(SERVER_SIGNER, {"identity": text}), Rule.SERVER, BAD)
for label, text in UNFIT_SUBJECT.items():
    UNFIT[f"server-pub-{label}"] = deny(
        requests.server(SERVER_SIGNER, {"pub_subjects": ["good", text]}), Rule.SERVER, BAD
    )
    for claim in ("pub_subjects", "sub_subjects"):
        UNFIT[f"client-{claim}-{label}"] = deny(
            requests.client(CLIENT_SIGNER, {claim: [text, "good"]}), Rule.CLIENT, BAD
        )
for claim in ("pub_subjects", "sub_subjects"):
    UNFIT[f"client-{claim}-org-admin"] = deny(
        requests.client(CLIENT_SIGNER, {claim: ["a b"], "permissions": {"org_admin": True}}), Rule.CLIENT, BAD
    )

TABLES = (UNFIT,)


@rows(*TABLES)
def test_claim_that_is_invalid_in_a_subject_denies(row: Any) -> None:
    row.check()


@pytest.mark.parametrize("identity", ["a", "a.b.c", "ünï", "-", "$x"])
def test_identity_may_contain_dots(identity: str) -> None:
    assert f"mcollective.node.{identity}" in server({"identity": identity}).subscribe


def test_an_empty_list_denies_everything() -> None:
    assert granted(restricted([], ["a"])) == grant(no_publish=">", subscribe="a")
    assert granted(restricted(["a"], [])) == grant("a", no_subscribe=">")
    assert granted(restricted(iter(()), iter(()))) == grant(no_publish=">", no_subscribe=">")
