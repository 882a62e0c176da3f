"""The rules of docs/policy.md#the-rules-in-order, with the same numbers. The first rule that claims it decides.

A rule returns None if it does not claim the connection; if it does, it admits or refuses. :mod:`.order` puts the
rules in their order.
"""

from __future__ import annotations

from typing import Final, NoReturn

from broker_auth.policy import permissions
from broker_auth.policy.case import Case
from broker_auth.policy.decision import Admit, DenyCode, Rule
from broker_auth.policy.subjects import is_node_name
from broker_auth.tokens.claims import ClientClaims, Purpose, ServerClaims
from broker_auth.tokens.faults import TokenRejected
from broker_auth.tokens.verify import Rejected, Verified

PROVISIONER: Final = "provisioner"
SERVED_KIND: Final = "Client"
SERVED_TYPES: Final = frozenset({"nats", "websocket"})


def rule_0_connection(case: Case) -> None:
    """Refuse connections that are not served, and identify the peer of a verified certificate."""
    _require_served_connection(case)
    case.identify_peer()


def rule_0_edge(case: Case) -> None:
    """Refuse connections that an edge does not serve; its listener does not request certificates."""
    _require_served_connection(case)
    tls = case.request.client_tls
    if tls is not None and tls.verified_chains:
        case.refuse(
            DenyCode.EDGE_VERIFIED_TLS, "the edge reports a verified certificate, but does not request certificates"
        )


def rule_0_gate(case: Case) -> None:
    """Refuse connections that a gate does not serve; its listener asks for no certificate, so no chain is read."""
    _require_served_connection(case)
    tls = case.request.client_tls
    if tls is not None and tls.verified_chains:
        case.refuse(
            DenyCode.GATE_VERIFIED_TLS, "the gate reports a verified certificate, but does not request certificates"
        )


def _require_served_connection(case: Case) -> None:
    """Require a client, by NATS or websocket, over TLS, without two different tokens."""
    info, options = case.request.client_info, case.request.connect_opts
    if info.kind != SERVED_KIND:
        case.refuse(DenyCode.KIND, f"{info.kind[:32] or 'unnamed'} connections are not served, only clients")
    if info.type not in SERVED_TYPES:
        case.refuse(DenyCode.TYPE, f"{info.type[:32] or 'unnamed'} clients are not served, only nats and websocket")
    if case.request.client_tls is None:
        case.refuse(DenyCode.NO_TLS, "the connection does not use TLS")
    if options.jwt and options.jwt != options.auth_token:
        case.refuse(DenyCode.JWT_DIFFERS, "the connection carries a jwt that is not its token")


def rule_1_provisioner(case: Case) -> Admit | None:
    """Admit the user ``provisioner`` with the password and a verified peer or, if allowed, a token instead of it."""
    if case.request.connect_opts.user != PROVISIONER:
        return None
    case.rule = Rule.PROVISIONER
    policy = case.policy.provisioning
    if not policy.enabled:
        case.refuse(DenyCode.PROVISIONING_DISABLED, "provisioning is not enabled")
    case.require_password(policy.passwords, DenyCode.PROVISIONER_PASSWORD)
    if case.peer is None and (policy.require_mtls or not case.request.connect_opts.auth_token):
        case.refuse_for_want_of_tls(DenyCode.PROVISIONER_NOT_VERIFIED, "the provisioner needs verified TLS")
    if case.peer is not None and not policy.identities.allow(case.peer):
        case.refuse(
            DenyCode.PROVISIONER_IDENTITY, f"certificate of {case.peer.display_name!r} may not be the provisioner"
        )
    token = _provisioner_token(case)
    name = token.claims.callerid if token and isinstance(token.claims, ClientClaims) else ""
    if not name and case.peer:
        name = case.peer.display_name
    return case.admit(
        case.policy.accounts.provisioning, name, permissions.UNRESTRICTED, "provisioner with password", token
    )


def _provisioner_token(case: Case) -> Verified | None:
    """Require a client token with ``provisioner`` in issuer mode; a presented token must be valid in any case."""
    needed = case.policy.issuer_mode and not case.policy.provisioning.provisioner_without_token
    if not case.request.connect_opts.auth_token:
        if needed:
            case.refuse(DenyCode.PROVISIONER_TOKEN_MISSING, "the provisioner needs a client token")
        return None
    token, claims = _client_token(case, DenyCode.PROVISIONER_TOKEN_KIND)
    # Without a verified peer, the token is the only credential besides the password, so it is always required.
    if (needed or case.peer is None) and not claims.permissions.provisioner:
        case.refuse(DenyCode.PROVISIONER_CLAIM, "the client token does not carry the permission 'provisioner'")
    return token


def rule_1_edge(case: Case) -> Admit | None:
    """Admit a provisioner at an edge only by a token: the password for logins with a certificate is not loaded here."""
    if case.request.connect_opts.user == PROVISIONER and case.policy.provisioning.require_mtls:
        case.rule = Rule.PROVISIONER
        case.refuse(DenyCode.EDGE_PROVISIONER, "provisioners connect to the fleet, not to an edge")
    return rule_1_provisioner(case)


def rule_2_edge(case: Case) -> None:
    """Refuse the system user: operators connect to the fleet, or to an edge as its break-glass user."""
    system = case.policy.system
    if system is not None and case.request.connect_opts.user == system.user:
        case.rule = Rule.SYSTEM
        case.refuse(DenyCode.EDGE_SYSTEM_USER, "the system user connects to the fleet, not to an edge")


def rule_1_gate(case: Case) -> None:
    """Refuse the provisioner, with or without a token: a gate does not know the provisioning account."""
    if case.request.connect_opts.user == PROVISIONER:
        case.rule = Rule.PROVISIONER
        case.refuse(DenyCode.GATE_PROVISIONER, "provisioners connect to the fleet, not to a gate")


def rule_2_gate(case: Case) -> None:
    """Refuse the system user: operators connect to the fleet, or to a gate as its break-glass user."""
    system = case.policy.system
    if system is not None and case.request.connect_opts.user == system.user:
        case.rule = Rule.SYSTEM
        case.refuse(DenyCode.GATE_SYSTEM_USER, "the system user connects to the fleet, not to a gate")


def rule_2_system(case: Case) -> Admit | None:
    """Admit the system user with the password and a verified peer, or a client token with the permission."""
    system = case.policy.system
    if system is None or case.request.connect_opts.user != system.user:
        return None
    case.rule = Rule.SYSTEM
    case.require_password(system.passwords, DenyCode.SYSTEM_PASSWORD)
    account = case.policy.accounts.system
    if case.peer is not None:
        return case.admit(
            account, case.peer.display_name, permissions.SYSTEM, "system user with password and verified TLS"
        )
    if not case.request.connect_opts.auth_token:
        case.refuse_for_want_of_tls(
            DenyCode.SYSTEM_TOKEN_MISSING, "the system user needs verified TLS or a client token"
        )
    token, claims = _client_token(case, DenyCode.SYSTEM_TOKEN_KIND)
    if not (claims.permissions.system_user or claims.permissions.org_admin):
        case.refuse(DenyCode.SYSTEM_CLAIM, "the client token carries neither 'system_user' nor 'org_admin'")
    return case.admit(account, claims.callerid, permissions.SYSTEM, "system user with password and client token", token)


def rule_3_token(case: Case) -> Admit | None:
    """Decide a connection with a token by the rule for the token's unverified purpose."""
    if not case.request.connect_opts.auth_token:
        return None
    case.rule = Rule.TOKEN
    token = case.examine_token()
    if token.purpose is None:
        case.refuse(token.fault, token.detail)
    return _BY_PURPOSE[token.purpose](case, token)


def rule_3_edge(case: Case) -> Admit | None:
    """Admit nodes by their provisioning token; clients and servers belong to the fleet."""
    if not case.request.connect_opts.auth_token:
        return None
    case.rule = Rule.TOKEN
    token = case.examine_token()
    if token.purpose is None:
        case.refuse(token.fault, token.detail)
    if token.purpose is not Purpose.PROVISIONING:
        case.rule = Rule.CLIENT if token.purpose is Purpose.CLIENT else Rule.SERVER
        case.refuse(DenyCode.EDGE_FLEET_TOKEN, f"a {case.rule} token is for the fleet, not for an edge")
    return _provisioning_node(case, token)


def rule_3_gate(case: Case) -> Admit | None:
    """Admit clients and servers by token and nonce, as in the fleet; nodes connect to an edge."""
    if not case.request.connect_opts.auth_token:
        return None
    case.rule = Rule.TOKEN
    token = case.examine_token()
    if token.purpose is None:
        case.refuse(token.fault, token.detail)
    if token.purpose is Purpose.PROVISIONING:
        case.rule = Rule.PROVISIONING
        case.refuse(DenyCode.GATE_PROVISIONING_TOKEN, "a provisioning token is for an edge, not for a gate")
    return _BY_PURPOSE[token.purpose](case, token)


def _client(case: Case, token: Verified | Rejected) -> Admit:
    case.rule = Rule.CLIENT
    verified = case.require_valid(token, nonce=True)
    assert isinstance(verified.claims, ClientClaims)
    granted = _granted(case, verified.claims)
    return case.admit(case.policy.accounts.fleet, verified.claims.callerid, granted, "client token", verified)


def _server(case: Case, token: Verified | Rejected) -> Admit:
    case.rule = Rule.SERVER
    if case.policy.deny_servers:
        case.refuse(DenyCode.SERVERS_DENIED, "server connections are denied by configuration")
    verified = case.require_valid(token, nonce=True)
    assert isinstance(verified.claims, ServerClaims)
    granted = _granted(case, verified.claims)
    return case.admit(case.policy.accounts.fleet, verified.claims.identity, granted, "server token", verified)


def _provisioning_node(case: Case, token: Verified | Rejected) -> Admit:
    case.rule = Rule.PROVISIONING
    if not case.policy.provisioning.enabled:
        case.refuse(DenyCode.PROVISIONING_DISABLED, "provisioning is not enabled")
    if case.peer is not None:
        case.refuse(
            DenyCode.PROVISIONING_TOKEN_ON_VERIFIED_TLS,
            f"{case.peer.display_name!r} has a certificate and needs no provisioning token",
        )
    verified = case.require_valid(token, nonce=False)
    name = case.request.connect_opts.name
    bounds = verified.bounds
    is_counted = bounds is not None and bounds.max_nodes is not None  # by its name
    if (case.policy.provisioning.isolate_nodes or is_counted) and not is_node_name(name):
        case.refuse(DenyCode.NODE_NAME, "the connection's name cannot be a node's subject")
    if case.policy.provisioning.isolate_nodes:
        granted = permissions.isolated_node(name)
    else:
        granted = permissions.SHARED_NODE
        name = name if is_node_name(name) else "unnamed-node"
    if bounds is not None:
        case.require_within(bounds)
    case.require_place()
    return case.admit(case.policy.accounts.provisioning, name, granted, "provisioning token", verified)


_BY_PURPOSE: Final = {
    Purpose.CLIENT: _client,
    Purpose.SERVER: _server,
    Purpose.PROVISIONING: _provisioning_node,
}


def rule_4_verified_tls(case: Case) -> Admit | None:
    """Admit a verified peer without a token: to the fleet in x509 mode, with pub-sub permissions in issuer mode."""
    if case.peer is None:
        return None
    case.rule = Rule.VERIFIED_TLS
    policy = case.policy
    if policy.issuer_mode:
        if not policy.pub_sub:
            case.refuse(
                DenyCode.PUB_SUB_DISABLED, "verified TLS alone is not enough: plugin.security.choria.ca is not set"
            )
        granted, reason = permissions.PUB_SUB, "verified TLS, publish and subscribe"
    elif policy.client_hosts and case.request.client_info.host not in policy.client_hosts:
        if policy.deny_servers:
            case.refuse(DenyCode.CLIENT_HOST, "the address is not in client_hosts, and server connections are denied")
        granted, reason = permissions.DEFAULT_SERVER, "verified TLS, host not in client_hosts"
    else:
        granted, reason = permissions.UNRESTRICTED, "verified TLS"
    return case.admit(policy.accounts.fleet, case.peer.display_name, granted, reason)


def rule_4_no_certificate(case: Case) -> None:
    """Pass: edges and gates do not verify TLS connections."""


def rule_5_everything_else(case: Case) -> NoReturn:
    """Refuse a connection that no rule has claimed."""
    case.rule = Rule.NONE
    case.refuse_for_want_of_tls(DenyCode.NO_CREDENTIAL, "neither verified TLS nor a token")


def _client_token(case: Case, wrong_kind: DenyCode) -> tuple[Verified, ClientClaims]:
    """Return a valid client token whose key signed the nonce, for the provisioner and the system user."""
    token = case.examine_token()
    if token.purpose not in (Purpose.CLIENT, None):
        case.refuse(wrong_kind, f"a client token is needed, not a {token.purpose} one")
    verified = case.require_valid(token, nonce=True)
    assert isinstance(verified.claims, ClientClaims)
    return verified, verified.claims


def _granted(case: Case, claims: ClientClaims | ServerClaims) -> permissions.Permissions:
    try:
        return permissions.client(claims) if isinstance(claims, ClientClaims) else permissions.server(claims)
    except TokenRejected as rejected:
        case.refuse(rejected.fault, rejected.detail)
