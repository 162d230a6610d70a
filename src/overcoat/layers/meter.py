"""`Meter`: prices what each attempt used, beside the provider, where retries, caches and races cannot hide it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, cast

from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.pricing import genai
from overcoat.pricing.rates import Rates
from overcoat.record import Attempt

logger = logging.getLogger("overcoat")

PriceSource = Callable[[str, float], Rates | None]
"""From a model's name and the Unix time to its rates; None where it is unknown. Called on the event loop."""

_PERIOD = 1800.0
"""Seconds for which rates are kept: some models have prices by the time of day, which change on the half hour."""
_MOST_MODELS = 1000
"""How many models' rates are kept: what answered is named by the provider, and could be anything."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Meter(PlacedLayer):
    """Price every attempt that the provider charged for, also where its answer was refused or its caller has gone.

    Stacking it looks up the client's model. The first look-up in a process imports genai-prices, which takes half a
    second: at the start, and not in the first call.

    Attributes:
        prices: Where rates come from. A model that it does not know costs None, never 0. It must not block.
    """

    place: ClassVar[Place] = Place.METER
    because: ClassVar[str] = "usage and cost are measured once, beside the provider"
    twice: ClassVar[str] = "every token would be priced twice"

    prices: PriceSource = field(default=genai.rates, repr=False)

    def bind(self, client: Client) -> _Metering:
        """Return the function that prices calls."""
        metering = _Metering(self.prices)
        if model := getattr(client, "model_name", None):
            metering.rates(model, time.time())
        return metering


class _Metering:
    """Keeps rates for half an hour: a look-up costs a hundred times what the arithmetic does."""

    def __init__(self, prices: PriceSource) -> None:
        self._prices = prices
        self._period = 0.0
        self._rates: dict[str, Rates | None] = {}

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        try:
            return await inner(request)
        finally:
            # Here, and not after `inner`, since a failed or abandoned attempt may have been charged as well.
            attempt = cast("Attempt", request.attempt)  # the recorder of attempts is always outside
            if attempt.usage is not None:
                self._price(attempt, attempt.started + request.call.epoch)

    def _price(self, attempt: Attempt, now: float) -> None:
        # As the caller named the model first; a gateway's own name is priced by the model that it says answered.
        for model in (attempt.model, attempt.response_model):
            rates = self.rates(model, now) if model else None
            if rates is not None and attempt.usage is not None:
                attempt.cost, attempt.price_source = rates.cost(attempt.usage), rates.source
                return

    def rates(self, model: str, now: float) -> Rates | None:
        """Return what *model* costs at *now*, in Unix time."""
        period = now // _PERIOD
        if period != self._period or len(self._rates) >= _MOST_MODELS:
            self._period, self._rates = period, {}
        try:
            return self._rates[model]
        except KeyError:
            rates = self._rates[model] = self._look_up(model, period * _PERIOD)
            return rates

    def _look_up(self, model: str, now: float) -> Rates | None:
        # The source may be the user's own: a price that cannot be had is unknown, and no reason to lose a paid answer.
        try:
            rates = self._prices(model, now)
        except Exception:
            logger.exception("the price source %r failed for the model %r; its cost is unknown", self._prices, model)
            return None
        if rates is not None and not isinstance(rates, Rates):  # pyright: ignore[reportUnnecessaryIsInstance]
            logger.error("the price source %r gave %r for the model %r; expected Rates", self._prices, rates, model)
            return None
        return rates
