"""Durations as people write them, such as "1h", "500ms" and "1m30s", in seconds."""

from __future__ import annotations

import math
import re

Duration = float | str
"""Seconds, or text with units: "250ms", "20s", "1m30s", "1h", "7d"."""

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds(value: Duration, name: str, *, zero: bool = False) -> float:
    """Return *value* in seconds.

    Args:
        value: Seconds, or text with units, largest first.
        name: What it is, for the error, such as "Cache(ttl=...)".
        zero: Whether 0 is a sensible value.

    Raises:
        TypeError: *value* is neither a number nor text.
        ValueError: *value* is negative, not finite, 0 where that makes no sense, or text without units.
    """
    if isinstance(value, str):
        if not _WHOLE.fullmatch(value):
            raise ValueError(
                f'{name}: {value!r} is no duration; expected a number with its unit, such as "500ms" or "1h30m"'
            )
        result = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        result = float(value)
    else:
        raise TypeError(f'{name}: expected seconds or text such as "30s", not {value!r} ({type(value).__name__})')
    if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
        raise ValueError(f"{name}: {value!r} must be {'0 or more' if zero else 'more than 0'}, and finite")
    return result
