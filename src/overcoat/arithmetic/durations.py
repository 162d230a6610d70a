"""Durations as people write them, such as "1h", "500ms" and "1m30s", in seconds."""

from __future__ import annotations

import re
import sys

Duration = float | str
"""Seconds, or text with units: "250ms", "20s", "1m30s", "1h", "7d"."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # in seconds, in the order in which they stand
_TEXT = re.compile(r"(?=\d)" + "".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS), re.ASCII)


def seconds(value: Duration, name: str, *, zero: bool = False) -> float:
    """Return *value* in seconds.

    Args:
        value: Seconds, or text with units, largest first and each once.
        name: What it is, for the error, such as "Cache(ttl=...)".
        zero: Whether 0 is a sensible value.

    Raises:
        TypeError: *value* is neither a number nor text.
        ValueError: *value* is negative, not finite, too large for a float, 0 where that makes no sense, or
            text that is no number with its unit.
    """
    if isinstance(value, str):
        parts = _TEXT.fullmatch(value)
        if parts is None:
            raise ValueError(
                f'{name}: {value!r} is no duration; expected a number with its unit, such as "500ms" or "1h30m"'
            )
        numbers = parts.groups(default="0")
        result = sum(float(number) * unit for number, unit in zip(numbers, _UNITS.values(), strict=True))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        result = value
    else:
        raise TypeError(f'{name}: expected seconds or text such as "30s", not {value!r} ({type(value).__name__})')
    if not 0 <= result <= sys.float_info.max or (result == 0 and not zero):
        raise ValueError(f"{name}: {value!r} must be {'0 or more' if zero else 'more than 0'}, and finite")
    return float(result)
