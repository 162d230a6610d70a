"""Says on db-ally's own event what it has no fields for, in a way that type checkers accept."""

from __future__ import annotations

from typing import Any


def report(
    event: Any,
    *,
    finish_reason: str | None = None,
    response_id: str | None = None,
    response_model: str | None = None,
    cached_tokens: int | None = None,
    cache_creation_tokens: int | None = None,
    cache_creation_1h_tokens: int | None = None,
    reasoning_tokens: int | None = None,
    audio_input_tokens: int | None = None,
    audio_output_tokens: int | None = None,
    service_tier: str | None = None,
) -> None:
    """Set on *event* what the provider said, for a client's `call`; what is None is left as it is.

    db-ally's `LLMEvent` takes any attribute and declares three counts. From there these reach the record, the spans
    and the cache, which keeps no answer whose `finish_reason` says that it is not whole.

    Args:
        event: The `event` of `call`.
        finish_reason: Why the answer ended: "stop", "length", "content_filter", ...
        response_id: The provider's name for the answer.
        response_model: The model that answered.
        cached_tokens: Prompt tokens that the provider read from its cache.
        cache_creation_tokens: Prompt tokens that the provider wrote to its cache.
        cache_creation_1h_tokens: Those of them that it keeps for an hour.
        reasoning_tokens: Tokens of the answer that were spent on reasoning.
        audio_input_tokens: Prompt tokens that are sound.
        audio_output_tokens: Tokens of the answer that are sound.
        service_tier: What the provider served the request by, where prices differ, such as "flex".
    """
    said = {
        "finish_reason": finish_reason,
        "response_id": response_id,
        "response_model": response_model,
        "cached_tokens": cached_tokens,
        "cache_creation_tokens": cache_creation_tokens,
        "cache_creation_1h_tokens": cache_creation_1h_tokens,
        "reasoning_tokens": reasoning_tokens,
        "audio_input_tokens": audio_input_tokens,
        "audio_output_tokens": audio_output_tokens,
        "service_tier": service_tier,
    }
    for name, value in said.items():
        if value is not None:
            setattr(event, name, value)
