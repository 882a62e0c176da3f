"""The permissions of a gate's link (docs/policy.md#the-link-of-a-gate): what tokens earn by flags, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import pytest

from broker_auth.policy import permissions
from broker_auth.policy.permissions import GATE_LINK, Permissions
from broker_auth.policy.subjects import covers
from broker_auth.tokens.claims import ClientClaims, ClientPermissions, ServerClaims, ServerPermissions
from tests.builders.tokens import HOLDER

# Flags that go beyond the link, and what nats-server answers where the member is connected.
BEYOND = ("org_admin", "streams_admin")
LOCAL = ("$SYS.REQ.USER.INFO",)


def earned() -> Iterator[Permissions]:
    """Yield what a client or a server earns by each pair of flags."""
    clients = [flag.name for flag in msgspec.structs.fields(ClientPermissions) if flag.name not in BEYOND]
    for flags in itertools.combinations_with_replacement(clients, 2):
        claims = ClientClaims(
            callerid="up=alice",
            ou="choria",
            public_key=HOLDER.hex,
            permissions=ClientPermissions(**dict.fromkeys(flags, True)),
        )
        yield permissions.client(claims)
    servers = [flag.name for flag in msgspec.structs.fields(ServerPermissions)]
    for organization, flags in itertools.product(
        ("choria", "acme"), itertools.combinations_with_replacement(servers, 2)
    ):
        yield permissions.server(
            ServerClaims(
                identity="node1.example.net",
                collectives=("mcollective",),
                ou=organization,
                public_key=HOLDER.hex,
                permissions=ServerPermissions(**dict.fromkeys(flags, True)),
            )
        )


def test_everything_that_flags_of_tokens_earn_passes_the_link() -> None:
    for granted in earned():
        assert [item for item in granted.pub.allow if not GATE_LINK.pub.allows(item) and item not in LOCAL] == []
        assert [item for item in granted.sub.allow if not GATE_LINK.sub.allows(item)] == []


@pytest.mark.parametrize("side", ["pub", "sub"])
def test_link_passes_nothing_that_no_token_earns(side: str) -> None:
    """Only names of collectives, members and organizations are replaced by wildcards."""
    had = {subject for granted in earned() for subject in getattr(granted, side).allow}
    for subject in getattr(GATE_LINK, side).allow:
        assert any(covers(subject, item) and depth(item) >= depth(subject) for item in had), subject


def depth(subject: str) -> int:
    """Return the number of tokens that are not wildcards at the end."""
    tokens = subject.split(".")
    return len(tokens) - (tokens[-1] == ">")


@pytest.mark.parametrize("flag", BEYOND)
def test_administrators_get_no_more_over_the_link(flag: str) -> None:
    claims = ClientClaims(
        callerid="up=alice", ou="choria", public_key=HOLDER.hex, permissions=ClientPermissions(**{flag: True})
    )
    assert permissions.client(claims).pub.allows("$JS.API.STREAM.DELETE.X")
    assert not GATE_LINK.pub.allows("$JS.API.STREAM.DELETE.X")


@pytest.mark.parametrize(
    "subject",
    [">", "*.>", "$JS.>", "$JS.API.>", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.PURGE.X", "$JS.API.ACCOUNT.PURGE.X"],
)
def test_link_publishes_no_commands_of_administrators(subject: str) -> None:
    assert not GATE_LINK.pub.allows(subject)
