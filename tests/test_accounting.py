"""Sums of tokens: what is unknown is neither nothing nor everything."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Usage

counts = st.none() | st.integers(0, 10**6)
usages = st.builds(Usage, *[counts] * len(fields(Usage)))


@given(usages, usages, usages)
def test_usage_adds_up_in_any_order(first, second, third):
    assert first + second == second + first
    assert (first + second) + third == first + (second + third)


@given(usages, usages)
def test_what_nobody_said_stays_unsaid(first, second):
    """None is no number: it neither becomes 0 nor swallows what is known."""
    total = first + second
    for each in fields(Usage):
        parts = [getattr(usage, each.name) for usage in (first, second)]
        known = [part for part in parts if part is not None]
        assert getattr(total, each.name) == (sum(known) if known else None)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [(Usage(3, 4, 9), 9), (Usage(3, 4), 7), (Usage(3), 3), (Usage(None, 4), 4), (Usage(), None), (Usage(1, 2, 0), 0)],
)
def test_all_tokens_are_the_total_that_was_reported_or_what_is_known(usage, tokens):
    assert usage.tokens == tokens
