"""Why a code is given and what to do about it: for ``why``, and for ``docs/denials.md``, made from here.

Complete over every code there is; a test says so. No remedy weakens a check.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker_auth.callout.request import WireFault
from broker_auth.policy.decision import PHRASES, DenyCode
from broker_auth.tokens.faults import TokenFault


@dataclass(frozen=True, slots=True)
class Remedy:
    """What a code means and what to do, one sentence or two each, Markdown."""

    cause: str
    remedy: str


_RENEW: Final = "Issue a new token (`broker-auth token …`) and put it where the old one is."
_INTACT: Final = (
    "Compare the file with what was issued; `broker-auth token inspect` shows what is in it. Issue a new one "
    "if it was cut off or edited."
)
_CHAIN: Final = (
    "Issue it again with the key of its issuer: `broker-auth token client … --issuer`; a chain signed by hand is "
    "almost never right."
)
_CLOCKS: Final = (
    "Compare the clocks of issuer, service and brokers; `plugin.broker_auth.token_leeway` allows up to 60s."
)
_SERVER: Final = (
    "nats-server never sends this: find out who can publish into the callout account, which holds nobody but the "
    "service. A newer nats-server is the other explanation: look at the supported versions."
)
_XKEY: Final = "Give nats-server the `xkey` that belongs to `plugin.broker_auth.xkey_seed_file` and restart it."
_SIGNATURE: Final = (
    "The seed the client signs with must be that of the token's `public_key`: give it both from one issue."
)

DENIALS: Final[dict[DenyCode, Remedy]] = {
    DenyCode.KIND: Remedy(
        "It was not a client but a leaf node, router or gateway that asked to get in.",
        "Leaf nodes log in by nats-server's own `leafnodes.authorization`: render the configuration anew.",
    ),
    DenyCode.TYPE: Remedy(
        "The client speaks MQTT or another protocol than NATS and WebSocket.", "Connect by NATS or WebSocket."
    ),
    DenyCode.NO_TLS: Remedy(
        "The connection is not encrypted.",
        "Switch `allow_non_tls` off in nats-server, and let the client connect by `tls://`.",
    ),
    DenyCode.CHAIN_UNUSABLE: Remedy(
        "The client's certificate or one of its chain cannot be read; the reason says which and why.",
        "Compare the certificate with docs/certificates.md, and issue it anew.",
    ),
    DenyCode.JWT_DIFFERS: Remedy(
        "The client sent two tokens, as `auth_token` and as `jwt`, and they differ.",
        "Send one token, or the same in both places.",
    ),
    DenyCode.EDGE_VERIFIED_TLS: Remedy(
        "An edge says that it verified the certificate of a connection, but an edge's listener asks for none.",
        "Render the edge's configuration again and restart it. If it was rendered so, somebody else speaks for the "
        "edge: treat it as stolen (docs/security.md).",
    ),
    DenyCode.EDGE_PROVISIONER: Remedy(
        "The user `provisioner` connected to an edge, where no certificate is asked for.",
        "Let the provisioner connect to the fleet's servers. Its password has been shown to the edge: if it may be "
        "in other hands, replace `plugin.choria.network.provisioning.client_password`.",
    ),
    DenyCode.EDGE_SYSTEM_USER: Remedy(
        "The system user connected to an edge.",
        "Connect to the fleet's servers, or to the edge as its break-glass user. The password has been shown to the "
        "edge: if the edge may be in other hands, replace `plugin.choria.network.system.password`.",
    ),
    DenyCode.EDGE_FLEET_TOKEN: Remedy(
        "A client or a server with a token for the fleet connected to an edge.",
        "Let it connect to the fleet's servers; an edge admits unprovisioned nodes only.",
    ),
    DenyCode.PROVISIONING_DISABLED: Remedy(
        "Somebody wants to be provisioned, or to provision, but this is not enabled.",
        "Set `plugin.choria.network.provisioning.client_password`, and `signer_cert` or organization issuers.",
    ),
    DenyCode.PROVISIONER_PASSWORD: Remedy(
        "The user `provisioner` gave a wrong password, or none.",
        "Compare it with `plugin.choria.network.provisioning.client_password`. While it is being changed, "
        "`plugin.broker_auth.provisioning.previous_client_password` accepts the old one too.",
    ),
    DenyCode.PROVISIONER_NOT_VERIFIED: Remedy(
        "The user `provisioner` connected without a certificate that leads to `plugin.broker_auth.client_ca`; if "
        "one was shown, the reason says what is wrong with it.",
        "Connect to the fleet's listener, with a client certificate of the fleet's CA.",
    ),
    DenyCode.PROVISIONER_IDENTITY: Remedy(
        "The certificate is good, but its name is not one of `plugin.broker_auth.provisioner.identities`.",
        "Add the name if this host is a provisioner; otherwise find out who has the password. A common name does not "
        "count beside alternative names; URIs, e-mail and IP addresses are written with `uri:`, `email:` and `ip:`.",
    ),
    DenyCode.PROVISIONER_TOKEN_MISSING: Remedy(
        "With organization issuers the provisioner needs a client token, and sent none.",
        "Give it a token with the permission `provisioner` (`broker-auth token client … --provisioner`).",
    ),
    DenyCode.PROVISIONER_TOKEN_KIND: Remedy(
        "The provisioner sent a token that is not a client token.", "Give it a client token."
    ),
    DenyCode.PROVISIONER_CLAIM: Remedy(
        "The provisioner's client token lacks the permission `provisioner`.",
        "Issue it anew with that permission.",
    ),
    DenyCode.SYSTEM_PASSWORD: Remedy(
        "The system user gave a wrong password, or none.",
        "Compare it with `plugin.choria.network.system.password`; `plugin.broker_auth.system.previous_password` "
        "accepts the old one while it is being changed.",
    ),
    DenyCode.SYSTEM_TOKEN_MISSING: Remedy(
        "The system user connected without a verified certificate, and sent no token to stand in for it.",
        "Connect with a client certificate of the fleet's CA, or send a token with `system_user` or `org_admin`.",
    ),
    DenyCode.SYSTEM_TOKEN_KIND: Remedy(
        "The system user sent a token that is not a client token.", "Send a client token."
    ),
    DenyCode.SYSTEM_CLAIM: Remedy(
        "The system user's token has neither of the permissions `system_user` and `org_admin`.",
        "Issue it anew with one of them, or connect with a client certificate.",
    ),
    DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS: Remedy(
        "A provisioning token came with a verified certificate: who has one needs no provisioning.",
        "Remove the node's provisioning token, or let it connect to the edge without the certificate.",
    ),
    DenyCode.NODE_NAME: Remedy(
        "An unprovisioned node gave no connection name, or one that cannot be part of a subject.",
        "Let it connect with its host name as its name: at most 253 characters, no `*`, `>` or white space.",
    ),
    DenyCode.PROVISIONING_FULL: Remedy(
        "The provisioning account has as many connections as `plugin.broker_auth.provisioning.limits.max_connections` "
        "allows; the places beyond are kept for provisioners. The node gets in when others have left.",
        "Look with `broker-auth report conns` who is there. If one provisioning token is behind many connections of "
        "nobody's nodes, replace its signer. If the nodes are yours, raise the limit, render the configuration again "
        "and restart nats-server.",
    ),
    DenyCode.SERVERS_DENIED: Remedy(
        "`plugin.choria.network.deny_server_connections` keeps servers out here.",
        "Let the server connect to another broker, or remove the setting.",
    ),
    DenyCode.CLIENT_HOST: Remedy(
        "`plugin.choria.network.client_hosts` does not list the address, and "
        "`plugin.choria.network.deny_server_connections` denies the server permissions that it would otherwise get.",
        "List the address or its network in `client_hosts` if a client runs there; a server needs another broker.",
    ),
    DenyCode.PUB_SUB_DISABLED: Remedy(
        "With organization issuers a certificate alone is enough only where `plugin.security.choria.ca` is set.",
        "Send a token, or set the key to let certificates of that CA publish and subscribe.",
    ),
    DenyCode.NO_CREDENTIAL: Remedy(
        "Neither a token nor a verified certificate nor a user name we know.",
        "A new node needs its `provisioning.jwt`; a fleet member connects to the fleet's listener with its "
        "certificate. If a certificate was shown that does not count, the reason says what is wrong with it: renew it, "
        "or add its CA to `plugin.broker_auth.client_ca` if that CA is yours.",
    ),
    DenyCode.INTERNAL_ERROR: Remedy(
        "The decision failed because of a fault in broker-auth.", "Look at its log for the traceback, and report it."
    ),
}

TOKENS: Final[dict[TokenFault, Remedy]] = {
    TokenFault.TOO_LARGE: Remedy("The token is larger than 16 KiB.", "Put fewer claims into it."),
    TokenFault.NOT_COMPACT: Remedy("What was sent is not three parts joined by dots, so no token.", _INTACT),
    TokenFault.ENCODING: Remedy("A part of the token is not clean base64url.", _INTACT),
    TokenFault.HEADER: Remedy("The token's header cannot be used.", _INTACT),
    TokenFault.CRITICAL_HEADER: Remedy(
        "The token demands extensions (`crit`), and none is supported.", "Issue it without `crit`."
    ),
    TokenFault.NOT_JSON: Remedy("Header or claims are not a JSON object.", _INTACT),
    TokenFault.TOO_DEEP: Remedy("The claims nest too deep.", "Issue it with flatter claims."),
    TokenFault.DUPLICATE_CLAIM: Remedy(
        "A claim stands twice in the token.", "Issue it anew; no issuer of Choria's does this."
    ),
    TokenFault.CLAIM_TYPE: Remedy("A claim has the wrong type, such as a time written as text.", "Issue it anew."),
    TokenFault.CLAIM_MISSING: Remedy(
        "A claim is missing that this kind of token needs.", "Issue it anew, with the claim."
    ),
    TokenFault.CLAIM_SUBJECT: Remedy(
        "A claim (identity, collective, organization, a subject) cannot be part of a subject.",
        "Issue it anew without wildcards, white space or empty parts in that claim.",
    ),
    TokenFault.PURPOSE: Remedy(
        "The token is of a kind that does not log in here.", "Send a client, server or provisioning token."
    ),
    TokenFault.ALGORITHM: Remedy(
        "The token's algorithm does not fit the key that has to verify it.",
        "RSA keys sign RS256 to RS512, Ed25519 keys EdDSA, EC keys ES256 or ES384: look whether the signer that is "
        "configured is the one that signed.",
    ),
    TokenFault.NO_SIGNER: Remedy(
        "No key is configured for tokens of this kind.",
        "Set `signer_cert`, `client_signer_cert` or `server_signer_cert`, or organization issuers.",
    ),
    TokenFault.ISSUER_MISSING: Remedy("The token names no organization (`ou`).", "Issue it with `--org`."),
    TokenFault.ISSUER_UNKNOWN: Remedy(
        "The token's organization (`ou`) is not one of `plugin.security.issuer.names`.",
        "Add the issuer, or issue the token for an organization that is known here.",
    ),
    TokenFault.SIGNATURE: Remedy(
        "No configured signer's key signed this token: another key did, or it was changed.",
        "`broker-auth token check` names the signers that are tried. After a rotation, list old and new signer both.",
    ),
    TokenFault.EXPIRED: Remedy("The token has expired.", _RENEW),
    TokenFault.NO_EXPIRY: Remedy(
        "The token never expires, which is not accepted.",
        "Issue one that does. For provisioning tokens of before 2022, "
        "`plugin.broker_auth.provisioning.allow_non_expiring_tokens` makes an exception.",
    ),
    TokenFault.NOT_YET_VALID: Remedy("The token is not valid yet (`nbf`).", _CLOCKS),
    TokenFault.ISSUED_IN_FUTURE: Remedy("The token was issued in the future (`iat`).", _CLOCKS),
    TokenFault.ISSUER_EXPIRED: Remedy(
        "The token holds, but the one who issued it has expired (`issexp`).",
        "Issue a new token to the issuer, and have it issue this one again.",
    ),
    TokenFault.PUBLIC_KEY: Remedy(
        "The token's `public_key` is not an Ed25519 key in hex.", "Issue it anew with the right key."
    ),
    TokenFault.CHAIN_ISSUER: Remedy(
        "The token has a trust chain, but its `iss` does not name a chain's issuer.", _CHAIN
    ),
    TokenFault.CHAIN_ISSUER_KEY: Remedy(
        "The token names another organization key than the one configured for its `ou`.",
        "Correct `plugin.security.issuer.<name>.public`, or issue the token with that organization's key.",
    ),
    TokenFault.CHAIN_ISSUER_ID: Remedy(
        "The issuer named in the token's `iss` has a token id that is not a KSUID, so its age cannot be known.",
        "Make the chain issuer's token anew with `broker-auth token client … --issuer` or `choria jwt client … "
        "--issuer`, which make such ids, and have it issue this token again.",
    ),
    TokenFault.CHAIN_ISSUER_TOO_OLD: Remedy(
        "The token's chain issuer is older than `plugin.broker_auth.chain_issuer_max_age`, counted from its token id. "
        "Everybody below that issuer is denied.",
        "Renew the chain issuer (see the runbook, “A chain issuer”), and have it issue new tokens.",
    ),
    TokenFault.CHAIN_ISSUER_IN_FUTURE: Remedy(
        "The id of the token's chain issuer was made in the future.",
        _CLOCKS,
    ),
    TokenFault.CHAIN_CLAIM_MISSING: Remedy("A claim is missing that tokens of a trust chain need.", _CHAIN),
    TokenFault.CHAIN_ID: Remedy("The token's `jti` is not a KSUID, which trust chains need.", _CHAIN),
    TokenFault.CHAIN_ID_TIME: Remedy("The time in the token's `jti` is not its `iat`.", _CHAIN),
    TokenFault.CHAIN_SIGNATURE_FORMAT: Remedy("The chain's signature (`tcs`) has the wrong form.", _CHAIN),
    TokenFault.CHAIN_ORG_SIGNATURE: Remedy("The organization's key did not sign the chain's issuer.", _CHAIN),
    TokenFault.CHAIN_CREATOR_SIGNATURE: Remedy("The issuer in the chain did not sign this token's id.", _CHAIN),
    TokenFault.NONCE_MISSING: Remedy(
        "nats-server sent no nonce to be signed.",
        "Its configuration needs an nkey user, as the rendered one has: render it anew.",
    ),
    TokenFault.NONCE_UNSIGNED: Remedy(
        "The client sent its token but did not sign the server's nonce, so it may not hold the token's key.",
        "Give the client the seed of the token's `public_key` beside the token.",
    ),
    TokenFault.NONCE_SIGNATURE_FORMAT: Remedy("The signature of the nonce is not 64 bytes in base64url.", _SIGNATURE),
    TokenFault.NONCE_SIGNATURE: Remedy("The nonce was signed with another key than the token's.", _SIGNATURE),
}

UNANSWERED: Final[dict[WireFault, Remedy]] = {
    WireFault.NO_REPLY_SUBJECT: Remedy("A message asked for no reply.", _SERVER),
    WireFault.TOO_LARGE: Remedy("A request is larger than 512 KiB.", _SERVER),
    WireFault.NOT_SEALED: Remedy("A request is not encrypted, but an xkey is configured here.", _XKEY),
    WireFault.SEALED: Remedy(
        "A request is encrypted, but no xkey is configured here.",
        "Set `plugin.broker_auth.xkey_seed_file` to the seed of nats-server's `xkey`.",
    ),
    WireFault.SEAL: Remedy("A request is encrypted for another key than this service's, or was changed.", _XKEY),
    WireFault.NOT_A_JWT: Remedy("A request is no JWT.", _SERVER),
    WireFault.HEADER: Remedy("A request's header is not nats-server's.", _SERVER),
    WireFault.CLAIMS: Remedy("A request's claims cannot be read.", _SERVER),
    WireFault.LATE: Remedy(
        "Requests came too late to be answered: more of them than can be decided, or clocks that differ.",
        "Look at `broker_auth_in_flight` and the load of the machine, add workers or hosts, and compare the clocks of "
        "broker and service. What comes too late is dropped without work.",
    ),
    WireFault.SHED: Remedy(
        "More requests arrived than can be answered in time; those of unprovisioned nodes go first.",
        "Add workers or hosts; look for a flood at the edge, by host, in the audit records of denials.",
    ),
    WireFault.ISSUER: Remedy("A request names another server than the one that signed it.", _SERVER),
    WireFault.SIGNATURE: Remedy("A request is not signed by the server it names.", _SERVER),
    WireFault.AUDIENCE: Remedy("A request is meant for something else.", _SERVER),
    WireFault.USER_NKEY: Remedy("A request names no user key to answer for.", _SERVER),
    WireFault.TYPE: Remedy("A message is not an authorization request.", _SERVER),
    WireFault.VERSION: Remedy("A request is of a version that is not supported.", _SERVER),
    WireFault.XKEY: Remedy("A request names another encryption key than its header.", _SERVER),
}

REMEDIES: Final[dict[str, Remedy]] = {
    code.value: remedy for table in (DENIALS, TOKENS) for code, remedy in table.items()
}
"""By the code an audit record holds."""


def reference() -> str:
    """``docs/denials.md``."""
    return "\n".join(
        [
            _INTRODUCTION,
            *_section("Denied connections", DENIALS),
            *_section("Tokens that are not accepted", TOKENS),
            _UNANSWERED,
            *_section("Messages without a reply", UNANSWERED),
        ]
    )


def _section(
    title: str, table: dict[DenyCode, Remedy] | dict[TokenFault, Remedy] | dict[WireFault, Remedy]
) -> list[str]:
    return [f"## {title}\n", *(_entry(code, remedy) for code, remedy in table.items())]


def _entry(code: StrEnum, remedy: Remedy) -> str:
    told = ""
    if not isinstance(code, WireFault):
        phrase = PHRASES.get(code, "token not accepted") if isinstance(code, DenyCode | TokenFault) else ""
        told = f" nats-server logs: `{phrase}`."
    return f"### `{code.value}`\n\n{remedy.cause}{told}\n\n{remedy.remedy}\n"


_INTRODUCTION: Final = """\
# Denials

<!-- Made by `python -m broker_auth.operate.remedies > docs/denials.md`. -->

Every code an audit record can hold, why it is given, and what to do. A client itself is told nothing but
`Authorization Violation`; nats-server's log has one of a dozen phrases; the audit record has the code and the detail.
`broker-auth why NAME` finds the records of a name, host, connection id or token id and prints what stands here.
"""

_UNANSWERED: Final = """\
What is not a valid request of a nats-server gets no reply at all, and the connection behind it, if there is one, runs
into nats-server's timeout. Such messages leave no audit record; they are counted in `broker_auth_unanswered_total` by
these faults, and the first of each kind is logged.
"""

if __name__ == "__main__":
    print(reference(), end="")
