"""Holds durations to what people write, and the refusals to saying where and what."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.durations import seconds

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1, "ms": Fraction(1, 1000)}

amounts = st.fixed_dictionaries({}, optional={unit: st.integers(1, 10**6) for unit in UNITS}).filter(bool)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("250ms", 0.25),
        ("20s", 20),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("7d", 604800),
        ("1h2m3s4ms", 3723.004),
        ("1m1ms", 60.001),
        ("0.5s", 0.5),
        ("007s", 7),
    ],
)
def test_text(text, expected):
    assert seconds(text, "ttl") == pytest.approx(expected, rel=1e-15)


@given(amounts)
def test_round_trip_of_text(parts):
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    exact = sum(amount * UNITS[unit] for unit, amount in parts.items())
    assert seconds(text, "ttl") == pytest.approx(float(exact), rel=1e-12)


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False) | st.integers(1, 10**300))
def test_numbers_are_seconds(value):
    assert seconds(value, "ttl") == float(value)
    assert type(seconds(value, "ttl")) is float


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, "0s", "0h0m"])
def test_zero_only_where_it_makes_sense(zero):
    assert seconds(zero, "base", zero=True) == 0
    with pytest.raises(ValueError, match=rf"^base: {re.escape(repr(zero))} must be more than 0, and finite$"):
        seconds(zero, "base")


@given(st.integers().map(str) | st.floats().map(str) | st.decimals(allow_nan=True).map(str))
def test_text_without_a_unit_is_refused(text):
    """Nobody knows whether "30" was meant in seconds, and in milliseconds it is 1000 times off."""
    with pytest.raises(ValueError, match="expected a number with its unit") as caught:
        seconds(text, "Cache(ttl=...)")
    assert str(caught.value).startswith(f"Cache(ttl=...): {text!r} ")


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "s", "1 s", " 1s", "1s\n", "1S", "1H", "1e3s", ".5s", "1.s", "-1s", "+1s", "1_0s", "1,5s", "1s,", "1w",
        "1y", "1µs", "nans", "infs", "1h30", "PT1H", "1h-1m", "0x1s",
    ],
)  # fmt: skip
def test_text_that_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration") as caught:
        seconds(text, "Cache(ttl=...)")
    assert str(caught.value).startswith(f"Cache(ttl=...): {text!r} ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -0.001, -5e-324, "9" * 400 + "s"])
@pytest.mark.parametrize("zero", [True, False])
def test_what_cannot_be_waited_is_refused(value, zero):
    with pytest.raises(ValueError, match=r"and finite$") as caught:
        seconds(value, "Timeout(after=...)", zero=zero)
    assert str(caught.value).startswith(f"Timeout(after=...): {value!r} must be ")


@pytest.mark.parametrize(
    "value", [True, False, None, b"1s", [1], {"s": 1}, timedelta(seconds=1), Decimal(1), Fraction(1), 1j, float]
)
def test_what_is_neither_number_nor_text_is_refused(value):
    """A bool is an int to Python, but `ttl=True` is a mistake and not a second."""
    with pytest.raises(TypeError, match='expected seconds or text such as "30s"') as caught:
        seconds(value, "Deadline(after=...)")
    assert str(caught.value).startswith("Deadline(after=...): ")
    assert f"not {value!r} ({type(value).__name__})" in str(caught.value)


@given(st.text() | st.from_regex(r"([0-9]+(\.[0-9]+)?d)?([0-9]+h)?(\d+(\.\d+)?(ms|s|m|h|d))+"))
def test_any_text_is_a_finite_duration_or_a_value_error(text):
    try:
        result = seconds(text, "ttl", zero=True)
    except ValueError as error:
        message = str(error)
    else:
        assert 0 <= result < math.inf
        return
    assert message.startswith(f"ttl: {text!r} ")


def test_a_number_too_large_for_a_float_is_refused_like_any_other():
    with pytest.raises(ValueError, match=r"^ttl: 10+ must be more than 0, and finite$"):
        seconds(10**400, "ttl")


@pytest.mark.parametrize("text", ["１２s", "٣s", "1२s"])  # noqa: RUF001 - full-width, Arabic and Devanagari digits
def test_digits_are_ascii(text):
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text, "ttl")


@pytest.mark.parametrize("text", ["30m1h", "1s1s", "1ms1s", "1m1d", "1h1h1m"])
def test_units_come_largest_first_and_once(text):
    """Nobody means 90 seconds by "30s1m": it is a slip."""
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text, "ttl")
