"""Merging of records: the same result in any order, and a restore undoes only what it knew."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_auth.policy.revocation_records import (
    KEEP_SECONDS,
    Record,
    Restored,
    check,
    digest,
    forgotten_at,
    is_in_force,
    key_of,
    later,
    merged,
    restored_after,
    revoked_after,
)
from broker_auth.policy.revocations import Revocation, RevocationError, RevocationKind
from tests.builders.clock import DAY, NOW

K = RevocationKind
KEY = (K.NODE, "a")


def revoked(at: float, until: float | None = None, reason: str = "", value: str = "a") -> Revocation:
    return Revocation(kind=K.NODE, value=value, at=at, until=until, reason=reason)


def restored(at: float, when: float = NOW) -> Restored:
    return Restored(kind=K.NODE, value="a", at=at, restored=when)


RECORDS: st.SearchStrategy[Record] = st.builds(
    revoked,
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from([None, NOW + 5.0]),
    st.sampled_from(["", "x"]),
    st.sampled_from(["a", "b"]),
) | st.builds(restored, st.sampled_from([1.0, 2.0, 3.0]))


@given(st.lists(RECORDS, max_size=4))
def test_order_of_merging_does_not_matter(records: list[Record]) -> None:
    results = []
    for order in permutations(records):
        held = merged({}, order[:2], NOW)
        others = merged({}, order[2:], NOW)
        results.append(merged(held, others.values(), NOW))
        results.append(merged(results[-1], order, NOW))  # once more
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("records", "counts"),
    [
        ((revoked(1), revoked(2)), revoked(2)),
        ((revoked(1), restored(1)), revoked(1)),  # at the same place a revocation counts
        ((revoked(1), restored(2)), restored(2)),
        ((restored(1), revoked(2)), revoked(2)),
        ((revoked(1, NOW + 5), revoked(1)), revoked(1)),  # the stricter
        ((revoked(1, reason="a"), revoked(1, reason="b")), revoked(1, reason="b")),
    ],
)
def test_one_record_counts(records: tuple[Record, Record], counts: Record) -> None:
    assert later(*records) == later(*reversed(records)) == counts


def test_restore_undoes_what_it_knew_and_nothing_that_was_revoked_elsewhere() -> None:
    known = revoked(NOW)
    taken_back = restored_after(known, NOW + DAY)  # a day later
    elsewhere = revoked(NOW + 1)  # before that day was over, by a host that was cut off
    assert merged({KEY: known}, [taken_back], NOW)[KEY] == taken_back
    assert merged({KEY: taken_back}, [elsewhere], NOW)[KEY] == elsewhere


def test_revoking_again_counts_although_the_clock_was_set_back() -> None:
    known = restored_after(revoked(NOW + DAY), NOW + DAY)
    again = revoked_after(revoked(NOW), known)
    assert later(known, again) == again
    assert revoked_after(revoked(NOW + 2 * DAY), known) == revoked(NOW + 2 * DAY)
    assert revoked_after(revoked(NOW), None) == revoked(NOW)


def test_records_without_effect_are_forgotten_and_others_are_kept() -> None:
    over, gone, stays = revoked(1, NOW, value="over"), restored(1), revoked(1, value="stays")
    held = {key_of(one): one for one in (over, gone, stays)}
    assert merged(held, (), NOW + KEEP_SECONDS - 1) == held
    assert list(merged(held, (), NOW + KEEP_SECONDS)) == [(K.NODE, "stays")]
    assert merged({}, [over, gone], NOW + KEEP_SECONDS) == {}
    assert forgotten_at(stays) is None
    assert [is_in_force(one, NOW) for one in (over, gone, stays)] == [False, False, True]


def test_names_of_kinds_and_values_are_distinct_and_safe_in_subjects() -> None:
    names = {digest((kind, value)) for kind in K for value in ("a", "a.b", "*", ">", "\x00")}
    assert len(names) == 5 * len(K)
    assert all(name.isalnum() for name in names)


@pytest.mark.parametrize(
    "record", [revoked(-1), revoked(1, 1e300), restored(1, -1), Restored(kind=K.KEY, value="AB", at=1, restored=1)]
)
def test_unusable_record_is_refused(record: Record) -> None:
    with pytest.raises(RevocationError):
        check(record)
