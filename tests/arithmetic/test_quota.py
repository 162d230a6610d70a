"""Holds the quota to its limits within any stretch of time, and its predictions to what then happens."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.quota import Limits, Quota
from overcoat.arithmetic.window import SLICES

WINDOW = 60.0
APART = 1.01 * WINDOW / SLICES  # so that each has a slice of its own, whatever is rounded

pauses = st.floats(0, 30) | st.sampled_from([0, 0, 0.1, 0.6, 1, WINDOW])


def quota(requests=None, tokens=None, concurrency=None):
    return Quota(Limits(requests, tokens, WINDOW, concurrency))


@given(st.lists(pauses, max_size=80), st.integers(1, 9))
def test_requests_never_exceed_the_limit_in_any_window(pauses, limit):
    """Whenever they arrive: from any that passed, the limit-th after it is a window later at the earliest."""
    limited = quota(requests=limit)
    passed = [now for now in accumulate(pauses) if limited.take(now, 0) is not None]
    assert all(later >= earlier + WINDOW for earlier, later in zip(passed, passed[limit:], strict=False))
    assert len(passed) >= min(limit, len(pauses))


@given(st.lists(st.tuples(pauses, st.integers(0, 50), st.integers(0, 80)), max_size=60), st.integers(1, 100))
def test_tokens_never_exceed_the_limit_when_one_passes(attempts, limit):
    """Counted as they are known by then: what was used by those that have ended."""
    limited, now, granted = quota(tokens=limit), 0.0, []
    for pause, estimate, used in attempts:
        now += pause
        grant = limited.take(now, estimate)
        if grant is None:
            continue
        recent = sum(tokens for at, tokens in granted if at + WINDOW > now)
        assert recent + min(estimate, limit) <= limit
        limited.settle(grant, used)
        granted.append((now, used))


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_concurrency_is_never_exceeded(starts, limit):
    limited, running = quota(concurrency=limit), []
    for start in starts:
        if start and (grant := limited.take(0.0, 0)) is not None:
            running.append(grant)
        elif running:
            limited.settle(running.pop(), 0)
        assert len(running) <= limit
    if len(running) < limit:
        assert limited.take(0.0, 0) is not None


@given(st.lists(pauses, min_size=1, max_size=40), st.integers(1, 9), st.floats(0, 20))
def test_one_can_pass_exactly_when_it_is_said(pauses, limit, pause):
    limited, now = quota(requests=limit, tokens=5 * limit), 0.0
    for step in pauses:
        now += step
        limited.take(now, 3)
    limited.pause(now + pause)
    ready = limited.ready_at(now, 3)
    assert now <= ready <= now + pause + WINDOW
    if ready > now:
        assert limited.take(now + (ready - now) * 0.999, 3) is None
    assert limited.take(ready, 3) is not None


@given(st.lists(pauses, max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_the_place_in_a_queue_says_when(pauses, limit, queued):
    """In a queue of requests nothing is left to chance, so that the last one's moment is known when it comes."""
    limited, now = quota(requests=limit), 0.0
    for pause in pauses:
        now += pause + APART
        limited.take(now, 0)
    foretold = limited.foreseen_at(now, queued - 1, 0)
    for _ in range(queued):
        now = limited.ready_at(now, 0)
        assert limited.take(now, 0) is not None
    assert foretold == pytest.approx(now)


@given(
    st.lists(st.tuples(pauses, st.integers(0, 30)), max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30),
    st.integers(0, 30),
)
def test_none_passes_before_it_was_foreseen(earlier, queue, tokens):
    """Whatever those that are under way or ahead turn out to use."""
    limited, now, under_way = quota(requests=7, tokens=20), 0.0, []
    for number, (pause, used) in enumerate(earlier):
        now += pause
        if (grant := limited.take(now, used)) is not None:
            if number % 3:
                limited.settle(grant, used)
            else:
                under_way.append(grant)
    foreseen = limited.foreseen_at(now, len(queue), tokens)
    for grant in under_way:
        limited.settle(grant, 0)
    for estimate, used in queue:
        now = limited.ready_at(now, estimate)
        limited.settle(limited.take(now, estimate), used)
    assert foreseen <= limited.ready_at(now, tokens)


def test_over_many_windows_all_of_it_can_be_used():
    limited, now, passed = quota(requests=500), 0.0, 0
    while now < 100 * WINDOW:
        if limited.take(now, 0) is None:
            now = limited.ready_at(now, 0)
        else:
            passed += 1
            now += 0.01  # not all at once, so that slices matter
    assert passed >= 0.99 * 500 * 100


@given(st.lists(st.tuples(pauses, st.integers(0, 9), st.booleans()), max_size=40))
def test_what_is_given_back_was_never_taken(steps):
    """The quota that gave some back grants what one grants that never had them."""
    one, other, now = quota(requests=5, tokens=20), quota(requests=5, tokens=20), 0.0
    for pause, tokens, sent in steps:
        now += pause + APART  # where slices are shared, what was given back may hold others for a hundredth
        grant = one.take(now, tokens)
        if not sent:
            if grant is not None:
                one.give_back(grant)
            continue
        assert (grant is None) == (other.take(now, tokens) is None)
    assert one.ready_at(now, 1) == other.ready_at(now, 1)


def test_more_than_there_ever_is_takes_all():
    """An estimate is rough, and to refuse for ever what the provider might take would be worse."""
    limited = quota(tokens=100)
    grant = limited.take(0.0, 1000)
    assert grant is not None
    assert grant.tokens == 100
    assert limited.take(0.0, 1) is None
    limited.settle(grant, 40)
    assert limited.take(0.0, 60) is not None


def test_a_correction_after_the_window_changes_nothing():
    limited = quota(tokens=100)
    grant = limited.take(0.0, 100)
    assert limited.take(WINDOW, 100) is not None
    limited.settle(grant, 5000)
    assert limited.take(2 * WINDOW, 100) is not None


def test_a_pause_is_never_shortened():
    limited = quota(requests=5)
    limited.pause(9.0)
    limited.pause(3.0)
    assert limited.take(8.9, 0) is None
    assert limited.ready_at(0.0, 0) == 9.0
    assert limited.take(9.0, 0) is not None
