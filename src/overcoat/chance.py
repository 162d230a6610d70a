"""Where layers draw what is left to chance, unless their settings name another source."""

from __future__ import annotations

import random


def draw() -> float:
    """Return a number in [0, 1).

    A function of this module is pickled by its name; `random.random` would take its state along, and all workers that
    get the same settings would come back at the same moments.
    """
    return random.random()  # noqa: S311 - jitter is no secret
