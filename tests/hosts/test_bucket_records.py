"""Records in the bucket: written once, read whatever is there, and never too long."""

from __future__ import annotations

import pytest

from broker_auth.hosts.bucket_records import PREFIX, BucketRecords, read_record, write_of
from broker_auth.hosts.registration import Host, read_host
from broker_auth.natsio.bucket import CREATE, REVOCATIONS, KeyValue
from broker_auth.policy.revocation_records import KEEP_SECONDS, Record, key_of, restored_after
from broker_auth.policy.revocations import Revocation, RevocationKind
from broker_auth.times import MAX_TIME
from tests.builders.clock import NOW

REVOKED = Revocation(kind=RevocationKind.NODE, value="n1", at=NOW, reason="lost", by="jo")
RESTORED = restored_after(REVOKED, NOW + 5, "jo")


def entry(record: Record, revision: int = 1) -> KeyValue:
    write = write_of(record, CREATE, NOW)
    assert write is not None
    return KeyValue(write.key, write.value, revision)


@pytest.mark.parametrize("record", [REVOKED, RESTORED])
def test_record_is_read_as_it_was_written(record: Record) -> None:
    assert read_record(entry(record)) == record


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"revoked":{"kind":"node","value":"n1","at":-1}}',
        b'{"revoked":{"kind":"planet","value":"n1"}}',
        b'{"revoked":{"kind":"node","value":"n2"}}',  # of another key
        b'{"revoked":{"kind":"node","value":"n1"},"restored":{"kind":"node","value":"n1","at":1,"restored":1}}',
        b'{"removed":{}}',
    ],
)
def test_other_entries_are_ignored_and_counted(value: bytes) -> None:
    records = BucketRecords()
    assert records.take(KeyValue(entry(REVOKED).key, value, 7)) is None
    assert (len(records.refused), records.last) == (1, 7)
    assert records.take(KeyValue("host.x", b"", 8)) is None
    assert (len(records.refused), records.last) == (1, 7)
    assert records.take(entry(REVOKED, 9)) == REVOKED
    assert not records.refused


def test_only_what_the_bucket_lacks_is_missing() -> None:
    records = BucketRecords()
    held = {key_of(REVOKED): REVOKED}
    [write] = records.missing(held, NOW)
    assert (write.key, write.expected, write.ttl) == (entry(REVOKED).key, CREATE, None)
    assert records.take(entry(REVOKED, 3)) == REVOKED
    assert records.take(entry(REVOKED, 2)) is None  # an older one, from a replica that lags
    assert not list(records.missing(held, NOW))
    [write] = records.missing({key_of(RESTORED): RESTORED}, NOW)
    assert write.expected == 3
    assert write.ttl == pytest.approx(KEEP_SECONDS + 5)
    assert records.take(entry(RESTORED, 4)) == RESTORED
    assert not list(records.missing(held, NOW))  # the bucket holds a later record
    records.forget(key_of(REVOKED))
    assert len(list(records.missing(held, NOW))) == 1


def test_forgotten_records_are_not_written() -> None:
    assert not list(BucketRecords().missing({key_of(RESTORED): RESTORED}, NOW + KEEP_SECONDS + 6))


def test_record_that_ends_after_a_century_stays() -> None:
    for until in (NOW + 101 * 365 * 86_400, MAX_TIME):  # nats-server takes out the first at once, refuses the second
        record = Revocation(kind=RevocationKind.NODE, value="n1", at=NOW, until=until)
        write = write_of(record, CREATE, NOW)
        assert write is not None
        assert write.ttl is None


def test_record_that_is_too_long_is_named() -> None:
    records = BucketRecords()
    long = Revocation(kind=RevocationKind.IDENTITY, value="x" * REVOCATIONS.max_value, at=NOW)
    assert not list(records.missing({key_of(long): long}, NOW))
    assert records.oversized == {key_of(long)}


def test_host_that_cannot_be_read_has_confirmed_nothing() -> None:
    good = b'{"name":"h1","confirmed":4,"of a later version":1}'
    assert read_host(KeyValue("host.x", good, 1)) == Host(name="h1", confirmed=4)
    assert read_host(KeyValue("host.x", b"{", 1)) == Host(name="host.x", confirmed=0)


def test_keys_are_literal_subjects() -> None:
    key = entry(Revocation(kind=RevocationKind.IDENTITY, value="/.*>/", at=NOW)).key
    assert key.startswith(PREFIX)
    assert key.removeprefix(PREFIX).isalnum()
