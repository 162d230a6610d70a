"""Compares the two tables of prices on popular models, and holds the file of their disagreements to being complete."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from overcoat import Usage
from overcoat.pricing import genai, litellm_map
from overcoat.pricing.rates import PriceSource
from overcoat.pricing.sources import DEFAULT, Chain

FILE = Path(__file__).with_name("disagreements.yaml")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
POPULAR = """
    openai/gpt-3.5-turbo openai/gpt-4-turbo openai/gpt-4o openai/gpt-4o-mini openai/gpt-4.1 openai/gpt-5
    openai/gpt-5-mini openai/gpt-5.4 openai/o3 openai/o4-mini
    azure/gpt-4o azure/gpt-4.1
    anthropic/claude-3-5-haiku-20241022 anthropic/claude-3-7-sonnet-20250219 anthropic/claude-haiku-4-5
    anthropic/claude-opus-4-1 anthropic/claude-opus-4-5 anthropic/claude-sonnet-4-20250514 anthropic/claude-sonnet-4-5
    bedrock/anthropic.claude-sonnet-4-20250514-v1:0 bedrock/us.amazon.nova-pro-v1:0
    bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0
    gemini/gemini-2.0-flash gemini/gemini-2.5-flash gemini/gemini-2.5-pro vertex_ai/gemini-2.5-pro
    mistral/codestral-latest mistral/mistral-large-latest
    deepseek/deepseek-chat deepseek/deepseek-reasoner
    groq/llama-3.3-70b-versatile together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo
    fireworks_ai/accounts/fireworks/models/deepseek-v3
    xai/grok-4 xai/grok-4-fast perplexity/sonar perplexity/sonar-pro cohere/command-r-plus-08-2024
    openrouter/openai/gpt-4o openrouter/anthropic/claude-sonnet-4.5
""".split()  # noqa: SIM905 - forty names are read by people
REQUESTS = [Usage(10_000, 1_000, None, 0), Usage(10_000, 1_000, None, 8_000), Usage(300_000, 10_000, None, 0)]


@pytest.fixture(autouse=True)
def _litellm():
    """Its real map; read from its package, as LITELLM_LOCAL_MODEL_COST_MAP says."""
    pytest.importorskip("litellm")
    assert len(sys.modules["litellm"].model_cost) > 1000


def prices(source: PriceSource, model: str) -> Any:
    """Return the dollars that each request costs, as the file has them."""
    rates = source(model, NOW)
    return "unknown" if rates is None else [f"{rates.cost(usage).normalize():f}" for usage in REQUESTS]


def disagreements() -> Iterator[tuple[str, Any, Any]]:
    for model in POPULAR:
        ours, theirs = prices(genai.rates, model), prices(litellm_map.rates, model)
        if ours != theirs:
            yield model, ours, theirs


def test_forty_models_are_compared():
    assert len(set(POPULAR)) == 40
    assert all(Chain(DEFAULT)(model, NOW) is not None for model in POPULAR)


def test_every_disagreement_is_in_the_file_as_it_is():
    """Where this fails a table has changed: look at the provider's page, and write down what was found."""
    listed = yaml.safe_load(FILE.read_text())["disagreements"]
    assert [(each["model"], each["genai-prices"], each["litellm"]) for each in listed] == list(disagreements())


def test_the_choice_is_what_happens_and_has_a_reason():
    for each in yaml.safe_load(FILE.read_text())["disagreements"]:
        assert Chain(DEFAULT)(each["model"], NOW).source.split()[0] == each["choice"]
        assert each["why"].count(". ") == 0, "one sentence"
        assert each["why"].endswith(".")
