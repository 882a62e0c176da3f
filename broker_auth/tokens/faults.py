"""Reasons for rejecting a token: one code for each rule of docs/policy.md#tokens."""

from __future__ import annotations

from enum import StrEnum

from broker_auth.errors import BrokerAuthError


class TokenFault(StrEnum):
    """The closed set of reasons. Tests, audit records and documents use these codes, never the messages."""

    TOO_LARGE = "token_too_large"
    NOT_COMPACT = "token_not_compact"
    ENCODING = "token_encoding"
    HEADER = "token_header"
    CRITICAL_HEADER = "token_critical_header"
    NOT_JSON = "token_not_json"
    TOO_DEEP = "token_too_deep"
    DUPLICATE_CLAIM = "token_duplicate_claim"
    CLAIM_TYPE = "token_claim_type"
    CLAIM_MISSING = "token_claim_missing"
    BOUNDS = "token_bounds"
    CLAIM_SUBJECT = "token_claim_subject"
    PURPOSE = "token_purpose"
    ALGORITHM = "token_algorithm"
    NO_SIGNER = "token_no_signer"
    ISSUER_MISSING = "token_issuer_missing"
    ISSUER_UNKNOWN = "token_issuer_unknown"
    SIGNATURE = "token_signature"
    EXPIRED = "token_expired"
    NO_EXPIRY = "token_no_expiry"
    NOT_YET_VALID = "token_not_yet_valid"
    ISSUED_IN_FUTURE = "token_issued_in_future"
    ISSUER_EXPIRED = "token_issuer_expired"
    PUBLIC_KEY = "token_public_key"
    CHAIN_ISSUER = "chain_issuer"
    CHAIN_ISSUER_KEY = "chain_issuer_key"
    CHAIN_ISSUER_ID = "chain_issuer_id"
    CHAIN_ISSUER_TOO_OLD = "chain_issuer_too_old"
    CHAIN_ISSUER_IN_FUTURE = "chain_issuer_in_future"
    CHAIN_CLAIM_MISSING = "chain_claim_missing"
    CHAIN_ID = "chain_id"
    CHAIN_ID_TIME = "chain_id_time"
    CHAIN_SIGNATURE_FORMAT = "chain_signature_format"
    CHAIN_ORG_SIGNATURE = "chain_org_signature"
    CHAIN_CREATOR_SIGNATURE = "chain_creator_signature"
    NONCE_MISSING = "nonce_missing"
    NONCE_UNSIGNED = "nonce_unsigned"
    NONCE_SIGNATURE_FORMAT = "nonce_signature_format"
    NONCE_SIGNATURE = "nonce_signature"


class TokenRejected(BrokerAuthError):
    """A token is not accepted. ``detail`` is one line for the audit log and is never sent to clients."""

    def __init__(self, fault: TokenFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail
