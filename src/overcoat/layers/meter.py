"""`Meter`: prices what each attempt used, beside the provider, where retries, caches and races cannot hide it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from overcoat.errors import UnknownPrice
from overcoat.layer import Client, Handler, Observer, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.pricing.kept import KeptRates
from overcoat.pricing.rates import PriceSource
from overcoat.pricing.sources import DEFAULT, Price, price_source
from overcoat.record import Attempt

if TYPE_CHECKING:
    from overcoat.ledger import Ledger

logger = logging.getLogger("overcoat")

OnUnknownPrice = Literal["warn", "raise", "block"]

_MOST_MODELS = 1000
"""How many models are warned of: what answered is named by the provider, and could be anything."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Meter(PlacedLayer):
    """Price every attempt that the provider charged for, also where its answer was refused or its caller has gone.

    Stacking it looks up the client's model. The first look-up in a process imports genai-prices, which takes half a
    second: at the start, and not in the first call.

    Attributes:
        prices: Where rates come from: the path of a price table, which is asked before genai-prices and litellm's map;
            a function of a model's name and the Unix time, which alone is asked and must not block; or several of
            both. A model that none of them knows costs None, never 0: what is free is declared so in a table.
        on_unknown_price: What a model without a price means. "warn" logs it once for each model. "raise" refuses to be
            stacked around a client whose model has none, and from then on warns: an answer that was paid for is
            never lost, and prices that expire overnight stop nothing. "block" refuses each such call before it is
            sent, and goes by the name that the client has for the model.
        ledger: Where each call is written when it has ended: a `Ledger`, or the URL of one that the process shares,
            such as "sqlite:///costs.db" or "postgresql://USER@HOST/DATABASE". None writes none.

    Raises:
        PolicyError: A price table has mistakes; the error lists all of them with their places.
        TypeError: *prices* is no source of prices.
        ValueError: *on_unknown_price* is none of the three.
    """

    place: ClassVar[Place] = Place.METER
    because: ClassVar[str] = "usage and cost are measured once, beside the provider"
    twice: ClassVar[str] = "every token would be priced twice"

    prices: Price | Sequence[Price] = field(default=DEFAULT, repr=False)
    on_unknown_price: OnUnknownPrice = "warn"
    ledger: str | Ledger | None = field(default=None, repr=False)  # a URL may have a password

    def __post_init__(self) -> None:
        """Check the settings, and read the table, where they were written."""
        if self.on_unknown_price not in get_args(OnUnknownPrice):
            raise ValueError(f'Meter(on_unknown_price={self.on_unknown_price!r}): expected "warn", "raise" or "block"')
        _ = self.source

    @cached_property
    def source(self) -> PriceSource:
        """The `prices` as one function."""
        return price_source(self.prices)

    def observer(self, client: Client) -> Observer | None:  # noqa: ARG002 - a ledger is for any
        """Return the ledger.

        Raises:
            ImportError: SQLAlchemy, or psycopg for Postgres, is not installed.
            LedgerError: The ledger's URL cannot be used.
        """
        if self.ledger is None:
            return None
        from overcoat.ledger import Ledger  # noqa: PLC0415 - it imports SQLAlchemy

        return self.ledger if isinstance(self.ledger, Ledger) else Ledger.shared(self.ledger)

    def bind(self, client: Client) -> _Metering:
        """Return the function that prices calls.

        Raises:
            UnknownPrice: The client's model has no price, and that is not allowed.
        """
        metering = _Metering(self.source, block=self.on_unknown_price == "block")
        model = getattr(client, "model_name", None)
        if (not model or metering.rates(model, time.time()) is None) and self.on_unknown_price == "raise":
            raise UnknownPrice(model)
        return metering


class _Metering:
    def __init__(self, prices: PriceSource, *, block: bool = False) -> None:
        self.rates = KeptRates(prices)
        self._block = block
        self._warned: set[str] = set()

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        attempt = cast("Attempt", request.attempt)  # the recorder of attempts is always outside
        if self._block and self.rates(attempt.model, attempt.started + request.call.epoch) is None:
            raise UnknownPrice(attempt.model)
        try:
            return await inner(request)
        finally:
            # Here, and not after `inner`, since a failed or abandoned attempt may have been charged as well.
            if attempt.usage is not None:
                self._price(attempt, attempt.started + request.call.epoch)

    def _price(self, attempt: Attempt, now: float) -> None:
        usage, service = attempt.usage, attempt.service_tier
        # As the caller named the model first; a gateway's own name is priced by the model that it says answered.
        rates = self.rates(attempt.model, now) or self.rates(attempt.response_model, now)
        if rates is not None and usage is not None:
            attempt.cost, attempt.price_source = rates.cost(usage, service), rates.source
            attempt.upper_bound = attempt.cost is not None and rates.may_be_less(usage, service)
        else:
            self._warn(str(attempt.model or attempt.response_model))

    def _warn(self, model: str) -> None:
        if model not in self._warned and len(self._warned) < _MOST_MODELS:
            self._warned.add(model)
            logger.warning("the model %r has no price, and its cost is unknown; a price table can declare one", model)
