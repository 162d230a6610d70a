"""`Trace`: makes every call visible, as spans in Jaeger and as metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from opentelemetry import trace

from overcoat._version import __version__
from overcoat.layer import Client, Observer, PlacedLayer
from overcoat.order import Place
from overcoat.telemetry import names
from overcoat.telemetry.metrics import metrics_of
from overcoat.telemetry.spans import SpanObserver

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


@dataclass(frozen=True, kw_only=True, repr=False)
class Trace(PlacedLayer):
    """Trace and measure calls by OpenTelemetry's conventions for generative AI, version 1.41.

    A call is an `overcoat.call` span, which carries what one would search for, and inside it a `chat` span for each
    inference. Attempts and the waits between them have spans where there was a failure. Contents are never recorded.

    Attributes:
        attempts: "failed" gives spans to failed attempts and those that follow them; "always" to all.
        cost_tiers: Dollars from which the cost of a call is called "medium" and "high", for searches: Jaeger cannot
            compare numbers.
        tracer_provider: Where spans go; None is the global one, also where that is set later.
        meter_provider: Where metrics go; None likewise.
    """

    place: ClassVar[Place] = Place.CALL
    because: ClassVar[str] = "its span must cover hits, refusals and waits"
    twice: ClassVar[str] = "every call, token and dollar would be counted twice"

    attempts: Literal["failed", "always"] = "failed"
    cost_tiers: tuple[float, float] = (0.001, 0.01)
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        if self.attempts not in ("failed", "always"):
            raise ValueError(f'Trace(attempts={self.attempts!r}): expected "failed" or "always"')
        medium, high = self.cost_tiers
        if not 0 <= medium <= high:
            raise ValueError(f"Trace(cost_tiers={self.cost_tiers!r}): expected 0 <= medium <= high, in dollars")

    def bind(self, client: Client) -> None:
        """Return nothing: there is no function around the call, only an observer of its record."""

    def observer(self, client: Client) -> Observer:
        """Return what makes the spans and metrics of calls to *client*."""
        tracer = trace.get_tracer("overcoat", __version__, self.tracer_provider, names.SCHEMA_URL)
        metrics = metrics_of(self.meter_provider)
        return SpanObserver(tracer, metrics, client, every_attempt=self.attempts == "always", tiers=self.cost_tiers)
