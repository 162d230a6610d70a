"""`Meter`: prices what each attempt used, beside the provider, where retries, caches and races cannot hide it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, cast

from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.pricing import genai
from overcoat.pricing.rates import Rates
from overcoat.record import Attempt

PriceSource = Callable[[str, float], Rates | None]
"""From a model's name and the Unix time to its rates; None where it is unknown. May block: it is called in a thread."""

logger = logging.getLogger("overcoat")

_DAY = 86400
_threads = ThreadPoolExecutor(1, thread_name_prefix="overcoat-prices")


@dataclass(frozen=True, kw_only=True, repr=False)
class Meter(PlacedLayer):
    """Price every attempt that the provider charged for, also where its answer was refused or its caller has gone.

    Attributes:
        prices: Where rates come from. A model that it does not know costs None, never 0.
    """

    place: ClassVar[Place] = Place.METER
    because: ClassVar[str] = "usage and cost are measured once, beside the provider"
    twice: ClassVar[str] = "every token would be priced twice"

    prices: PriceSource = field(default=genai.rates, repr=False)

    def bind(self, client: Client) -> _Metering:
        """Return the function that prices calls; the look-up for the client's model begins at once, in a thread."""
        metering = _Metering(self.prices)
        if model := getattr(client, "model_name", None):
            metering.rates(model, int(time.time() // _DAY))
        return metering


class _Metering:
    """Looks rates up once a day for each model: a look-up costs a hundred times what the arithmetic does."""

    def __init__(self, prices: PriceSource) -> None:
        self._prices = prices
        self._rates: dict[tuple[str, int], Future[Rates | None]] = {}

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        attempt = cast("Attempt", request.attempt)  # the recorder of attempts is always outside
        day = int(request.call.at(attempt.started) // _DAY)
        try:
            return await inner(request)
        finally:
            # Here, and not after `inner`, since a failed or abandoned attempt may have been charged as well.
            # As the caller named the model first; a gateway's own name is priced by the model that it says answered.
            for model in (attempt.model, attempt.response_model):
                if attempt.usage is not None and attempt.cost is None and model:
                    rates = self.rates(model, day)
                    if not rates.done() and not _being_cancelled():
                        await _settled(rates)
                    _price(attempt, rates)

    def rates(self, model: str, day: int) -> Future[Rates | None]:
        """Return what *model* costs on *day* (days since 1970), looked up in a thread where it is not yet known."""
        known = self._rates.get((model, day))
        if known is None:
            known = self._rates[model, day] = _threads.submit(self._look_up, model, day)
        return known

    def _look_up(self, model: str, day: int) -> Rates | None:
        try:
            return self._prices(model, float(day * _DAY))
        except Exception:
            logger.exception("the price source %r failed for the model %r; its cost is unknown", self._prices, model)
            return None


def _price(attempt: Attempt, looked_up: Future[Rates | None]) -> None:
    rates = looked_up.result() if looked_up.done() else None
    if rates is not None and attempt.usage is not None:
        attempt.cost, attempt.price_source = rates.cost(attempt.usage), rates.source


def _being_cancelled() -> bool:
    # A cancellation must not be held up by a price: then it is unknown, which only the first call can meet.
    error = sys.exception()
    return error is not None and not isinstance(error, Exception)


async def _settled(rates: Future[Rates | None]) -> None:
    # Not `wrap_future`: a loop in virtual time can see that an executor works, and waits for it.
    await asyncio.get_running_loop().run_in_executor(None, rates.result)
