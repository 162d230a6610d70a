"""Holds the reading of model names to litellm's spellings and to OpenTelemetry's names of providers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.models import _FAMILIES, _PREFIXES, ModelName, counts_thoughts_apart, parse_model

# `gen_ai.provider.name`, semantic conventions 1.41 and what they have got since; written out, since the package that
# holds them as constants has moved them to another repository.
CONVENTIONS = {
    "anthropic", "aws.bedrock", "azure.ai.inference", "azure.ai.openai", "cohere", "deepseek", "gcp.gemini",
    "gcp.gen_ai", "gcp.vertex_ai", "groq", "ibm.watsonx.ai", "mistral_ai", "moonshot_ai", "openai", "perplexity",
    "x_ai",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("gpt-4o", "openai", "gpt-4o"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("o3-mini", "openai", "o3-mini"),
        ("azure/my-deployment", "azure.ai.openai", "my-deployment"),
        ("azure_ai/mistral-large", "azure.ai.inference", "mistral-large"),
        ("anthropic/claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("claude-3-5-haiku-20241022", "anthropic", "claude-3-5-haiku-20241022"),
        ("bedrock/us.amazon.nova-pro-v1:0", "aws.bedrock", "us.amazon.nova-pro-v1:0"),
        ("vertex_ai/gemini-2.5-pro", "gcp.vertex_ai", "gemini-2.5-pro"),
        ("gemini/gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash"),
        ("gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash"),
        ("groq/openai/gpt-oss-120b", "groq", "openai/gpt-oss-120b"),
        ("mistral/mistral-large-latest", "mistral_ai", "mistral-large-latest"),
        ("codestral-latest", "mistral_ai", "codestral-latest"),
        ("xai/grok-4", "x_ai", "grok-4"),
        ("deepseek-chat", "deepseek", "deepseek-chat"),
        ("command-r-plus-08-2024", "cohere", "command-r-plus-08-2024"),
        ("sonar-pro", "perplexity", "sonar-pro"),
        ("gpt-realtime", "openai", "gpt-realtime"),
        ("grok-code-fast-1", "x_ai", "grok-code-fast-1"),
        ("openrouter/openai/gpt-4o", "openrouter", "openai/gpt-4o"),
        ("ollama/llama3", "ollama", "llama3"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "aws.bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("amazon.nova-pro-v1:0", "aws.bedrock", "amazon.nova-pro-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "aws.bedrock", "amazon.nova-pro-v1:0"),
        ("projects/p/locations/l/publishers/google/models/gemini-2.5-pro", "gcp.vertex_ai", "gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.5-pro", "gcp.vertex_ai", "gemini-2.5-pro"),
        ("models/gemini-2.5-flash", "gcp.gemini", "gemini-2.5-flash"),
        ("llama3", None, "llama3"),
        ("ft:gpt-4o-2024-08-06:acme::id", None, "ft:gpt-4o-2024-08-06:acme::id"),
        ("my-gpt-4o", None, "my-gpt-4o"),
        ("openai/", None, "openai/"),
        ("", None, ""),
    ],
)  # fmt: skip
def test_names(name, provider, model):
    assert parse_model(name) == ModelName(provider, model)


@pytest.mark.parametrize("prefix", sorted(_PREFIXES))
def test_a_prefix_says_who_serves_whatever_the_model_is_called(prefix):
    """A gateway may serve another provider's model: "azure/claude-..." is Azure's."""
    assert parse_model(f"{prefix}/claude-sonnet-4-5") == ModelName(_PREFIXES[prefix], "claude-sonnet-4-5")


@pytest.mark.parametrize("provider", sorted({*_PREFIXES.values(), *(provider for _, provider in _FAMILIES)}))
def test_providers_are_named_as_the_conventions_name_them(provider):
    assert provider in CONVENTIONS


@given(st.text())
def test_any_text_is_taken_apart_and_nothing_is_lost(name):
    provider, model = parse_model(name)
    assert name.endswith(model)
    assert bool(model) == bool(name)
    if model != name:
        prefix = name.removesuffix(f"/{model}")
        assert "/" not in prefix
        assert provider == _PREFIXES.get(prefix, prefix)


def test_an_empty_prefix_names_no_provider():
    assert parse_model("/gpt-4o") == ModelName(None, "/gpt-4o")


@pytest.mark.parametrize(
    "name",
    [
        "gpt-oss-20b", "gpt-neox-20b", "gpt-j-6b", "o200k", "command-r", "command-r:35b", "command-r-plus", "command-a",
        "mistral", "mistral:latest", "mistral-nemo", "mistral-small-24b-instruct-2501", "codestral:22b",
        "ministral-8b-instruct-2410", "deepseek-r1:7b", "deepseek-r1-distill-llama-70b", "deepseek-v3.2",
        "deepseek-coder", "deepseek-chat:7b", "grok-1", "grok-2", "gemma-3", "kimi-k2", "llama-3.1-sonar-small",
    ],
)  # fmt: skip
def test_open_models_belong_to_no_provider(name):
    """Priced as their maker's, a model of one's own would be billed; the spellings are Ollama's and Hugging Face's."""
    assert parse_model(name) == ModelName(None, name)


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("gemini/gemini-2.5-pro", True),
        ("openrouter/google/Gemini-3-pro", True),
        ("gpt-4o", False),
        ("", False),
        (None, False),
    ],
)
def test_whose_thoughts_may_be_in_the_total_only(name, apart):
    assert counts_thoughts_apart(name) is apart
