"""The arithmetic of prices: from tokens and flat rates to dollars, exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from itertools import pairwise

from overcoat.accounting import Usage
from overcoat.arithmetic.dollars import EXACT, plain

_multiply_and_add = EXACT.fma

PriceSource = Callable[[str, float], "Rates | None"]
"""From a model's name and the Unix time to its rates; None where it is unknown. Called on the event loop."""

STANDARD = frozenset({"auto", "default", "on_demand", "standard"})
"""What providers call the service that is had by asking for none; they repeat it in their answers."""

DISCOUNTED = frozenset({"batch", "flex"})
"""Services that every provider sells for less than its standard one."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Dollars a token, for requests of more than `above` input tokens; None where the source has no such price.

    What is None is charged as what it is a part of, as providers do: cached and audio input as `input`, reasoning and
    audio output as `output`, and what is cached for an hour as `cache_creation`.
    """

    above: int
    input: Decimal | None
    output: Decimal | None
    cache_read: Decimal | None = None
    cache_creation: Decimal | None = None
    reasoning: Decimal | None = None
    cache_creation_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    dearest_input: Decimal | None = field(init=False, repr=False, compare=False)
    """The highest rate of a token of text that is sent, whether or not it is cached; None where `input` is."""
    dearest_output: Decimal | None = field(init=False, repr=False, compare=False)
    """Likewise of one that is answered, reasoning included."""

    def __post_init__(self) -> None:
        """Refuse what would make a price wrong, or raise, on the day it is used."""
        for name in KINDS:
            rate = getattr(self, name)
            if rate is not None:
                _check_dollars(rate)
        # Here, since the upper bound of every request needs them.
        object.__setattr__(self, "dearest_input", _highest(self.input, self.cache_read, self.cache_creation))
        object.__setattr__(self, "dearest_output", _highest(self.output, self.reasoning))


KINDS: Sequence[str] = tuple(each.name for each in fields(Tier) if each.init and each.name != "above")
"""Of tokens: what a tier has rates for."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one model costs.

    Attributes:
        tiers: By `above`, ascending, the first from 0. Crossing one prices the whole request by it, as providers do.
        source: Where the rates come from, with its version; stamped on every record that they price.
        per_request: Dollars for each request, whatever its tokens.
        services: Other tiers by the provider's name for the service, such as "batch", "flex" and "priority".
        context_window: The most input tokens that the model takes; None where the source does not say.
        max_output_tokens: The most tokens that one answer may have; None where the source does not say.
    """

    tiers: tuple[Tier, ...]
    source: str
    per_request: Decimal = Decimal(0)
    services: Mapping[str, tuple[Tier, ...]] = field(default_factory=dict[str, tuple[Tier, ...]], hash=False)
    context_window: int | None = None
    max_output_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would make a price wrong, or raise, on the day it is used."""
        _check_dollars(self.per_request)
        for tiers in (self.tiers, *self.services.values()):
            starts = [tier.above for tier in tiers]
            if starts[:1] != [0] or any(lower >= higher for lower, higher in pairwise(starts)):
                raise ValueError(
                    f"Rates(tiers=...): expected tiers that ascend by `above`, the first from 0, not {starts}"
                )

    def cost(self, usage: Usage, service: str | None = None) -> Decimal | None:
        """Return the dollars that *usage* costs; None where a needed count or rate is not known.

        Args:
            usage: Of one request.
            service: The provider's name for how it was served, such as "flex"; None is the standard. A service of
                unknown price costs None, and one that is sold for less what the standard does.
        """
        tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
        if tokens_in is None or tokens_out is None:
            return None
        tiers = self.tiers if service is None else self._tiers_of(service)
        if tiers is None:
            return None
        tier = _tier(tiers, tokens_in)
        total = self.per_request
        # Some clients count the parts beside the whole: no more tokens are charged for than the whole has.
        created, longer = usage.cache_creation_input_tokens, 0
        if created and tier.cache_creation_1h is not None:
            longer = min(usage.cache_creation_1h_input_tokens or 0, created)
            created -= longer
        for tokens, rate in (
            (usage.cache_read_input_tokens, tier.cache_read),
            (longer, tier.cache_creation_1h),
            (created, tier.cache_creation),
            (usage.audio_input_tokens, tier.audio_input),
        ):
            if tokens and rate is not None:
                part = min(tokens, tokens_in)
                tokens_in -= part
                total = _multiply_and_add(part, rate, total)
        for tokens, rate in (
            (usage.reasoning_output_tokens, tier.reasoning),
            (usage.audio_output_tokens, tier.audio_output),
        ):
            if tokens and rate is not None:
                part = min(tokens, tokens_out)
                tokens_out -= part
                total = _multiply_and_add(part, rate, total)
        for tokens, rate in ((tokens_in, tier.input), (tokens_out, tier.output)):
            if tokens:
                if rate is None:
                    return None
                total = _multiply_and_add(tokens, rate, total)
        return plain(total)

    def may_be_less(self, usage: Usage, service: str | None = None) -> bool:
        """Say whether `cost` is an upper bound only: some of *usage* may be cheaper, and nobody said how much.

        That is so where the client did not report cached input although it has a cheaper rate, and where a service
        that is sold for less has no rates here. Tokens that a client wrote to the cache without reporting them are not
        in it: providers do that when they are asked to, by a client that knows.
        """
        tier = _tier(self._tiers_of(service) or self.tiers, usage.input_tokens or 0)
        if service in DISCOUNTED and service not in self.services:
            return True
        return (
            usage.cache_read_input_tokens is None
            and usage.input_tokens != 0
            and tier.cache_read is not None
            and tier.input is not None
            and tier.cache_read < tier.input
        )

    def _tiers_of(self, service: str | None) -> tuple[Tier, ...] | None:
        if service is None:
            return self.tiers
        known = self.services.get(service)
        return self.tiers if known is None and (service in STANDARD or service in DISCOUNTED) else known


def _tier(tiers: tuple[Tier, ...], tokens_in: int) -> Tier:
    found = tiers[0]
    for higher in tiers[1:]:
        if tokens_in > higher.above:
            found = higher
    return found


def _highest(plain: Decimal | None, *others: Decimal | None) -> Decimal | None:
    return None if plain is None else max((plain, *(rate for rate in others if rate is not None)))


def _check_dollars(rate: Decimal) -> None:
    # Price sources are not all typed: a float would raise later, where a paid answer is waiting for its price.
    if not isinstance(rate, Decimal) or not rate.is_finite() or rate < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"expected a rate as a finite Decimal of 0 or more, not {rate!r}")
