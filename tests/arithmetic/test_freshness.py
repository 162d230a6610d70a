"""Holds what is said of an answer's age to the settings: never fresh for too long, and each grace is its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.freshness import Lifetime

spans = st.floats(0, 1e9)
lifetimes = st.builds(Lifetime, st.floats(1e-3, 1e9), st.floats(0, 0.999), spans, spans)


@given(lifetimes, st.floats(0, 1, exclude_max=True))
def test_jitter_takes_its_part_at_the_most(lifetime, random):
    fresh_for = lifetime.fresh_for(random=random)
    assert lifetime.ttl * (1 - lifetime.jitter) <= fresh_for <= lifetime.ttl
    assert fresh_for > 0


def test_without_jitter_nothing_is_left_to_chance():
    assert {Lifetime(60).fresh_for(random=random) for random in (0, 0.5, 0.999)} == {60}


@pytest.mark.parametrize(
    ("age", "freshness"),
    [(0, "fresh"), (99, "fresh"), (100, "stale"), (109, "stale"), (110, "spare"), (129, "spare"), (130, "expired")],
)
def test_an_answer_ages(age, freshness):
    lifetime = Lifetime(100, while_revalidate=10, if_error=30)
    assert lifetime.judge(1000, 1100, 1000 + age) == freshness
    assert lifetime.grace == 30


def test_each_grace_counts_from_the_end_of_freshness():
    assert Lifetime(100, while_revalidate=30, if_error=10).judge(0, 100, 125) == "stale"
    assert Lifetime(100, if_error=10).judge(0, 100, 105) == "spare"
    assert Lifetime(100).judge(0, 100, 100) == "expired"


@given(lifetimes, st.floats(0, 2e9), st.floats(0, 2e9), st.floats(0, 4e9))
def test_nothing_is_fresh_for_longer_than_this_cache_allows(lifetime, created, life, now):
    """Also what another process has stored under settings of its own."""
    if lifetime.judge(created, created + life, now) == "fresh":
        assert now < created + life
        assert now < created + lifetime.ttl


@given(lifetimes, st.floats(0, 2e9), st.floats(0, 2e9), st.lists(st.floats(0, 5e9), min_size=2))
def test_no_answer_grows_younger(lifetime, created, life, moments):
    order = ["fresh", "stale", "spare", "expired"]
    ages = [order.index(lifetime.judge(created, created + life, now)) for now in sorted(moments)]
    assert ages == sorted(ages)
