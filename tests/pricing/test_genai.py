"""Holds our flat rates to what genai-prices itself computes, and the spellings of models to being found."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, Rounded, Subnormal, localcontext
from typing import NamedTuple

import genai_prices
import pytest
from genai_prices.types import Usage as GenaiUsage
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat.accounting import Usage
from overcoat.pricing.genai import rates


class Known(NamedTuple):
    """A model as callers spell it, and as genai-prices wants it."""

    model: str
    provider: str
    name: str


KNOWN = [
    Known(model, provider, name or model.partition("/")[2] or model)
    for model, provider, name in [
        ("gpt-4o", "openai", ""),
        ("openai/gpt-4o-mini", "openai", ""),
        ("gpt-4.1", "openai", ""),
        ("gpt-4-turbo", "openai", ""),
        ("gpt-3.5-turbo", "openai", ""),
        ("gpt-5", "openai", ""),
        ("gpt-5.4", "openai", ""),  # a tier at 272k
        ("o3", "openai", ""),
        ("o4-mini", "openai", ""),
        ("azure/gpt-4o", "azure", ""),
        ("openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("openrouter/x-ai/grok-4-fast", "openrouter", "x-ai/grok-4-fast"),  # a tier without a price for cached input
        ("anthropic/claude-sonnet-4-5", "anthropic", ""),  # a tier at 200k
        ("claude-opus-4-1", "anthropic", ""),
        ("claude-3-5-haiku-20241022", "anthropic", ""),
        ("bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0", "aws", ""),
        ("vertex_ai/gemini-2.5-pro", "google", ""),  # a tier at 200k
        ("gemini/gemini-2.5-flash", "google", ""),
        ("gemini-2.0-flash", "google", ""),
        ("groq/llama-3.3-70b-versatile", "groq", ""),
        ("together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo", "together", ""),
        ("mistral/mistral-large-latest", "mistral", ""),
        ("deepseek/deepseek-chat", "deepseek", ""),  # another price at night
        ("xai/grok-4", "x-ai", ""),
        ("perplexity/sonar-pro", "perplexity", ""),  # a price for each request
        ("cohere_chat/command-r-plus", "cohere", ""),
        ("moonshot/kimi-k2-0711-preview", "moonshotai", ""),
    ]
]

_moments = st.floats(datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2027, 1, 1, tzinfo=UTC).timestamp())
_inputs = st.integers(0, 10**6) | st.sampled_from([128_000, 128_001, 200_000, 200_001, 272_000, 272_001])


@st.composite
def _usages(draw):
    total_in = draw(_inputs)
    read = draw(st.just(0) | st.integers(0, total_in))
    return Usage(total_in, draw(st.integers(0, 10**5)), None, read, draw(st.just(0) | st.integers(0, total_in - read)))


def theirs(known, usage, now):
    """Ask genai-prices the whole question at once, tokens and moment included."""
    counts = GenaiUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_input_tokens or 0,
        cache_write_tokens=usage.cache_creation_input_tokens or 0,
    )
    when = datetime.fromtimestamp(now, UTC)
    return genai_prices.calc_price(
        counts, known.name, provider_id=known.provider, genai_request_timestamp=when
    ).total_price


@pytest.mark.parametrize("known", KNOWN, ids=[known.model for known in KNOWN])
@settings(max_examples=30)
@given(usage=_usages(), now=_moments)
def test_the_price_is_theirs(known, usage, now):
    """Plain, cached, beyond a tier, on any day and at any hour: the shortcut through flat rates changes no digit."""
    found = rates(known.model, now)
    assert found is not None
    assert found.cost(usage) == theirs(known, usage, now)


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "spellings",
    [
        (
            "gpt-4o", "openai/gpt-4o", "custom_openai/gpt-4o", "azure/gpt-4o", "azure_ai/gpt-4o",
            "openrouter/openai/gpt-4o",
        ),
        ("gemini-2.5-pro", "gemini/gemini-2.5-pro", "vertex_ai/gemini-2.5-pro", "vertex_ai_beta/gemini-2.5-pro"),
        ("claude-opus-4-1", "anthropic/claude-opus-4-1", "openrouter/anthropic/claude-opus-4.1"),
        (
            "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0",
            "bedrock/converse/anthropic.claude-3-5-sonnet-20240620-v1:0",
            "bedrock_converse/us.anthropic.claude-3-5-sonnet-20240620-v1:0",
        ),
        ("mistral-large-latest", "mistral/mistral-large-latest"),
        ("grok-4", "xai/grok-4"),
        ("deepseek-chat", "deepseek/deepseek-chat"),
    ],
    ids=lambda spellings: spellings[0],
)  # fmt: skip
def test_spellings_of_one_model_cost_the_same(spellings):
    """As litellm spells them: genai-prices alone knows few of these."""
    usage = Usage(1_000, 100)
    prices = {spelling: found and found.cost(usage) for spelling in spellings for found in [rates(spelling, NOW)]}
    assert len(set(prices.values())) == 1, prices
    assert prices[spellings[0]]


@pytest.mark.parametrize(
    "model",
    [
        "", "/", "openai/", "nope", "scripted", "router", "llama3", "ollama/llama3", "hosted_vllm/mistral",
        "nobody/gpt-4o", "gpt-99", "gpt-4o-nonexistent", "claude-nonexistent-9", "anthropic/claude-nonexistent-9",
        "azure/my-deployment", "ft:gpt-4o-2024-08-06:acme::id", "gpt-4o\0", "\U0001f600", "x" * 10_000,
    ],
    ids=lambda model: repr(model)[:40],
)  # fmt: skip
def test_an_unknown_model_has_no_price(model):
    """None, and never 0: litellm calls claude-nonexistent-9 free."""
    assert rates(model, NOW) is None


@given(st.text())
def test_no_name_of_a_model_raises(model):
    assert rates(model, NOW) is None or rates(model, NOW).tiers


def test_a_price_is_that_of_its_day():
    """o3 became cheaper by four fifths in June 2025; what was used before is not repriced."""
    usage = Usage(1_000_000, 0)
    may, later = (datetime(2025, month, 20, tzinfo=UTC).timestamp() for month in (5, 7))
    assert (rates("o3", may).cost(usage), rates("openai/o3", later).cost(usage)) == (10, 2)


def test_a_price_is_that_of_its_hour():
    """deepseek-chat is cheaper from 16:30 to 00:30 UTC."""
    day, night = (datetime(2026, 11, 23, hour, tzinfo=UTC).timestamp() for hour in (12, 20))
    usage = Usage(1_000_000, 0)
    assert rates("deepseek-chat", night).cost(usage) * 2 == rates("deepseek-chat", day).cost(usage)


def test_tiers_begin_behind_their_number():
    found = rates("gemini-2.5-pro", NOW)
    assert [tier.above for tier in found.tiers] == [0, 200_000]
    assert found.cost(Usage(200_001, 0)) > 2 * found.cost(Usage(200_000, 0)) * Decimal("0.99")


def test_the_source_and_its_version_are_stamped():
    assert rates("gpt-4o", NOW).source == f"genai-prices {genai_prices.__version__}"


def test_what_is_not_priced_by_tokens_has_no_price():
    """Speech is priced by the hour: that a call reported no tokens does not make it free."""
    assert rates("groq/whisper-large-v3", NOW) is None


@pytest.mark.parametrize(
    "model",
    [
        "gpt-oss-20b", "deepseek-r1:7b", "deepseek-r1-distill-llama-70b", "mistral-nemo", "command-r", "kimi-k2",
        "mixtral-8x7b", "minimax-m3",
    ],
)  # fmt: skip
def test_open_models_have_no_price_by_their_bare_name(model):
    """Who serves them decides what they cost, and often one does oneself; "deepseek-r1:7b" is Ollama's own spelling."""
    assert rates(model, NOW) is None


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "perplexity/sonar-pro", "gpt-4o"])
def test_rates_do_not_depend_on_the_caller_s_decimal_context(model):
    """An application may round to cents, or forbid rounding; prices a token have ten digits and more."""
    expected = rates(model, NOW)
    with localcontext(Context(prec=1)):
        assert rates(model, NOW) == expected
    with localcontext(Context(prec=1, traps=[Inexact, Rounded, Subnormal])):
        assert rates(model, NOW) == expected


def test_services_have_their_prices():
    """As genai-prices has them: half in a batch, more where one is preferred."""
    found = rates("gpt-4o", NOW)
    usage = Usage(1_000, 100, cache_read_input_tokens=0)
    assert found.cost(usage, "batch") * 2 == found.cost(usage) < found.cost(usage, "priority")
    assert "default" not in found.services
    assert found.context_window == 128_000


def test_what_is_kept_for_an_hour_costs_more():
    found = rates("claude-sonnet-4-5", NOW)
    written = Usage(1_000, 0, cache_creation_input_tokens=1_000)
    longer = Usage(1_000, 0, cache_creation_input_tokens=1_000, cache_creation_1h_input_tokens=1_000)
    assert found.cost(Usage(1_000, 0)) < found.cost(written) < found.cost(longer)
