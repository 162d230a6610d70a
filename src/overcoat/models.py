"""What a model's name says: the provider and the provider's own name for the model."""

from __future__ import annotations

from typing import NamedTuple


class ModelName(NamedTuple):
    """A model's name taken apart.

    Attributes:
        provider: OpenTelemetry's `gen_ai.provider.name` (semantic conventions 1.41), or the prefix as it was written
            where the conventions list none; None where the name does not say.
        model: The provider's own name for the model.
    """

    provider: str | None
    model: str


# litellm's prefixes, where they differ from the conventions' names.
_PREFIXES = {
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "custom_openai": "openai",
    "deepseek": "deepseek",
    "gemini": "gcp.gemini",
    "groq": "groq",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "openai": "openai",
    "perplexity": "perplexity",
    "text-completion-openai": "openai",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}

# How families begin that only one provider serves under a bare name.
_FAMILIES = (
    (("gpt-", "chatgpt-", "o1", "o3", "o4"), "openai"),
    (("claude-",), "anthropic"),
    (("gemini-",), "gcp.gemini"),
    (("command-",), "cohere"),
    (("mistral-", "codestral-", "ministral-"), "mistral_ai"),
    (("deepseek-",), "deepseek"),
    (("grok-",), "x_ai"),
)


def parse_model(name: str) -> ModelName:
    """Take *name* apart as litellm would, such as "azure/gpt-4o", "gpt-4o" or "openrouter/openai/gpt-4o"."""
    prefix, slash, rest = name.partition("/")
    if slash and rest:
        return ModelName(_PREFIXES.get(prefix, prefix), rest)
    for beginnings, provider in _FAMILIES:
        if name.startswith(beginnings):
            return ModelName(provider, name)
    return ModelName(None, name)
