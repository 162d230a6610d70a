"""Where each layer belongs, outermost first, and the refusal of orders that do harm."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import pairwise
from typing import Any

from overcoat.errors import StackOrderError


class Place(IntEnum):
    """The canonical order, outermost first. `CALL`, `INFERENCE` and `ATTEMPT` are where the record is kept."""

    CALL = 1
    DEADLINE = 2
    CACHE = 3
    VALIDATE = 4
    FALLBACK = 5
    HEDGE = 6
    BUDGET = 7
    INFERENCE = 8
    RETRY = 9
    BREAKER = 10
    RATE_LIMIT = 11
    ATTEMPT = 12
    TIMEOUT = 13
    METER = 14


def place_of(layer: Any) -> Place | None:
    """Return the place that *layer* declares, or None for a layer of the user's own, which may stand anywhere."""
    place = getattr(layer, "place", None)
    return place if isinstance(place, Place) else None


def check_order(layers: Sequence[Any]) -> None:
    """Refuse *layers*, outermost first, where two that know their places stand the wrong way round or share one.

    Raises:
        StackOrderError: Naming both layers, the reason, and the order that would be right.
    """
    known = [layer for layer in layers if place_of(layer) is not None]
    for outer, inner in pairwise(known):
        if outer.place > inner.place:
            right = ", ".join(_name(layer) for layer in sorted(known, key=lambda layer: layer.place))
            raise StackOrderError(
                f"{_name(inner)} stands inside {_name(outer)}, but belongs outside it: {inner.because}. "
                f'The right order is {right}; order="as given" waives this check.'
            )
        if outer.place == inner.place:
            also = "" if _name(outer) == _name(inner) else f", once as {_name(outer)}"
            raise StackOrderError(
                f"{_name(inner)} stands twice{also}: {inner.twice}. "
                'Keep one of the two; order="as given" waives this check.'
            )


def position(layers: Sequence[Any], place: Place) -> int:
    """Return the index before which *place* comes among *layers*: that of the first known layer that belongs inside it.

    A layer of the user's own stays outside of what follows it, so that where no known layer belongs inside, the
    place is the innermost one.
    """
    for index, layer in enumerate(layers):
        known = place_of(layer)
        if known is not None and known > place:
            return index
    return len(layers)


def _name(layer: Any) -> str:
    return type(layer).__name__
