"""A ledger does not grow with time or with those who are gone, and forgets nothing that counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import KEPT, Denied, Ledger, Want

HOUR = 3_600_000
HOURLY = parse_window("calendar hour", None, "Test")
SLIDING = parse_window("1h", None, "Test")


def spend(ledger, want, now, amount=None):
    slices = ledger.reserve([want], now)
    assert not isinstance(slices, Denied)
    ledger.settle([want], slices, [want.amount if amount is None else amount], now)


@given(st.lists(st.integers(0, 3 * HOUR), min_size=1, max_size=400), st.sampled_from([HOURLY, SLIDING]))
def test_slices_that_are_over_are_forgotten(pauses, window):
    ledger, now = Ledger(), 0
    for pause in pauses:
        now += pause
        spend(ledger, Want("a", window, None, 1), now)
        assert len(ledger.accounts["a"].slices) <= 2 * KEPT


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50))
def test_a_clock_that_jumps_ahead_a_hundred_times_forgets_nothing(jumps):
    """What is spent today is still counted when it has come back."""
    ledger, today = Ledger(), 1000 * HOUR
    spend(ledger, Want("a", HOURLY, 10, 7), today)
    for jump in jumps:
        spend(ledger, Want("a", HOURLY, 10, 1), today + jump * 1000 * HOUR, 0)
    denied = ledger.reserve([Want("a", HOURLY, 10, 4)], today)
    assert isinstance(denied, Denied)
    assert denied.standing.spent == 7


def test_a_clock_that_goes_back_counts_what_is_dated_ahead():
    ledger = Ledger()
    spend(ledger, Want("a", HOURLY, 10, 7), 5 * HOUR)
    denied = ledger.reserve([Want("a", HOURLY, 10, 4)], 5 * HOUR - 1)
    assert isinstance(denied, Denied)
    assert (denied.standing.spent, denied.room_at) == (7, 6 * HOUR)


def test_accounts_that_nothing_counts_for_are_forgotten():
    ledger = Ledger()
    for number in range(3000):
        spend(ledger, Want(f"tenant {number}", HOURLY, None, 1), number * HOUR)
    assert len(ledger.accounts) < 1100
    open_ = Want("open", HOURLY, None, 1)
    slices = ledger.reserve([open_], 0)
    for number in range(3000):
        spend(ledger, Want(f"other {number}", HOURLY, None, 1), (3000 + number) * HOUR)
    assert "open" in ledger.accounts
    ledger.settle([open_], slices, [1], 7000 * HOUR)
    assert ledger.accounts["open"].reserved == 0


def test_what_counts_for_ever_is_kept():
    ledger, ever = Ledger(), parse_window(None, None, "Test")
    for number in range(3000):
        spend(ledger, Want(f"tenant {number}", ever, 1, 1), number * HOUR)
    assert len(ledger.accounts) == 3000


def test_what_is_settled_after_it_was_forgotten_is_counted_in_its_own_window():
    """Long ago; and nothing stays behind that is less than nothing."""
    ledger, want = Ledger(), Want("a", HOURLY, None, 5)
    slices = ledger.reserve([want], 0)
    for hour in range(1, 3 * KEPT):
        spend(ledger, Want("a", HOURLY, None, 1), hour * HOUR)
    now = 3 * KEPT * HOUR
    ledger.settle([want], slices, [3], now)
    assert ledger.standings([want], now) == [(0, 0)]
    assert all(spent >= 0 <= reserved for spent, reserved in ledger.accounts["a"].slices.values())


def test_a_limit_may_be_lowered_below_what_is_spent():
    ledger = Ledger()
    spend(ledger, Want("a", HOURLY, 10, 7), 0)
    denied = ledger.reserve([Want("a", HOURLY, 5, 1)], 0)
    assert isinstance(denied, Denied)
    assert denied.room_at == HOUR
