"""Every check of docs/interface.md#the-wire, one row each; sealed and unsealed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import nacl.bindings
import pytest
from nacl.signing import SigningKey

from broker_auth.callout import request as wire
from broker_auth.callout.request import MAX_REQUEST_BYTES, RequestReader, WireError, WireFault
from broker_auth.natsio.nkey import NkeyKind, encode_public
from broker_auth.natsio.xkey import Sealer
from broker_auth.policy.request import AuthorizationRequest
from tests.builders.clock import NOW
from tests.builders.requests import HEADER, SERVER, Server, client, fleet, node, provisioner, request
from tests.builders.tokens import b64

W = WireFault
SERVICE_SEED = bytes(range(32))
SERVICE = nacl.bindings.crypto_scalarmult_base(SERVICE_SEED)
OTHER = Server("other")
ACCOUNT = encode_public(bytes(32), NkeyKind.ACCOUNT)
USER = encode_public(bytes(32), NkeyKind.USER)


def reader(*, sealed: bool = False) -> RequestReader:
    return RequestReader(Sealer(SERVICE_SEED) if sealed else None)


def read(reads: RequestReader, data: bytes, header: str | None = None, now: float = NOW) -> AuthorizationRequest:
    """Return the verified request of a message."""
    return reads.verify(reads.open(data, header), now)


def fault(data: bytes, header: str | None = None, *, sealed: bool = False, now: float = NOW) -> WireFault:
    with pytest.raises(WireError) as raised:
        read(reader(sealed=sealed), data, header, now)
    assert str(raised.value).startswith(f"{raised.value.fault}: ")
    return raised.value.fault


def changed(asked: AuthorizationRequest | None = None, nats: dict[str, Any] | None = None, **changes: Any) -> bytes:
    """Return a valid request with changed claims (``None`` removes one), then signed."""
    claims = SERVER.claims(asked or node())
    claims["nats"] |= nats or {}
    claims |= changes
    claims["nats"] = {name: value for name, value in claims["nats"].items() if value is not None}
    return SERVER.sign({name: value for name, value in claims.items() if value is not None})


def sized(size: int) -> bytes:
    """Return a valid request of exactly this many bytes."""
    for spaces in range(3):
        header = json.dumps(HEADER).encode() + b" " * spaces
        claims = json.dumps(SERVER.claims(node())).encode()
        claims += b" " * ((size - len(SERVER.sign(claims, header))) * 3 // 4 - 2)
        for _ in range(4):
            claims += b" "
            if len(data := SERVER.sign(claims, header)) == size:
                return data
    raise AssertionError("no request of this size")


REQUESTS = {"fleet": fleet(), "node": node(), "client": client(), "provisioner": provisioner(), "bare": request()}
REQUESTS["plain TCP"] = request(tls=None)


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_valid_request_is_decoded_unchanged(asked: AuthorizationRequest) -> None:
    assert read(reader(), SERVER.wire(asked), None, NOW) == SERVER.asks(asked)
    data, header = SERVER.sealed(asked, SERVICE)
    assert read(reader(sealed=True), data, header, NOW) == SERVER.asks(asked, sealed=True)


def test_request_of_a_real_nats_server_is_decoded() -> None:
    """Unused fields are present, and empty ones are omitted."""
    claims = SERVER.claims(node())
    del claims["nats"]["connect_opts"]["pass"], claims["nats"]["connect_opts"]["user"]
    claims["nats"]["connect_opts"]["nkey"] = ""
    claims["nats"]["client_info"] |= {"user": "[REDACTED]", "name_tag": "x", "mqtt_id": ""}
    claims["nats"]["client_tls"] |= {"certs": ["PEM"], "verified_chains": None}
    claims["nats"]["server_id"]["tags"] = ["a", "b"]
    claims["nats"] |= {"request_nonce": "x"}
    asked = read(reader(), SERVER.sign(claims), None, NOW)
    assert asked.connect_opts == msgspec.structs.replace(node().connect_opts, auth_token=asked.connect_opts.auth_token)
    assert asked.server_id.tags == ("a", "b")
    assert asked.client_tls is not None
    assert asked.client_tls.verified_chains is None


HEADERS = {
    "other order": b'{"alg":"ed25519-nkey","typ":"JWT"}',
    "lower case": b'{"typ":"jwt","alg":"ed25519-nkey"}',
    "spaces": b'{ "typ": "JWT", "alg": "ed25519-nkey" }',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_equivalent_headers_are_accepted(header: bytes) -> None:
    assert read(reader(), SERVER.sign(SERVER.claims(node()), header), None, NOW).type == "authorization_request"


def test_largest_request_is_accepted() -> None:
    assert MAX_REQUEST_BYTES == 512 * 1024
    read(reader(), sized(MAX_REQUEST_BYTES), None, NOW)
    assert fault(sized(MAX_REQUEST_BYTES + 1)) is W.TOO_LARGE


VALID = SERVER.wire(node())
HEAD, CLAIMS, SIGNATURE = VALID.split(b".")
FOREIGN_SIGNED = OTHER.sign(SERVER.claims(node()))
NOT_A_SERVER = SERVER.claims(node()) | {"iss": USER}
NOT_A_SERVER["nats"] = NOT_A_SERVER["nats"] | {"server_id": {"id": USER}}
HUGE = b'{"iss":"x","aud":"y","nats":{},"exp":' + b"9" * 4000 + b"}"

REJECTED: dict[str, tuple[bytes, WireFault]] = {
    "empty": (b"", W.NOT_A_JWT),
    "garbage": (b"\xff\x00garbage", W.NOT_A_JWT),
    "one part": (HEAD, W.NOT_A_JWT),
    "two parts": (HEAD + b"." + CLAIMS, W.NOT_A_JWT),
    "four parts": (VALID + b".x", W.NOT_A_JWT),
    "no signature": (HEAD + b"." + CLAIMS + b".", W.NOT_A_JWT),
    "no claims": (HEAD + b".." + SIGNATURE, W.NOT_A_JWT),
    "no header": (b"." + CLAIMS + b"." + SIGNATURE, W.NOT_A_JWT),
    "signature padded": (VALID + b"==", W.NOT_A_JWT),
    "signature in the other alphabet": (HEAD + b"." + CLAIMS + b".+/" + SIGNATURE[2:], W.NOT_A_JWT),
    "claims in the other alphabet": (HEAD + b"." + CLAIMS[:4] + b"+/++" + CLAIMS[4:] + b"." + SIGNATURE, W.CLAIMS),
    "signature not base64": (HEAD + b"." + CLAIMS + b".!!!!", W.NOT_A_JWT),
    "header not base64": (b"!!!!." + CLAIMS + b"." + SIGNATURE, W.HEADER),
    "header not JSON": (SERVER.sign(SERVER.claims(node()), b"x"), W.HEADER),
    "header too long": (SERVER.sign(SERVER.claims(node()), json.dumps(HEADER).encode() + b" " * 300), W.HEADER),
    "header nested": (SERVER.sign({}, b"[" * 190), W.HEADER),
    "header typ": (SERVER.sign(SERVER.claims(node()), {"typ": "JWS", "alg": "ed25519-nkey"}), W.HEADER),
    "header typ missing": (SERVER.sign(SERVER.claims(node()), {"alg": "ed25519-nkey"}), W.HEADER),
    "header alg none": (SERVER.sign(SERVER.claims(node()), {"typ": "JWT", "alg": "none"}), W.HEADER),
    "header alg ed25519": (SERVER.sign(SERVER.claims(node()), {"typ": "JWT", "alg": "ed25519"}), W.HEADER),
    "header alg HS256": (SERVER.sign(SERVER.claims(node()), {"typ": "JWT", "alg": "HS256"}), W.HEADER),
    "header alg a number": (SERVER.sign(SERVER.claims(node()), {"typ": "JWT", "alg": 1}), W.HEADER),
    "claims not base64": (HEAD + b".!!!!." + SIGNATURE, W.CLAIMS),
    "claims not JSON": (SERVER.sign(b"{x}"), W.CLAIMS),
    "claims an array": (SERVER.sign([]), W.CLAIMS),
    "claims nested": (SERVER.sign(b'{"x":' + b"[" * 200_000), W.CLAIMS),
    "claims not UTF-8": (SERVER.sign(b'{"iss":"\xff"}'), W.CLAIMS),
    "claims with a lone surrogate": (
        SERVER.sign(json.dumps(SERVER.claims(node(name="@"))).replace('"@"', r'"\ud800"').encode()),
        W.CLAIMS,
    ),
    "claims without nats": (SERVER.sign({"iss": "x"}), W.CLAIMS),
    "exp absent": (changed(exp=None), W.CLAIMS),
    "exp text": (changed(exp=str(NOW + 2)), W.CLAIMS),
    "exp true": (changed(exp=True), W.CLAIMS),
    "exp a fraction": (changed(exp=NOW + 2.5), W.CLAIMS),
    "exp huge": (SERVER.sign(HUGE), W.CLAIMS),
    "iss absent": (changed(iss=None), W.CLAIMS),
    "aud absent": (changed(aud=None), W.CLAIMS),
    "aud a list": (changed(aud=["nats-authorization-request"]), W.CLAIMS),
    "server absent": (changed(nats={"server_id": None}), W.CLAIMS),
    "server without id": (changed(nats={"server_id": {"name": "x"}}), W.CLAIMS),
    "user nkey absent": (changed(nats={"user_nkey": None}), W.CLAIMS),
    "client info absent": (changed(nats={"client_info": None}), W.CLAIMS),
    "connect opts absent": (changed(nats={"connect_opts": None}), W.CLAIMS),
    "password a number": (changed(nats={"connect_opts": {"pass": 1}}), W.CLAIMS),
    "chains of numbers": (changed(nats={"client_tls": {"verified_chains": [[1]]}}), W.CLAIMS),
    "chains a text": (changed(nats={"client_tls": {"verified_chains": "x"}}), W.CLAIMS),
    "late": (changed(exp=NOW), W.LATE),
    "long late": (changed(exp=0), W.LATE),
    "late before all else": (OTHER.sign(SERVER.claims(node()) | {"exp": NOW}), W.LATE),
    "issuer another server": (changed(iss=OTHER.id), W.ISSUER),
    "server another than the issuer": (changed(nats={"server_id": {"id": OTHER.id}}), W.ISSUER),
    "issuer a user": (SERVER.sign(NOT_A_SERVER), W.ISSUER),
    "issuer an account": (changed(iss=ACCOUNT, nats={"server_id": {"id": ACCOUNT}}), W.ISSUER),
    "issuer empty": (changed(iss="", nats={"server_id": {"id": ""}}), W.ISSUER),
    "issuer in lower case": (changed(iss=SERVER.id.lower(), nats={"server_id": {"id": SERVER.id.lower()}}), W.ISSUER),
    "signed by another server": (FOREIGN_SIGNED, W.SIGNATURE),
    "signature of another request": (HEAD + b"." + CLAIMS + b"." + SERVER.wire(fleet()).split(b".")[2], W.SIGNATURE),
    "signature cut": (HEAD + b"." + CLAIMS + b"." + SIGNATURE[:-4], W.SIGNATURE),
    "signature of zeros": (HEAD + b"." + CLAIMS + b"." + b64(bytes(64)).encode(), W.SIGNATURE),
    "header changed": (b64(HEADERS["other order"]).encode() + b"." + CLAIMS + b"." + SIGNATURE, W.SIGNATURE),
    "audience": (changed(aud="nats-authorization-response"), W.AUDIENCE),
    "audience empty": (changed(aud=""), W.AUDIENCE),
    "type of a response": (changed(nats={"type": "authorization_response"}), W.TYPE),
    "type absent": (changed(nats={"type": None}), W.TYPE),
    "version 1": (changed(nats={"version": 1}), W.VERSION),
    "version 3": (changed(nats={"version": 3}), W.VERSION),
    "version absent": (changed(nats={"version": None}), W.VERSION),
    "user nkey of an account": (changed(nats={"user_nkey": ACCOUNT}), W.USER_NKEY),
    "user nkey of a server": (changed(nats={"user_nkey": SERVER.id}), W.USER_NKEY),
    "user nkey with a wrong checksum": (changed(nats={"user_nkey": USER[:-1] + "B"}), W.USER_NKEY),
    "user nkey empty": (changed(nats={"user_nkey": ""}), W.USER_NKEY),
}


@pytest.mark.parametrize(("data", "expected"), REJECTED.values(), ids=REJECTED)
def test_invalid_request_is_rejected(data: bytes, expected: WireFault) -> None:
    assert fault(data) is expected
    sealed = SERVER.seal(data, SERVICE)
    if len(sealed) <= MAX_REQUEST_BYTES:
        assert fault(sealed, SERVER.xkey, sealed=True) is expected


@pytest.mark.parametrize(("late", "now"), [(False, NOW + 1.999), (True, NOW + 2), (True, NOW + 2.001)])
def test_request_is_late_from_the_second_of_exp(late: bool, now: float) -> None:
    if late:
        assert fault(VALID, now=now) is W.LATE
    else:
        assert read(reader(), VALID, None, now)


# --- Sealing

CLEAR = SERVER.sign(SERVER.claims(node(), sealed=True))
SEALED, XKEY = SERVER.sealed(node(), SERVICE)
OTHER_XKEY = OTHER.sign(OTHER.claims(node(), sealed=True))

SEALS: dict[str, tuple[bytes, str | None, WireFault]] = {
    "not sealed": (VALID, None, W.NOT_SEALED),
    "sealed, header missing": (SEALED, None, W.NOT_SEALED),
    "not sealed, header present": (CLEAR, XKEY, W.SEAL),
    "another server's header": (SEALED, OTHER.xkey, W.SEAL),
    "header no key": (SEALED, "X", W.SEAL),
    "header empty": (SEALED, "", W.SEAL),
    "header not ASCII": (SEALED, "é" * 56, W.SEAL),
    "header a user's key": (SEALED, USER, W.SEAL),
    "header a key of no order": (SEALED, encode_public(bytes(32), NkeyKind.CURVE), W.SEAL),
    "sealed for another service": (SERVER.seal(CLEAR, bytes(SigningKey.generate().verify_key)), XKEY, W.SEAL),
    "version 2": (b"xkv2" + SEALED[4:], XKEY, W.SEAL),
    "cut": (SEALED[:-1], XKEY, W.SEAL),
    "cut to the nonce": (SEALED[:28], XKEY, W.SEAL),
    "cut to the version": (SEALED[:4], XKEY, W.SEAL),
    "empty": (b"", XKEY, W.SEAL),
    "a bit changed": (SEALED[:-1] + bytes((SEALED[-1] ^ 1,)), XKEY, W.SEAL),
    "nonce changed": (b"xkv1" + bytes(24) + SEALED[28:], XKEY, W.SEAL),
    "nothing in it": (SERVER.seal(b"", SERVICE), XKEY, W.NOT_A_JWT),
    "sealed by another than it names": (OTHER.seal(CLEAR, SERVICE), OTHER.xkey, W.XKEY),
    "names no xkey": (SERVER.seal(VALID, SERVICE), XKEY, W.XKEY),
    "too large": (b"xkv1" + bytes(MAX_REQUEST_BYTES), XKEY, W.TOO_LARGE),
}


@pytest.mark.parametrize(("data", "header", "expected"), SEALS.values(), ids=SEALS)
def test_unsealed_or_wrongly_sealed_request_is_rejected(data: bytes, header: str | None, expected: WireFault) -> None:
    assert fault(data, header, sealed=True) is expected


def test_sealed_request_is_rejected_without_xkey() -> None:
    assert fault(SEALED, XKEY) is W.SEALED
    assert fault(VALID, XKEY) is W.SEALED
    assert fault(VALID, "") is W.SEALED
    assert fault(SEALED) is W.NOT_A_JWT


def test_every_fault_is_tested() -> None:
    tested = {row[-1] for row in (*REJECTED.values(), *SEALS.values())} | {W.SEALED, W.TOO_LARGE}
    # faults of the service itself, which knows reply subjects and the backlog
    assert {fault.value for fault in set(WireFault) - tested} <= {"no_reply_subject", "shed"}


def test_errors_contain_nothing_of_the_request() -> None:
    secret = "hunter2-in-the-request"
    for data in (changed(provisioner(password=secret), aud=secret), changed(nats={"type": secret}), secret.encode()):
        with pytest.raises(WireError) as raised:
            read(reader(), data, None, NOW)
        assert secret not in str(raised.value)


def test_cached_server_keys_are_bounded_and_not_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_SERVERS", 4)
    reads = reader()
    for _ in range(10):
        server = Server()
        assert read(reads, server.wire(node()), None, NOW).server_id.id == server.id
        with pytest.raises(WireError, match="signature"):
            read(reads, SERVER.sign(server.claims(node())), None, NOW)
    assert len(reads._servers) == 4
