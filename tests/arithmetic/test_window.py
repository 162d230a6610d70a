"""Holds the sums over a window to a naive count: late to shrink by a hundredth at most, and never too small."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.window import SLICES, Window

SPAN = 100.0

steps = st.lists(st.tuples(st.floats(0, 60) | st.sampled_from([0, 0.5, 1, SPAN]), st.integers(0, 9)), max_size=60)


def play(steps):
    """Yield the window after each addition, with the moment and the additions until then."""
    window, additions = Window(SPAN), []
    times = accumulate(pause for pause, _ in steps)
    for now, (_, weight) in zip(times, steps, strict=True):
        window.add(now, 1, weight)
        additions.append((now, weight))
        yield window, now, additions


@given(steps)
def test_the_sums_are_those_of_the_window(steps):
    """Whatever was added less than a window ago counts, and nothing that was a hundredth more ago."""
    for window, now, additions in play(steps):
        certain = [weight for at, weight in additions if at + SPAN > now]
        possible = [weight for at, weight in additions if at + SPAN + SPAN / SLICES > now]
        assert len(certain) <= window.count <= len(possible)
        assert sum(certain) <= window.weight <= sum(possible)


@given(steps)
def test_what_is_apart_is_exact(steps):
    steps = [(pause + SPAN / SLICES, weight) for pause, weight in steps]
    for window, now, additions in play(steps):
        assert window.weight == sum(weight for at, weight in additions if at + SPAN > now)


def test_memory_is_bounded():
    window = Window(SPAN)
    for step in range(100_000):
        window.add(step / 100, 1, 1)
        assert len(window.slices) <= SLICES + 1
    assert SPAN * 100 <= window.count <= (SPAN + 1) * 100 + 1


@given(steps, st.data())
def test_what_is_taken_back_was_never_there(steps, data):
    """Each sum is as without what was taken back, from then on and after it has left."""
    window, now = Window(SPAN), 0.0
    kept = []
    for pause, weight in steps:
        now += pause
        added = window.add(now, 1, weight)
        if data.draw(st.booleans()):
            window.correct(added, -1, -weight)
        else:
            kept.append((added, weight))
    for later in (now, now + SPAN / 2, now + SPAN + 1):
        window.expire(later)
        assert window.count == sum(added.counted for added, _ in kept)
        assert window.weight == sum(weight for added, weight in kept if added.counted)
    assert window.count == window.weight == 0


def test_a_correction_that_is_too_late_does_nothing():
    window = Window(SPAN)
    first = window.add(0.0, 1, 5)
    window.add(SPAN, 1, 7)
    window.correct(first, -1, -5)
    assert (window.count, window.weight) == (1, 7)


def test_a_clock_that_goes_back_does_no_harm():
    window = Window(SPAN)
    window.add(50.0, 1, 0)
    window.add(10.0, 1, 0)
    window.expire(149.9)
    assert window.count == 2
    window.expire(150.0)
    assert window.count == 0
