"""What a provider says is left of its limits, read from the headers of any of its responses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from overcoat.arithmetic.header_values import duration, number, timestamp, until


@dataclass(frozen=True, slots=True)
class ProviderQuota:
    """What is left of a provider's limits; None is "it did not say".

    Attributes:
        requests_remaining: How many requests, at least 0.
        requests_reset: Seconds from the response until that limit is whole again. Finite and never negative.
        tokens_remaining: How many tokens, at least 0.
        tokens_reset: Seconds from the response until that limit is whole again. Finite and never negative.
    """

    requests_remaining: int | None = None
    requests_reset: float | None = None
    tokens_remaining: int | None = None
    tokens_reset: float | None = None


def provider_quota(headers: Mapping[str, str], now: float) -> ProviderQuota | None:
    """Return what *headers* say is left of requests and tokens; None where they say nothing that can be used.

    Of several limits on the same, such as Anthropic's on tokens, input tokens and output tokens, the one with the least
    left counts, and of equal ones the one that lasts longer. A limit without a reset that can be read says nothing: it
    could never be forgotten.

    Args:
        headers: By lower-case name.
        now: Unix seconds.
    """
    requests = _tightest(headers, "requests", now)
    tokens = _tightest(headers, "tokens", now)
    if requests is None and tokens is None:
        return None
    return ProviderQuota(*(requests or (None, None)), *(tokens or (None, None)))


def reported_limits(headers: Mapping[str, str], now: float) -> Iterator[tuple[str, float, float]]:
    """Yield the name of each limit that can be read, how much is left of it, and the seconds until it is whole again.

    `x-ratelimit-reset-*` are durations ("6m0s", OpenAI) or seconds (Azure), `anthropic-ratelimit-*-reset` moments
    (RFC 3339); beside each stands what remains.
    """
    for name, value in headers.items():
        if name.startswith("x-ratelimit-reset-"):
            limit = name.removeprefix("x-ratelimit-reset-")
            remaining = f"x-ratelimit-remaining-{limit}"
            seconds = number(value)
            reset = duration(value) if seconds is None else seconds
        elif name.startswith("anthropic-ratelimit-") and name.endswith("-reset"):
            limit = name.removeprefix("anthropic-ratelimit-").removesuffix("-reset")
            remaining = name.removesuffix("reset") + "remaining"
            reset = until(timestamp(value), now)
        else:
            continue
        left = number(headers.get(remaining))
        if left is not None and reset is not None:
            yield limit, left, reset


def _tightest(headers: Mapping[str, str], unit: str, now: float) -> tuple[int, float] | None:
    # As a word of the name: "project-tokens" is OpenAI's, "input-tokens" Anthropic's, "tokens-minute" Cerebras's.
    found = [(int(left), reset) for limit, left, reset in reported_limits(headers, now) if unit in limit.split("-")]
    return min(found, key=lambda each: (each[0], -each[1]), default=None)
