"""Holds dollars to being exact, and to reading as a person would write them, whatever the application's context is."""

from __future__ import annotations

from decimal import ROUND_DOWN, Context, Decimal, Inexact, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.dollars import in_units, of_units, plain

amounts = st.decimals(0, 10**7, allow_nan=False, places=15)


@pytest.mark.parametrize(
    ("written", "read"),
    [("0.0081000", "0.0081"), ("0E-9", "0"), ("0E+3", "0"), ("1E+1", "10"), ("12.50", "12.5"), ("-2E+2", "-200")],
)
def test_it_reads_well(written, read):
    assert str(plain(Decimal(written))) == read


@given(amounts)
def test_nothing_of_it_changes(amount):
    assert plain(amount) == amount


@given(amounts, st.sampled_from([9, 12]))
def test_whole_units_are_at_least_as_much_and_less_than_one_more(amount, digits):
    """By no context of the application, which here rounds down, has three digits, and raises where that matters."""
    with localcontext(Context(prec=3, rounding=ROUND_DOWN, traps=[Inexact])):
        units = in_units(amount, digits)
        dollars = of_units(units, digits)
    assert amount <= dollars < amount + Decimal(1).scaleb(-digits)
    assert in_units(dollars, digits) == units
