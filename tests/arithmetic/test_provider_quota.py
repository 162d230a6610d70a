"""Holds the reading of what is left of a provider's limits to the formats of the field, and to sane numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.provider_quota import ProviderQuota, provider_quota

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC).timestamp()

nonsense = (
    st.text()
    | st.floats().map(str)
    | st.integers().map(str)
    | st.datetimes().map(str)
    | st.from_regex(r"\d+(\.\d*)?(ms|s|m|h|d)*")
    | st.sampled_from(["0", "-1", "nan", "inf", "1e99", "1_000", "１２", "9" * 64, "9" * 1000, "\x00", ""])  # noqa: RUF001 - full-width digits: float() takes them
)
names = st.sampled_from(
    [
        f"{start}{middle}{end}"
        for start, end in (("x-ratelimit-remaining-", ""), ("x-ratelimit-reset-", ""))
        for middle in ("requests", "tokens", "project-tokens", "")
    ]
    + [
        f"anthropic-ratelimit-{unit}-{what}"
        for unit in ("requests", "input-tokens", "")
        for what in ("remaining", "reset")
    ]
)


def read(headers):
    return provider_quota(headers, NOW)


def test_openai():
    assert read(
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    ) == ProviderQuota(59, 1.0, 149984, 360.0)


def test_azure():
    """Its resets are bare seconds."""
    assert read({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "10"}) == ProviderQuota(9, 10.0)


def test_anthropic():
    """Of its three limits on tokens, the one with the least left counts."""
    reset = "2026-11-23T12:00:{}Z"
    assert read(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": reset.format(30),
            "anthropic-ratelimit-tokens-remaining": "40000",
            "anthropic-ratelimit-tokens-reset": reset.format(10),
            "anthropic-ratelimit-input-tokens-remaining": "32000",
            "anthropic-ratelimit-input-tokens-reset": reset.format(20),
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-output-tokens-reset": reset.format(40),
            "anthropic-priority-input-tokens-remaining": "1",
        }
    ) == ProviderQuota(0, 30.0, 8000, 40.0)


def test_of_equal_ones_the_longer_counts():
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "17ms",
        "x-ratelimit-remaining-requests-day": "0",
        "x-ratelimit-reset-requests-day": "9s",
    }
    assert read(headers) == read(dict(reversed(headers.items()))) == ProviderQuota(0, 9.0)


@pytest.mark.parametrize("bad", ["-1", "nan", "inf", "1e99", "soon", "", "1_000", "9" * 65])
def test_half_a_limit_is_none(bad):
    good = {"x-ratelimit-remaining-tokens": "3", "x-ratelimit-reset-tokens": "2s"}
    assert read(good) == ProviderQuota(tokens_remaining=3, tokens_reset=2.0)
    for name in good:
        assert read({**good, name: bad}) is None
        assert read({other: good[other] for other in good if other != name}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-images": "0", "x-ratelimit-reset-images": "9s"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"},
        {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "9s"},
    ],
)
def test_what_is_about_something_else(headers):
    assert read(headers) is None


@given(st.dictionaries(names, nonsense), st.floats() | st.floats(min_value=0, max_value=1e10))
def test_no_header_makes_a_number_that_cannot_be_used(headers, now):
    quota = provider_quota(headers, now)
    for value in (quota.requests_remaining, quota.tokens_remaining) if quota else ():
        assert value is None or (isinstance(value, int) and value >= 0)
    for value in (quota.requests_reset, quota.tokens_reset) if quota else ():
        assert value is None or (math.isfinite(value) and value >= 0)
