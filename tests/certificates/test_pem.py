"""Splitting PEM: formats found in practice, what Go reads of them, and hostile bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.certificates import pem
from broker_auth.deploy.pki import CertificateAuthority
from tests.builders import pemshapes
from tests.builders.pemshapes import BOTH_READ, GO_ONLY, NEITHER, PYTHON_ONLY, Shape

ONE, OTHER = CertificateAuthority.create("one").certificate_pem, CertificateAuthority.create("other").certificate_pem

ATOMS = st.sampled_from(
    [
        b"-----BEGIN A-----\n",
        b"-----BEGIN B-----\n",
        b"-----BEGIN A-----",
        b"-----END A-----\n",
        b"-----END B-----\n",
        b"-----END A-----",
        b"-----BEGIN ",
        b"-----END ",
        b"-----",
        b"QUJD\n",
        b"x: y\n",
        b"!!\n",
        b"\n",
        b"\r",
        b"\r\n",
        b" ",
        b"\xef\xbb\xbf",
        b"\x00",
        b"-----BEGIN A-----\nQUJD\n-----END A-----\n",
    ]
)


def seen(data: bytes) -> list[bytes]:
    return [block.body for block in pem.split(data) if not block.unseen]


def read(data: bytes) -> list[bytes]:
    return [block.body for block in pem.split(data) if not block.fault]


@pytest.mark.parametrize("shape", [*BOTH_READ.values(), *GO_ONLY.values()], ids=[*BOTH_READ, *GO_ONLY])
def test_block_that_go_reads_is_marked_visible(shape: Shape) -> None:
    assert pemshapes.decoded(ONE) in seen(shape(ONE, OTHER))


@pytest.mark.parametrize("name", ["byte-order mark"])
def test_block_that_go_skips_is_marked_unseen(name: str) -> None:
    assert seen(PYTHON_ONLY[name](ONE, OTHER)) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("joined", "(line 12) is joined to what follows"),
        ("indented", "indented"),
        ("text on the BEGIN line", "does not begin a line"),
        ("carriage returns alone", "carriage returns"),
    ],
)
def test_blocks_that_go_skips_are_read_with_a_reason(name: str, reason: str) -> None:
    data = NEITHER[name](ONE, OTHER)
    first = pem.split(data)[0]
    last = ONE.count(b"\n")
    assert (first.body, first.line, first.fault) == (pemshapes.decoded(ONE), 1, "")
    assert reason.replace("12", str(last)) in first.unseen
    assert pemshapes.decoded(ONE) not in seen(data)


def test_joined_blocks_name_their_lines() -> None:
    first, second = pem.split(ONE.rstrip() + OTHER)
    assert (second.line, second.unseen) == (ONE.count(b"\n"), pem.JOINED)
    assert first.line == 1
    shared = ONE.rstrip()[:-5] + OTHER  # both lines share five dashes
    assert read(shared) == [pemshapes.decoded(ONE), pemshapes.decoded(OTHER)]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (ONE[: len(ONE) // 2], "no END line"),
        (ONE.split(b"\n", 1)[1], "BEGIN line is missing"),
        (ONE.replace(b"END CERTIFICATE", b"END X"), "END line says X"),
        (ONE.replace(b"M", b"!", 1), "base64 is damaged"),
        (b"-----BEGIN A-----\n-----END A-----\n", "empty"),
    ],
    ids=["cut short", "without begin", "mislabelled", "damaged", "empty"],
)
def test_unreadable_block_has_a_fault_with_its_line(data: bytes, fault: str) -> None:
    (block,) = pem.split(b"text\n" + data)
    assert fault in block.fault
    assert block.line >= 2
    assert block.body == b""


@pytest.mark.parametrize(
    ("data", "says"),
    [(b" \n", "empty"), (ONE.decode().encode("utf-16"), "UTF-16"), (pemshapes.decoded(ONE), "DER"), (b"x", "no PEM")],
)
def test_files_without_pem_are_described(data: bytes, says: str) -> None:
    assert pem.split(data) == ()
    assert says in pem.what_else(data)


def test_private_key_is_not_shown() -> None:
    (block,) = pem.split(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert block.body == b"secret"
    assert "secret" not in repr(block)
    assert "c2VjcmV0" not in repr(block)


@given(st.lists(ATOMS | st.binary(max_size=6), max_size=25).map(b"".join))
def test_arbitrary_bytes_are_split(data: bytes) -> None:
    lines = data.count(b"\n") + data.count(b"\r") + 1
    blocks = pem.split(data)
    assert len(blocks) <= data.count(b"-----BEGIN ") + data.count(b"-----END ")
    assert all(1 <= block.line <= lines for block in blocks)
    assert all(block.body or block.fault for block in blocks)
    assert all(block.unseen for block in blocks if block.fault and block.fault != "it is empty")


HOSTILE = {
    "BEGIN": b"-----BEGIN A-----\n",
    "BEGIN on one line": b"-----BEGIN A-----",
    "half a BEGIN": b"-----BEGIN ",
    "END": b"-----END A-----\n",
    "dashes": b"-",
    "headers": b"-----BEGIN A-----\na: b\n",
    "headers behind END": b"-----BEGIN A-----\n\n-----END A-----\na: b\n",
    "mislabelled": b"-----BEGIN A-----\nQUJD\n-----END B-----\n",
    "blocks": b"-----BEGIN A-----\nQUJD\n-----END A-----\n",
    "carriage returns": b"-----BEGIN A-----\rQUJD\r-----END A-----\r",
    "long label": b"-----BEGIN " + b"A" * 70,
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_parsing_time_is_linear_in_the_size(piece: bytes) -> None:
    """A megabyte, the maximum size, takes seconds at most, and twice as long as half of it, not four times."""

    def spent(size: int) -> float:
        data = piece * (size // len(piece))
        start = time.process_time()
        pem.split(data)
        return time.process_time() - start

    small, large = spent(128 * 1024), spent(1024 * 1024)
    assert large < max(0.2, 24 * small)
    assert large < 5
