"""The arithmetic of prices: from tokens and flat rates to dollars, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from overcoat.arithmetic.dollars import EXACT
from overcoat.record import Usage

_multiply_and_add = EXACT.fma


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

    def __post_init__(self) -> None:
        """Refuse what would make a price wrong, or raise, on the day it is used."""
        for rate in (self.input, self.output, self.cache_read, self.cache_creation, self.reasoning):
            if rate is not None:
                _check_dollars(rate)


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

    def __post_init__(self) -> None:
        """Refuse what would make a price wrong, or raise, on the day it is used."""
        _check_dollars(self.per_request)
        starts = [tier.above for tier in self.tiers]
        if starts[:1] != [0] or any(lower >= higher for lower, higher in pairwise(starts)):
            raise ValueError(f"Rates(tiers=...): expected tiers that ascend by `above`, the first from 0, not {starts}")

    def cost(self, usage: Usage) -> Decimal | None:
        """Return the dollars that *usage* costs; None where a needed count or rate is not known."""
        tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        if tokens_in is None or tokens_out is None:
            return None
        tier = self.tiers[0]
        for higher in self.tiers[1:]:
            if tokens_in > higher.above:
                tier = higher
        charges: list[tuple[int, Decimal]] = []
        # Some clients count the parts beside the whole: no more tokens are charged for than the whole has.
        if (read := usage.cache_read_input_tokens) and tier.cache_read is not None:
            read = min(read, tokens_in)
            tokens_in -= read
            charges.append((read, tier.cache_read))
        if (created := usage.cache_creation_input_tokens) and tier.cache_creation is not None:
            created = min(created, tokens_in)
            tokens_in -= created
            charges.append((created, tier.cache_creation))
        if (reasoning := usage.reasoning_output_tokens) and tier.reasoning is not None:
            reasoning = min(reasoning, tokens_out)
            tokens_out -= reasoning
            charges.append((reasoning, tier.reasoning))
        total = self.per_request
        for tokens, rate in ((tokens_in, tier.input), (tokens_out, tier.output), *charges):
            if tokens:
                if rate is None:
                    return None
                total = _multiply_and_add(tokens, rate, total)
        return total


def _check_dollars(rate: Decimal) -> None:
    # Price sources are not all typed: a float would raise later, where a paid answer is waiting for its price.
    if not isinstance(rate, Decimal) or not rate.is_finite() or rate < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"expected a rate as a finite Decimal of 0 or more, not {rate!r}")
