"""Lease accounting with a clock the test moves, and the restart budget."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor_agent.leases import Lease, LeaseBook, RestartBudget, boottime

A, B = b"a" * 16, b"b" * 16


def test_a_lease_counts_from_when_the_request_was_sent() -> None:
    book = LeaseBook()
    book.add(Lease(A, sent_at=100.0, seconds=30))
    assert book.expired(129.9) == ()
    assert book.expired(130.0) == (A,)


def test_renewal_is_due_at_a_third_and_again_after_a_failed_try() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    assert not book.renewal_due(109.9)
    assert book.renewal_due(110.0)
    book.postpone(112.0)
    assert not book.renewal_due(111.0)
    assert book.wake_at() == 112.0
    assert book.renewal_due(112.0)


def test_a_renewal_extends_known_leases_only() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    book.renew([(A, 30), (B, 30)], sent_at=110.0)
    assert B not in book
    assert book.expired(139.0) == ()
    assert book.expired(140.0) == (A,)


def test_a_delayed_answer_never_shortens_a_lease() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    book.renew([(A, 5)], sent_at=101.0)
    assert book.expired(129.0) == ()


def test_a_lease_that_gets_no_longer_is_not_renewed_again_and_again() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    book.add(Lease(B, 100.0, 300))
    for sent_at, following in ((110.0, 110.0 + 20 / 3), (118.0, 122.0)):
        book.renew([(A, int(130 - sent_at))], sent_at)
        assert not book.renewal_due(sent_at + 2)
        assert book.renewal_due(following + 0.001)
        assert book.expired(129.9) == ()
        assert book.expired(130.0) == (A,)


def test_a_lease_given_back_is_not_revived_by_a_late_renewal() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    assert book.drop(A)
    assert not book.drop(A)
    book.renew([(A, 30)], sent_at=110.0)
    assert A not in book
    assert len(book) == 0
    assert book.wake_at() is None


def test_wake_at_is_the_nearest_of_renewals_and_ends() -> None:
    book = LeaseBook()
    book.add(Lease(A, 100.0, 30))
    book.add(Lease(B, 100.0, 6))
    assert book.wake_at() == 102.0
    book.postpone(120.0)
    assert book.wake_at() == 106.0


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(1, 86400)), min_size=1, max_size=20), st.floats(0, 1e6)
)
def test_no_lease_outlives_the_longest_grant(grants: list[tuple[float, int]], now: float) -> None:
    book = LeaseBook()
    for sent_at, seconds in grants:
        book.add(Lease(A, sent_at, seconds))
    latest = max(sent_at + seconds for sent_at, seconds in grants)
    assert bool(book.expired(now)) == (now >= latest)


def test_the_clock_counts_the_time_asleep() -> None:
    assert boottime() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=1)


@pytest.mark.case("B15", "B16")
def test_the_restart_budget_ends_a_fault_loop_and_recovers() -> None:
    budget = RestartBudget(restarts=3, window_seconds=10)
    assert [budget.take(now) for now in (0, 1, 2, 3)] == [True, True, True, False]
    assert not budget.take(9.9)
    assert budget.take(10.0)
    assert not budget.take(10.5)
