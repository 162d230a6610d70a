"""Keeps rates for half an hour: a look-up costs a hundred times what the arithmetic does."""

from __future__ import annotations

import logging

from overcoat.pricing.rates import PriceSource, Rates

logger = logging.getLogger("overcoat")

_PERIOD = 1800.0
"""Seconds for which rates are kept: some models have prices by the time of day, which change on the half hour."""
_MOST_MODELS = 1000
"""How many models' rates are kept: what answered is named by the provider, and could be anything."""


class KeptRates:
    """A source of prices that is asked for each model once in half an hour, and cannot fail.

    Args:
        prices: What is asked. It may be the user's own: a price that cannot be had is logged, and unknown.
    """

    def __init__(self, prices: PriceSource) -> None:
        self._prices = prices
        self._period = 0.0
        self._rates: dict[str, Rates | None] = {}

    def __call__(self, model: str | None, now: float) -> Rates | None:
        """Return what *model* costs at *now*, in Unix time; None where it is unknown."""
        if not model:
            return None
        period = now // _PERIOD
        if period != self._period or len(self._rates) >= _MOST_MODELS:
            self._period, self._rates = period, {}
        try:
            return self._rates[model]
        except KeyError:
            rates = self._rates[model] = self._look_up(model, period * _PERIOD)
            return rates

    def _look_up(self, model: str, now: float) -> Rates | None:
        try:
            rates = self._prices(model, now)
        except Exception:  # a paid answer must not be lost for it
            logger.exception("the price source %r failed for the model %r; its cost is unknown", self._prices, model)
            return None
        if rates is not None and not isinstance(rates, Rates):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            logger.error("the price source %r gave %r for the model %r; expected Rates", self._prices, rates, model)
            return None
        return rates
