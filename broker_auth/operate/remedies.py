"""Causes and remedies of all codes: for ``why``, and for ``docs/denials.md``, which is generated from this module.

A test checks that every code is covered. No remedy weakens a check.
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
    """Cause and remedy of a code, one or two sentences of Markdown each."""

    cause: str
    remedy: str


_RENEW: Final = "Issue a new token (`broker-auth token …`) and replace the old one."
_INTACT: Final = (
    "Compare the file with the token that was issued; `broker-auth token inspect` shows its content. Issue a new token "
    "if it was truncated or edited."
)
_CHAIN: Final = (
    "Issue it again with the key of its issuer: `broker-auth token client … --issuer`; a chain signed by hand is "
    "rarely correct."
)
_CLOCKS: Final = (
    "Compare the clocks of issuer, service and brokers; `plugin.broker_auth.token_leeway` allows up to 60s."
)
_SERVER: Final = (
    "nats-server never sends this: find out which client can publish in the callout account, which should contain "
    "only the service. Otherwise nats-server may be too new: check the supported versions."
)
_XKEY: Final = "Give nats-server the `xkey` that belongs to `plugin.broker_auth.xkey_seed_file` and restart it."
_SIGNATURE: Final = (
    "The client must sign with the seed of the token's `public_key`: give it token and seed of the same issue."
)

DENIALS: Final[dict[DenyCode, Remedy]] = {
    DenyCode.KIND: Remedy(
        "The connection is not from a client but from a leaf node, router or gateway.",
        "Leaf nodes log in by nats-server's own `leafnodes.authorization`: render the configuration again.",
    ),
    DenyCode.TYPE: Remedy(
        "The client uses MQTT or another protocol than NATS and WebSocket.", "Connect by NATS or WebSocket."
    ),
    DenyCode.NO_TLS: Remedy(
        "The connection is not encrypted.",
        "Switch `allow_non_tls` off in nats-server, and let the client connect by `tls://`.",
    ),
    DenyCode.CHAIN_UNUSABLE: Remedy(
        "The client's certificate, or another one of its chain, cannot be parsed; the reason says which and why.",
        "Compare the certificate with docs/certificates.md, and issue it again.",
    ),
    DenyCode.JWT_DIFFERS: Remedy(
        "The client sent two tokens, as `auth_token` and as `jwt`, and they differ.",
        "Send one token, or the same in both places.",
    ),
    DenyCode.REVOKED: Remedy(
        "A credential, the node name or the address of the connection was revoked. The reason names it; "
        "`broker-auth revoked` shows who revoked it and why. A certificate may also be in a CRL of its CA.",
        "Issue a new token or certificate with a new key to its owner. `broker-auth restore` undoes a revocation; a "
        "certificate in a CRL is denied until its CA publishes one without it.",
    ),
    DenyCode.CRL_EXPIRED: Remedy(
        "The CRL of the certificate's CA has expired, and `plugin.broker_auth.client_crl_expired` is `deny`.",
        "Have the CA publish a current CRL, and replace the file that `plugin.broker_auth.client_crl` names. Workers "
        "follow it without a reload.",
    ),
    DenyCode.EDGE_VERIFIED_TLS: Remedy(
        "An edge claims to have verified the certificate of a connection, but edges do not request certificates.",
        "Render the edge's configuration again and restart it. If its configuration was correct, treat the edge as "
        "compromised (docs/security.md).",
    ),
    DenyCode.EDGE_PROVISIONER: Remedy(
        "The user `provisioner` connected to an edge, which does not request a certificate.",
        "Let the provisioner connect to the fleet's servers. The edge has received its password: if the edge may be "
        "compromised, replace `plugin.choria.network.provisioning.client_password`.",
    ),
    DenyCode.EDGE_SYSTEM_USER: Remedy(
        "The system user connected to an edge.",
        "Connect to the fleet's servers, or to the edge as its break-glass user. The edge has received the password: "
        "if the edge may be compromised, replace `plugin.choria.network.system.password`.",
    ),
    DenyCode.EDGE_FLEET_TOKEN: Remedy(
        "A client or a server with a token for the fleet connected to an edge.",
        "Let it connect to the fleet's servers; an edge only admits unprovisioned nodes.",
    ),
    DenyCode.GATE_VERIFIED_TLS: Remedy(
        "A gate says that it verified the certificate of a connection, but a gate's listener asks for none.",
        "Render the gate's configuration again and restart it. If it was rendered so, somebody else speaks for the "
        "gate: treat it as stolen (docs/security.md).",
    ),
    DenyCode.GATE_PROVISIONER: Remedy(
        "The user `provisioner` connected to a gate, which has no provisioning account.",
        "Let the provisioner connect to the fleet's servers. Its password has been shown to the gate: if it may be "
        "in other hands, replace `plugin.choria.network.provisioning.client_password`.",
    ),
    DenyCode.GATE_SYSTEM_USER: Remedy(
        "The system user connected to a gate.",
        "Connect to the fleet's servers, or to the gate as its break-glass user. The password has been shown to the "
        "gate: if the gate may be in other hands, replace `plugin.choria.network.system.password`.",
    ),
    DenyCode.GATE_PROVISIONING_TOKEN: Remedy(
        "An unprovisioned node connected to a gate, which admits clients and servers by their tokens only.",
        "Name an edge, or the fleet's WebSocket listener, in the URLs of the provisioning token.",
    ),
    DenyCode.PROVISIONING_DISABLED: Remedy(
        "A node or provisioner connected, but provisioning is not enabled.",
        "Set `plugin.choria.network.provisioning.client_password`, and `signer_cert` or organization issuers.",
    ),
    DenyCode.PROVISIONER_PASSWORD: Remedy(
        "The user `provisioner` sent a wrong password or no password.",
        "Compare it with `plugin.choria.network.provisioning.client_password`. While it is being changed, "
        "`plugin.broker_auth.provisioning.previous_client_password` also accepts the old one.",
    ),
    DenyCode.PROVISIONER_NOT_VERIFIED: Remedy(
        "The user `provisioner` connected without a certificate of a CA in `plugin.broker_auth.client_ca`; if it "
        "presented a certificate, the reason says what is wrong with it.",
        "Connect to the fleet's listener, with a client certificate of the fleet's CA.",
    ),
    DenyCode.PROVISIONER_IDENTITY: Remedy(
        "The certificate is valid, but its name is not in `plugin.broker_auth.provisioner.identities`.",
        "Add the name if this host is a provisioner; otherwise find out who has the password. A common name is ignored "
        "if there are alternative names; URIs, e-mail and IP addresses are written with `uri:`, `email:` and `ip:`.",
    ),
    DenyCode.PROVISIONER_TOKEN_MISSING: Remedy(
        "With organization issuers the provisioner needs a client token, but did not send one.",
        "Give it a token with the permission `provisioner` (`broker-auth token client … --server-provisioner`).",
    ),
    DenyCode.PROVISIONER_TOKEN_KIND: Remedy(
        "The provisioner sent a token that is not a client token.", "Give it a client token."
    ),
    DenyCode.PROVISIONER_CLAIM: Remedy(
        "The provisioner's client token lacks the permission `provisioner`.",
        "Issue it again with that permission.",
    ),
    DenyCode.SYSTEM_PASSWORD: Remedy(
        "The system user sent a wrong password or no password.",
        "Compare it with `plugin.choria.network.system.password`; `plugin.broker_auth.system.previous_password` "
        "accepts the old one while it is being changed.",
    ),
    DenyCode.SYSTEM_TOKEN_MISSING: Remedy(
        "The system user connected with neither a verified certificate nor a token that replaces it.",
        "Connect with a client certificate of the fleet's CA, or send a token with `system_user` or `org_admin`.",
    ),
    DenyCode.SYSTEM_TOKEN_KIND: Remedy(
        "The system user sent a token that is not a client token.", "Send a client token."
    ),
    DenyCode.SYSTEM_CLAIM: Remedy(
        "The system user's token has neither of the permissions `system_user` and `org_admin`.",
        "Issue it again with one of them, or connect with a client certificate.",
    ),
    DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS: Remedy(
        "A provisioning token was sent with a verified certificate, but such a node needs no provisioning.",
        "Remove the node's provisioning token, or let it connect to the edge without the certificate.",
    ),
    DenyCode.NODE_NAME: Remedy(
        "An unprovisioned node sent no connection name, or a name that cannot be part of a subject.",
        "Let it connect with its host name as its name: at most 253 characters, no `*`, `>` or white space.",
    ),
    DenyCode.NODE_NAME_NOT_ALLOWED: Remedy(
        "The provisioning token is for nodes with other names. A token that was copied to another device is denied so.",
        "Compare the name in the record with those that `broker-auth token inspect` shows. If the device is yours, "
        "issue a token with `--for-name` for it; the connection's name must be the device's name. In protocol 1 only a "
        "Choria Server that runs as root connects under its name.",
    ),
    DenyCode.ADDRESS_NOT_ALLOWED: Remedy(
        "The provisioning token is for nodes from other networks than the address in the record, which is what "
        "nats-server sees: behind address translation or a proxy it is not the device's own.",
        "If the device is yours, issue a token with `--for-network` for the network from which it connects.",
    ),
    DenyCode.PROVISIONING_FULL: Remedy(
        "The provisioning account has as many connections as `plugin.broker_auth.provisioning.limits.max_connections` "
        "allows; the remaining places are reserved for provisioners. The node is admitted once others disconnect.",
        "List the connections with `broker-auth report conns`. If many unknown nodes use one provisioning token, "
        "revoke it (`broker-auth revoke`). If the nodes are yours, raise the limit, render the configuration again and "
        "restart nats-server.",
    ),
    DenyCode.TOKEN_USED_UP: Remedy(
        "As many nodes as the provisioning token is for have waited by it, under other names than this one. A node "
        "that was counted may come back under its name.",
        "List the names that were admitted by it (`broker-auth why` with its token id). If all are yours, issue "
        "another token with `--max-nodes` for the others. If not, somebody else has the token: revoke it "
        "(`broker-auth revoke`).",
    ),
    DenyCode.NODES_NOT_COUNTED: Remedy(
        "The provisioning token is for a number of nodes, and the service could not find out in time how many have "
        "waited by it: the bucket is missing or not reachable, or this host counts nothing because it does not serve "
        "the fleet's zone. Other tokens are not affected.",
        "Look for `node_counts` in `/healthz` and for its message in the log. Set "
        "`plugin.broker_auth.revocations_bucket` if it is not set, create the bucket (`broker-auth streams apply`), "
        "and let the node connect again.",
    ),
    DenyCode.SERVERS_DENIED: Remedy(
        "`plugin.choria.network.deny_server_connections` denies servers here.",
        "Let the server connect to another broker, or remove the setting.",
    ),
    DenyCode.CLIENT_HOST: Remedy(
        "`plugin.choria.network.client_hosts` does not list the address, and "
        "`plugin.choria.network.deny_server_connections` denies the server permissions that it would otherwise get.",
        "List the address or its network in `client_hosts` if a client runs there; a server needs another broker.",
    ),
    DenyCode.PUB_SUB_DISABLED: Remedy(
        "With organization issuers a certificate alone is sufficient only if `plugin.security.choria.ca` is set.",
        "Send a token, or set the key to let certificates of that CA publish and subscribe.",
    ),
    DenyCode.NO_CREDENTIAL: Remedy(
        "The client sent neither a token nor a verified certificate nor a known user name.",
        "A new node needs its `provisioning.jwt`; a fleet member connects to the fleet's listener with its "
        "certificate. If a presented certificate was rejected, the reason says what is wrong with it: renew it, or "
        "add its CA to `plugin.broker_auth.client_ca` if that CA is yours.",
    ),
    DenyCode.INTERNAL_ERROR: Remedy(
        "The decision failed because of a bug in broker-auth.", "Find the traceback in its log, and report it."
    ),
}

TOKENS: Final[dict[TokenFault, Remedy]] = {
    TokenFault.TOO_LARGE: Remedy("The token is larger than 16 KiB.", "Put fewer claims into it."),
    TokenFault.NOT_COMPACT: Remedy("The token does not consist of three parts joined by dots.", _INTACT),
    TokenFault.ENCODING: Remedy("A part of the token is not valid base64url.", _INTACT),
    TokenFault.HEADER: Remedy("The token's header cannot be used.", _INTACT),
    TokenFault.CRITICAL_HEADER: Remedy(
        "The token requires extensions (`crit`), which are not supported.", "Issue it without `crit`."
    ),
    TokenFault.NOT_JSON: Remedy("Header or claims are not a JSON object.", _INTACT),
    TokenFault.TOO_DEEP: Remedy("The claims are nested too deeply.", "Issue it with flatter claims."),
    TokenFault.DUPLICATE_CLAIM: Remedy(
        "The token contains a claim twice.", "Issue it again; Choria's issuers never do this."
    ),
    TokenFault.CLAIM_TYPE: Remedy("A claim has the wrong type, such as a time as text.", "Issue it again."),
    TokenFault.CLAIM_MISSING: Remedy(
        "A claim that this kind of token needs is missing.", "Issue it again with the claim."
    ),
    TokenFault.BOUNDS: Remedy(
        "The extension `broker-auth` of a provisioning token, which says for which nodes it is, is malformed, or holds "
        "a bound that this version does not know and therefore must not ignore.",
        "Issue the token with `broker-auth token provisioning`. If a newer version issued it, upgrade the service.",
    ),
    TokenFault.CLAIM_SUBJECT: Remedy(
        "A claim (identity, collective, organization, a subject) cannot be part of a subject.",
        "Issue it again without wildcards, white space or empty parts in that claim.",
    ),
    TokenFault.PURPOSE: Remedy(
        "This kind of token cannot be used to log in.", "Send a client, server or provisioning token."
    ),
    TokenFault.ALGORITHM: Remedy(
        "The token's algorithm does not match the key that has to verify it.",
        "RSA keys sign RS256 to RS512, Ed25519 keys EdDSA, EC keys ES256 or ES384: check whether the configured signer "
        "is the actual signer.",
    ),
    TokenFault.NO_SIGNER: Remedy(
        "No key is configured for tokens of this kind.",
        "Set `signer_cert`, `client_signer_cert` or `server_signer_cert`, or organization issuers.",
    ),
    TokenFault.ISSUER_MISSING: Remedy("The token names no organization (`ou`).", "Issue it with `--org`."),
    TokenFault.ISSUER_UNKNOWN: Remedy(
        "The token's organization (`ou`) is not one of `plugin.security.issuer.names`.",
        "Add the issuer, or issue the token for a configured organization.",
    ),
    TokenFault.SIGNATURE: Remedy(
        "The token was signed by a key that is not configured, or was modified.",
        "`broker-auth token check` names the signers that are tried. After a rotation, list both signers.",
    ),
    TokenFault.EXPIRED: Remedy("The token has expired.", _RENEW),
    TokenFault.NO_EXPIRY: Remedy(
        "The token never expires, which is not accepted.",
        "Issue a token with an expiry. For provisioning tokens from before 2022, "
        "`plugin.broker_auth.provisioning.allow_non_expiring_tokens` makes an exception.",
    ),
    TokenFault.NOT_YET_VALID: Remedy("The token is not valid yet (`nbf`).", _CLOCKS),
    TokenFault.ISSUED_IN_FUTURE: Remedy("The token was issued in the future (`iat`).", _CLOCKS),
    TokenFault.ISSUER_EXPIRED: Remedy(
        "The token is valid, but its issuer has expired (`issexp`).",
        "Issue a new token to the issuer, and have it issue this one again.",
    ),
    TokenFault.PUBLIC_KEY: Remedy(
        "The token's `public_key` is not an Ed25519 key in hex.", "Issue it again with the correct key."
    ),
    TokenFault.CHAIN_ISSUER: Remedy(
        "The token has a chain of trust, but its `iss` does not name a chain issuer.", _CHAIN
    ),
    TokenFault.CHAIN_ISSUER_KEY: Remedy(
        "The token names another organization key than configured for its `ou`.",
        "Correct `plugin.security.issuer.<name>.public`, or issue the token with that organization's key.",
    ),
    TokenFault.CHAIN_ISSUER_ID: Remedy(
        "The issuer named in the token's `iss` has a token id that is not a KSUID, so its age is unknown.",
        "Issue the chain issuer's token again with `broker-auth token client … --issuer` or `choria jwt client … "
        "--issuer`, which generate such ids, and have it issue this token again.",
    ),
    TokenFault.CHAIN_ISSUER_TOO_OLD: Remedy(
        "The token's chain issuer is older than `plugin.broker_auth.chain_issuer_max_age`, counted from its token id. "
        "All tokens that it issued are denied.",
        "Renew the chain issuer (see the runbook, “A chain issuer”), and have it issue new tokens.",
    ),
    TokenFault.CHAIN_ISSUER_IN_FUTURE: Remedy(
        "The id of the token's chain issuer has a time in the future.",
        _CLOCKS,
    ),
    TokenFault.CHAIN_CLAIM_MISSING: Remedy("A claim that tokens of a chain of trust need is missing.", _CHAIN),
    TokenFault.CHAIN_ID: Remedy("The token's `jti` is not a KSUID, which chains of trust need.", _CHAIN),
    TokenFault.CHAIN_ID_TIME: Remedy("The time in the token's `jti` differs from its `iat`.", _CHAIN),
    TokenFault.CHAIN_SIGNATURE_FORMAT: Remedy("The chain's signature (`tcs`) has an invalid format.", _CHAIN),
    TokenFault.CHAIN_ORG_SIGNATURE: Remedy("The chain issuer is not signed by the organization's key.", _CHAIN),
    TokenFault.CHAIN_CREATOR_SIGNATURE: Remedy("This token's id is not signed by the chain issuer.", _CHAIN),
    TokenFault.NONCE_MISSING: Remedy(
        "nats-server did not send a nonce to be signed.",
        "Its configuration needs an nkey user, like the rendered one has: render it again.",
    ),
    TokenFault.NONCE_UNSIGNED: Remedy(
        "The client sent a token but did not sign the server's nonce, so it may not have the token's key.",
        "Give the client the seed of the token's `public_key` in addition to the token.",
    ),
    TokenFault.NONCE_SIGNATURE_FORMAT: Remedy("The signature of the nonce is not 64 bytes in base64url.", _SIGNATURE),
    TokenFault.NONCE_SIGNATURE: Remedy("The nonce was signed with another key than the token's.", _SIGNATURE),
}

UNANSWERED: Final[dict[WireFault, Remedy]] = {
    WireFault.NO_REPLY_SUBJECT: Remedy("A message has no reply subject, or one of more than 1024 characters.", _SERVER),
    WireFault.TOO_LARGE: Remedy("A request is larger than 512 KiB.", _SERVER),
    WireFault.NOT_SEALED: Remedy("A request is not encrypted, but an xkey is configured here.", _XKEY),
    WireFault.SEALED: Remedy(
        "A request is encrypted, but no xkey is configured here.",
        "Set `plugin.broker_auth.xkey_seed_file` to the seed of nats-server's `xkey`.",
    ),
    WireFault.SEAL: Remedy("A request is encrypted for another key than this service's, or was modified.", _XKEY),
    WireFault.NOT_A_JWT: Remedy("A request is not a JWT.", _SERVER),
    WireFault.HEADER: Remedy("A request's header is not that of nats-server.", _SERVER),
    WireFault.CLAIMS: Remedy("A request's claims cannot be parsed.", _SERVER),
    WireFault.LATE: Remedy(
        "Requests were received too late to be answered: there are too many, or clocks differ.",
        "Check `broker_auth_in_flight` and the load of the machine, add workers or hosts, and compare the clocks of "
        "broker and service. Late requests are dropped without further processing.",
    ),
    WireFault.SHED: Remedy(
        "More requests arrived than can be answered in time; those of unprovisioned nodes are dropped first.",
        "Add workers or hosts; look for a flood at the edge, by host, in the audit records of denials.",
    ),
    WireFault.ISSUER: Remedy("A request names another server than its signer.", _SERVER),
    WireFault.SIGNATURE: Remedy("A request is not signed by the server it names.", _SERVER),
    WireFault.AUDIENCE: Remedy("A request has another audience.", _SERVER),
    WireFault.USER_NKEY: Remedy("A request does not contain a user nkey.", _SERVER),
    WireFault.TYPE: Remedy("A message is not an authorization request.", _SERVER),
    WireFault.VERSION: Remedy("A request has an unsupported version.", _SERVER),
    WireFault.XKEY: Remedy("A request names another encryption key than its header.", _SERVER),
}

REMEDIES: Final[dict[str, Remedy]] = {
    code.value: remedy for table in (DENIALS, TOKENS) for code, remedy in table.items()
}
"""Remedies by the code in audit records."""


def reference() -> str:
    """Return the content of ``docs/denials.md``."""
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
    logged = ""
    if not isinstance(code, WireFault):
        phrase = PHRASES.get(code, "token not accepted") if isinstance(code, DenyCode | TokenFault) else ""
        logged = f" nats-server logs: `{phrase}`."
    return f"### `{code.value}`\n\n{remedy.cause}{logged}\n\n{remedy.remedy}\n"


_INTRODUCTION: Final = """\
# Denials

<!-- Generated by `python -m broker_auth.operate.remedies > docs/denials.md`. -->

Every code in audit records, with its cause and remedy. The client itself only receives `Authorization Violation`;
nats-server's log contains one of a dozen phrases; the audit record contains the code and the detail.
`broker-auth why NAME` finds the records of a name, host, connection id or token id and prints cause and remedy.
"""

_UNANSWERED: Final = """\
A message that is not a valid request of a nats-server gets no reply, and its connection, if any, is closed by
nats-server's timeout. Such messages have no audit record; they are counted in `broker_auth_unanswered_total` by
fault, and the first of each fault are logged.
"""

if __name__ == "__main__":
    print(reference(), end="")
