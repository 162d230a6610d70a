"""Whole numbers among settings."""

from __future__ import annotations


def check_count(value: object, name: str, *, least: int = 1, more: str = "") -> None:
    """Check that *value* is a whole number; True and 1.0 are none.

    Args:
        value: The setting.
        name: Its layer and its own name, for the error, such as "Hedge.max_extra".
        least: The smallest that makes sense.
        more: What the error says beside that.

    Raises:
        ValueError: It is none, or less than *least*.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        layer, _, setting = name.partition(".")
        raise ValueError(f"{layer}({setting}={value!r}): expected a whole number of at least {least}{more}")
