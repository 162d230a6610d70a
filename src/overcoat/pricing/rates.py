"""The arithmetic of prices: from tokens and flat rates to dollars, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from overcoat.record import Usage


@dataclass(frozen=True, slots=True)
class Tier:
    """Dollars a token, for requests of more than `above` input tokens; None where the source has no such price.

    Cached input without a price of its own is charged as plain input, and reasoning as plain output, as providers do.
    """

    above: int
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None = None
    cache_creation: Decimal | None = None
    reasoning: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model costs.

    Attributes:
        tiers: By `above`, ascending, the first from 0. Crossing one prices the whole request by it, as providers do.
        source: Where the rates come from, with its version; stamped on every record that they price.
        per_request: Dollars for each request, whatever its tokens.
    """

    tiers: tuple[Tier, ...]
    source: str
    per_request: Decimal = Decimal(0)

    def cost(self, usage: Usage) -> Decimal | None:
        """Return the dollars that *usage* costs; None where a needed count or rate is not known."""
        tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        if tokens_in is None or tokens_out is None:
            return None
        tier = self.tiers[0]
        for higher in self.tiers[1:]:
            if tokens_in > higher.above:
                tier = higher
        read = usage.cache_read_input_tokens or 0
        created = usage.cache_creation_input_tokens or 0
        reasoning = usage.reasoning_output_tokens or 0
        if (tokens_in and tier.input is None) or (tokens_out and tier.output is None):
            return None
        input_rate, output_rate = tier.input or Decimal(0), tier.output or Decimal(0)
        total = self.per_request + tokens_in * input_rate + tokens_out * output_rate
        if read and tier.cache_read is not None:
            total += min(read, tokens_in) * (tier.cache_read - input_rate)
        if created and tier.cache_creation is not None:
            total += min(created, tokens_in) * (tier.cache_creation - input_rate)
        if reasoning and tier.reasoning is not None:
            total += min(reasoning, tokens_out) * (tier.reasoning - output_rate)
        return total
