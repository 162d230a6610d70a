"""Sizes as people write them, such as "64MiB" and "1GB", in bytes."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TEXT = re.compile(r"(\d+)\s*([A-Za-z]*)", re.ASCII)


def byte_count(text: str, name: str) -> int:
    """Return the bytes that *text* says.

    Args:
        text: A whole number, with a unit or without: "64MiB" (2 ** 20 each), "64MB" (10 ** 6 each), "67108864".
        name: What it is, for the error.

    Raises:
        ValueError: *text* is no size, or is 0.
    """
    parts = _TEXT.fullmatch(text)
    unit = _UNITS.get(parts[2]) if parts else None
    if parts is None or unit is None or not int(parts[1]):
        raise ValueError(f'{name}: {text!r} is no size; expected a whole number with its unit, such as "64MiB"')
    return int(parts[1]) * unit
