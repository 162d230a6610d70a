"""What providers say that a request used, over real litellm and HTTP: normalised, priced, and equal for all of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from overcoat import LiteLLMClient, LiteLLMOptions, LLMEvent, Meter, Usage, capture, stack
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Provider, raw

from .litellm_loop import run
from .parts import need

CHAT = [{"role": "user", "content": "Why?"}]
# Dollars that are told apart: plain, cached, written, written for an hour; answered, reasoned, heard.
KINDS = {"cache_read": "0.1", "cache_creation": "1.25", "cache_creation_1h": "2", "reasoning": "10", "audio_input": "7"}
RATES = Rates((Tier(0, Decimal(1), Decimal(10), **{kind: Decimal(rate) for kind, rate in KINDS.items()}),), "test")


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    module = need("litellm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "suppress_debug_info", True)  # else it prints advice
        yield


@pytest.fixture(scope="module")
def provider():
    with Provider() as running:
        yield running


def openai(usage: dict[str, Any], **fields: Any) -> dict[str, Any]:
    message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Because."}}
    return {"id": "1", "model": "m", "object": "chat.completion", "choices": [message], "usage": usage, **fields}


def anthropic(usage: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": "Because."}]
    said = {"id": "1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    return {**said, "content": content, "usage": usage}


def gemini(usage: dict[str, Any]) -> dict[str, Any]:
    answer = {"content": {"parts": [{"text": "Because."}], "role": "model"}, "finishReason": "STOP", "index": 0}
    return {"candidates": [answer], "modelVersion": "m", "responseId": "1", "usageMetadata": usage}


class Said(NamedTuple):
    """What goes over the wire, and what is to be billed for it."""

    model: str
    body: dict[str, Any]
    usage: Usage
    cost: str
    upper_bound: bool = False
    anomaly: str | None = None
    service: str | None = None


SAID = {
    "openai, cached and reasoned": Said(
        "openai/gpt-5",
        openai(
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 80, "audio_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
            },
            service_tier="default",
        ),
        Usage(100, 50, 150, 80, None, 30, None, 5, 0),
        "558",  # 15 plain, 80 x 0.1, 5 x 7, 50 x 10
        service="default",
    ),
    "openai, with nothing but the three counts": Said(
        "openai/gpt-5",
        openai({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}),
        Usage(100, 50, 150),
        "600",
        upper_bound=True,
    ),
    "like openai, with reasoning beside the answer": Said(
        "openai/grok",
        openai(
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 30},
            }
        ),
        Usage(100, 50, 150, 0, None, 30),
        "600",
    ),
    "like openai, and wrong": Said(
        "openai/gateway",
        openai(
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 99,
                "prompt_tokens_details": {"cached_tokens": 80},
            }
        ),
        Usage(10, 5),
        "60",
        upper_bound=True,
        anomaly="total_mismatch",
    ),
    "anthropic, cached for five minutes and for an hour": Said(
        "anthropic/claude-sonnet-4-5",
        anthropic(
            {
                "input_tokens": 20,
                "output_tokens": 50,
                "cache_read_input_tokens": 70,
                "cache_creation_input_tokens": 10,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
                "service_tier": "standard",
            }
        ),
        Usage(100, 50, 150, 70, 10, 0, 6),
        "544",  # 20 plain, 70 x 0.1, 4 x 1.25, 6 x 2, 50 x 10
        service="standard",
    ),
    "gemini, cached and thought": Said(
        "gemini/gemini-2.5-pro",
        gemini(
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 20,
                "thoughtsTokenCount": 30,
                "totalTokenCount": 150,
                "cachedContentTokenCount": 60,
            }
        ),
        Usage(100, 50, 150, 60, None, 30),
        "546",
    ),
    "gemini, whose thoughts are in the total only, and whose zeros are not said": Said(
        "gemini/gemini-2.5-pro",
        gemini({"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 150}),
        Usage(100, 50, 150, 0),
        "600",
    ),
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_what_is_said_is_billed(provider, said):
    """And what the caller sees on the event is what is billed."""
    client = LiteLLMClient(said.model, base_url=provider.url, api_key="any")
    provider.reset()
    provider.script(raw(body=said.body))
    own = LLMEvent(prompt=CHAT, type="test")
    with capture() as calls:
        run(stack(client, Meter(prices=lambda model, now: RATES)).call(CHAT, LiteLLMOptions(), own))
    (attempt,) = calls[0].attempts
    assert (attempt.usage, attempt.anomaly, attempt.service_tier) == (said.usage, said.anomaly, said.service)
    assert (attempt.cost, attempt.upper_bound) == (Decimal(said.cost), said.upper_bound)
    assert (own.prompt_tokens, own.completion_tokens) == (said.usage.input_tokens, said.usage.output_tokens)
