"""Holds the arithmetic of waiting to its bounds, for every count of failures and every draw."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overcoat.arithmetic.backoff import after_server, full_jitter

MOST = math.nextafter(1.0, 0.0)  # the largest draw there is: `random` never gives 1

failures = st.integers(min_value=1, max_value=100_000)
times = st.floats(min_value=0, max_value=1e12)
draws = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(failures, times, times, draws)
@example(1_100, 0.5, 20.0, MOST)  # 2.0 ** 1099 is the first power of a naive formula that overflows
@example(10**9, 1e308, 1e308, MOST)
@example(1_100, 0.0, 20.0, MOST)
def test_full_jitter_is_between_0_and_the_cap(failures, base, cap, random):
    delay = full_jitter(failures, base=base, cap=cap, random=random)
    assert 0 <= delay <= cap


@pytest.mark.parametrize(
    ("failures", "ceiling"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 20.0), (8, 20.0), (1_100, 20.0)]
)
def test_the_ceiling_doubles_until_the_cap(failures, ceiling):
    assert full_jitter(failures, base=0.5, cap=20.0, random=0.5) == ceiling / 2


@given(failures, failures, times, times, draws)
def test_the_ceiling_never_falls(one, other, base, cap, random):
    """A further failure never makes the same draw a shorter wait."""
    fewer, more = sorted((one, other))
    assert full_jitter(fewer, base=base, cap=cap, random=random) <= full_jitter(more, base=base, cap=cap, random=random)


@given(failures, times, times, draws, draws)
def test_a_larger_draw_waits_no_shorter(failures, base, cap, one, other):
    low, high = sorted((one, other))
    assert full_jitter(failures, base=base, cap=cap, random=low) <= full_jitter(
        failures, base=base, cap=cap, random=high
    )


@given(failures, times, times)
def test_full_jitter_may_wait_for_nothing(failures, base, cap):
    """Full jitter, as opposed to "equal" jitter, begins at 0."""
    assert full_jitter(failures, base=base, cap=cap, random=0.0) == 0


@given(times, times, times, draws)
def test_a_server_s_delay_is_never_undercut(delay, server, jitter, random):
    assert after_server(delay, server, jitter=jitter, random=random) >= server


@given(times, times, times, draws)
def test_our_own_delay_is_never_shortened(delay, server, jitter, random):
    assert after_server(delay, server, jitter=jitter, random=random) >= delay


@given(times, times, times, draws)
def test_the_jitter_is_bounded(delay, server, jitter, random):
    """Where the server's delay decides, at most *jitter* is added; where ours does, nothing is."""
    waited = after_server(delay, server, jitter=jitter, random=random)
    assert waited == delay or server <= waited <= server + jitter


def test_the_jitter_spreads_those_who_were_told_the_same():
    waits = {after_server(0.0, 10.0, jitter=0.5, random=draw / 8) for draw in range(8)}
    assert waits == {10 + draw / 16 for draw in range(8)}
