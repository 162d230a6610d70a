"""Exact sums of money, whatever decimal context the application has set."""

from __future__ import annotations

import math
from decimal import Context, Decimal

EXACT = Context(prec=100, traps=[])
"""More digits than any rate has. The caller's own context would round, or raise, as the application chose."""

_ZERO = Decimal(0)
_add, _normalize, _scale = EXACT.add, EXACT.normalize, EXACT.scaleb  # every call needs them, several times


def plain(amount: Decimal) -> Decimal:
    """Return the same *amount* as a person would write it: 0.0081, 10 and 0 for 0.0081000, 1E+1 and 0E-9.

    What is less than a millionth still has an exponent: that is how Python writes it.
    """
    return _add(_normalize(amount), _ZERO)


def in_units(amount: Decimal, digits: int) -> int:
    """Return the dollars of *amount* in whole units of so many *digits* after the point, rounded up."""
    return math.ceil(_scale(amount, digits))


def of_units(units: int, digits: int) -> Decimal:
    """Return so many *units* of so many *digits* after the point in dollars, exactly."""
    return _add(_normalize(_scale(units, -digits)), _ZERO)
