"""Where prices come from: one's own table before the libraries' maps, the first source that knows a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from overcoat.pricing import genai, litellm_map
from overcoat.pricing.rates import PriceSource, Rates

Price = PriceSource | str | PurePath
"""A function, or the path of a table; see `overcoat.pricing.table`."""

DEFAULT: tuple[PriceSource, ...] = (genai.rates, litellm_map.rates)
"""What is known without being told: genai-prices, then litellm's map where an application has litellm loaded."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The first of its *sources* that knows a model prices it; a declared price of 0 is one."""

    sources: tuple[PriceSource, ...]

    def __call__(self, model: str, now: float) -> Rates | None:
        """Return what *model* costs at *now*, in Unix time; None where no source knows it."""
        for source in self.sources:
            rates = source(model, now)
            if rates is not None:
                return rates
        return None


def price_source(prices: Price | Sequence[Price]) -> PriceSource:
    """Return *prices* as one function.

    Args:
        prices: A function, which alone is asked; the path of a table, which is asked before `DEFAULT`; or several of
            both, which are asked in their order, and nothing else.

    Raises:
        TypeError: It is none of these.
        PolicyError: A table has mistakes; its `problems` are all of them, each with its place.
    """
    if isinstance(prices, (str, PurePath)):
        return Chain((_table(prices), *DEFAULT))
    if callable(prices):
        return prices
    if isinstance(prices, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        return Chain(tuple(map(_one, prices)))
    raise _refusal(prices)


def _one(price: Price) -> PriceSource:
    if isinstance(price, (str, PurePath)):
        return _table(price)
    if callable(price):
        return price
    raise _refusal(price)


def _table(path: str | PurePath) -> Callable[[str, float], Rates | None]:
    from overcoat.pricing.table import Table  # noqa: PLC0415 - pydantic and PyYAML, for those who have a table

    return Table.read(path)


def _refusal(prices: Any) -> TypeError:
    return TypeError(
        f"Meter(prices={prices!r:.80}): expected a function of a model's name and the time, the path of a price table, "
        f"or a sequence of them"
    )
