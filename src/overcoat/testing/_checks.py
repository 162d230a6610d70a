"""What the testing helpers refuse: the argument, its value and what was expected."""

import math

__all__ = ["require_count", "require_seconds"]


def require_count(name: str, value: int, at_most: tuple[str, int] | None = None) -> int:
    """Return the value if it is 0 or more, and at most the named other one where that is given."""
    if value < 0 or (at_most is not None and value > at_most[1]):
        raise ValueError(f"{name}={value!r}; expected 0 {f'to {at_most[0]}={at_most[1]}' if at_most else 'or more'}")
    return value


def require_seconds(name: str, value: float) -> float:
    """Return the value if it is a time that one can wait for."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value!r}; expected seconds: a finite number, 0 or more")
    return value
