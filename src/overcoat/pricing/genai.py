"""Rates from genai-prices, which knows dates and tiers and never calls an unknown model free."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any

from overcoat.arithmetic.dollars import EXACT
from overcoat.models import parse_model
from overcoat.pricing.rates import STANDARD, Rates, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

# OpenTelemetry's provider names, where genai-prices has others.
_PROVIDERS = {
    "aws.bedrock": "aws",
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "x_ai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
}

_NAMES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_creation": "cache_write_mtok",
    "cache_creation_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}

_MILLION = Decimal(1_000_000)


def rates(model: str, now: float) -> Rates | None:
    """Return what *model* costs at *now* (Unix time, seconds); None where it is unknown.

    That includes a bare name that does not say who serves the model: the same weights cost what their server asks, and
    nothing on one's own machine.

    The first call imports genai-prices, which takes about half a second and 66 MiB.
    """
    provider, name = parse_model(model)
    if provider is None:
        return None
    import genai_prices  # noqa: PLC0415 - see above: `import overcoat` stays light
    from genai_prices.types import Usage  # noqa: PLC0415

    when = datetime.fromtimestamp(now, UTC)
    known = _PROVIDERS.get(provider, provider)
    with localcontext(EXACT):
        try:
            found = genai_prices.calc_price(Usage(), name, provider_id=known, genai_request_timestamp=when)
        except LookupError:
            return None
        tiers = _flat(found.model_price)
        if tiers is None:
            return None
        per_thousand = getattr(found.model_price, "requests_kcount", None)
        return Rates(
            tiers,
            f"genai-prices {genai_prices.__version__}",
            Decimal(0) if per_thousand is None else per_thousand / 1000,
            dict(_services(found.model, when)),
            found.model.context_window,
        )


def _services(model: ModelInfo, when: datetime) -> Iterator[tuple[str, tuple[Tier, ...]]]:
    """Yield what *model* costs in a batch, and by the services that a request may ask for."""
    for variant in getattr(model, "price_variants", None) or ():  # releases before 0.2 have none
        service = variant.when.get("service_tier") or variant.when.get("processing")
        if len(variant.when) == 1 and service is not None and service not in STANDARD:
            tiers = _flat(model.get_prices(when, price_context=variant.when))
            if tiers is not None:
                yield service, tiers


def _flat(price: ModelPrice) -> tuple[Tier, ...] | None:
    """Turn prices a million tokens with tiers of their own into flat rates a token, tier by tier."""
    parts = {kind: getattr(price, name, None) for kind, name in _NAMES.items()}
    if parts["input"] is None and parts["output"] is None:
        return None  # priced by the hour or the page: not by what a chat reports
    starts = {0} | {tier.start for part in parts.values() for tier in getattr(part, "tiers", ())}
    return tuple(
        Tier(start, **{name: _a_token(part, start) for name, part in parts.items()}) for start in sorted(starts)
    )


def _a_token(part: Any, start: int) -> Decimal | None:
    if part is None:
        return None
    if isinstance(part, Decimal):
        return part / _MILLION
    rate: Decimal = part.base
    for tier in part.tiers:
        if start >= tier.start:
            rate = tier.price
    return rate / _MILLION
