"""Holds retries to their budget, over any interleaving of first attempts and retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.retry_budget import RetryBalance
from overcoat.arithmetic.window import SLICES

WINDOW = 10.0

interleavings = st.lists(
    st.tuples(st.sampled_from(["first", "retry", "retry"]), st.sampled_from([0, 0, 0.01, 0.5, 3, 9.9, 10, 40])),
    max_size=80,
)


@given(interleavings, st.floats(0, 2), st.integers(0, 5))
def test_retries_never_exceed_the_budget(interleaving, ratio, reserve):
    """Within each window there are at most `ratio * first attempts + reserve`, and no fewer are refused."""
    balance, now = RetryBalance(ratio, reserve, WINDOW), 0.0
    groups: list[dict[str, float]] = []  # as the window has them: what came within a hundredth of it leaves together
    for kind, pause in interleaving:
        now += pause
        recent = [group for group in groups if group["last"] + WINDOW > now]
        firsts = sum(group["first"] for group in recent)
        retries = sum(group["retry"] for group in recent)
        if kind == "first":
            balance.deposit(now)
        else:
            granted = balance.withdraw(now)
            assert granted == (retries + 1 <= ratio * firsts + reserve)
            if not granted:
                continue
        if not groups or now >= groups[-1]["begun"] + WINDOW / SLICES:
            groups.append({"begun": now, "last": now, "first": 0, "retry": 0})
        groups[-1]["last"] = now
        groups[-1][kind] += 1


@given(st.lists(st.sampled_from(["first", "retry"]), max_size=200), st.floats(0, 1), st.integers(0, 9))
def test_within_one_window(interleaving, ratio, reserve):
    balance = RetryBalance(ratio, reserve, WINDOW)
    firsts = retries = 0
    for kind in interleaving:
        if kind == "first":
            balance.deposit(1.0)
            firsts += 1
        else:
            retries += balance.withdraw(1.0)
        assert retries <= ratio * firsts + reserve


def test_an_outage_makes_a_fifth_more_requests_and_not_four_times_as_many():
    """All fail, and each would like three retries."""
    balance = RetryBalance(0.2, 0, WINDOW)
    retries = 0
    for second in range(1000):
        balance.deposit(float(second))
        retries += sum(balance.withdraw(float(second)) for _ in range(3))
    assert 190 <= retries <= 200


def test_what_is_not_used_expires():
    balance = RetryBalance(1.0, 0, WINDOW)
    for _ in range(1000):
        balance.deposit(0.0)
    assert not balance.withdraw(10.0)


def test_the_reserve_comes_back():
    balance = RetryBalance(0.0, 3, WINDOW)
    assert [balance.withdraw(0.0) for _ in range(4)] == [True, True, True, False]
    assert not balance.withdraw(9.9)
    assert [balance.withdraw(10.0) for _ in range(4)] == [True, True, True, False]


@given(interleavings, st.floats(0, 2), st.integers(0, 5))
def test_written_down_at_every_step_it_is_the_same(interleaving, ratio, reserve):
    """As it is kept where several processes share it."""
    balance, written, now = RetryBalance(ratio, reserve, WINDOW), RetryBalance(ratio, reserve, WINDOW).dump(), 0.0
    for kind, pause in interleaving:
        now += pause
        loaded = RetryBalance.load(ratio, reserve, WINDOW, written)
        if kind == "first":
            balance.deposit(now)
            loaded.deposit(now)
        else:
            assert balance.withdraw(now) == loaded.withdraw(now)
        written = loaded.dump()
        assert written == balance.dump()
