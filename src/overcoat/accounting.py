"""What was used and what it cost: tokens and dollars, whose sums keep apart what is unknown and what is nothing."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from overcoat.arithmetic.dollars import EXACT

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or more attempts, in OpenTelemetry's terms; None is "the client did not say", never 0.

    `input_tokens` includes the cached ones and `output_tokens` the reasoning ones (semantic conventions 1.41,
    `gen_ai.usage.*`), so all from the fourth on are parts of the first two and must not be added to them. What is
    cached for an hour is a part of `cache_creation_input_tokens`.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    cache_creation_1h_input_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None

    @property
    def tokens(self) -> int | None:
        """All of them: the total that was reported, else what is known of both sides together."""
        return _plus(self.input_tokens, self.output_tokens) if self.total_tokens is None else self.total_tokens

    def __add__(self, other: Usage) -> Usage:
        """Sum field by field; a field that neither side knows stays None."""
        return Usage(
            _plus(self.input_tokens, other.input_tokens),
            _plus(self.output_tokens, other.output_tokens),
            _plus(self.total_tokens, other.total_tokens),
            _plus(self.cache_read_input_tokens, other.cache_read_input_tokens),
            _plus(self.cache_creation_input_tokens, other.cache_creation_input_tokens),
            _plus(self.reasoning_output_tokens, other.reasoning_output_tokens),
            _plus(self.cache_creation_1h_input_tokens, other.cache_creation_1h_input_tokens),
            _plus(self.audio_input_tokens, other.audio_input_tokens),
            _plus(self.audio_output_tokens, other.audio_output_tokens),
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars of one call; None is "the price is unknown", never 0.

    `billed` is all that the provider charges for the call, and `wasted` the part of it that bought no answer (failed,
    refused or abandoned attempts). `saved` is what a stored or shared answer would have cost.
    """

    billed: Decimal | None
    saved: Decimal | None
    wasted: Decimal | None

    def __add__(self, other: Cost) -> Cost:
        """Sum column by column; what is unknown on either side stays unknown."""
        return Cost(
            _dollars(self.billed, other.billed), _dollars(self.saved, other.saved), _dollars(self.wasted, other.wasted)
        )


NOTHING = Cost(ZERO, ZERO, ZERO)


def _dollars(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return None if left is None or right is None else EXACT.add(left, right)


def _plus(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right
