"""What a model's name says: the provider and the provider's own name for the model."""

from __future__ import annotations

import re
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

# Bare names that can only be meant for their maker's API: those of closed models and, of makers whose weights anyone
# may serve (gpt-oss, command-r, mistral-nemo, deepseek-r1), aliases and releases that are no weights' names.
_FAMILIES = (
    (r"(gpt-([0-9]|audio|chat|realtime)|chatgpt-|o[0-9](-|$))", "openai"),
    (r"claude-", "anthropic"),
    (r"gemini-", "gcp.gemini"),
    (r"command-.+-[0-9]{2}-20[0-9]{2}$", "cohere"),
    (r"(mistral|codestral|ministral)-(.+-)?latest$", "mistral_ai"),
    (r"deepseek-(chat|reasoner)$", "deepseek"),
    (r"grok-([4-9]|code-)", "x_ai"),
    (r"sonar(-|$)", "perplexity"),
    # Bedrock's own: a vendor before a dot, and before that the region that an inference profile may choose.
    (
        r"((apac|au|ca|eu|global|jp|us|us-gov)\.)?(ai21|amazon|anthropic|cohere|meta|mistral|openai|qwen)\.",
        "aws.bedrock",
    ),
)

_RESOURCES = (
    # As Google and Amazon write them in full: the model is behind the last slash.
    (r"arn:aws[a-z-]*:bedrock:", "aws.bedrock"),
    (r"(projects/.+/)?publishers/google/models/", "gcp.vertex_ai"),
    (r"models/gemini-", "gcp.gemini"),
)


def parse_model(name: str) -> ModelName:
    """Take *name* apart as litellm would, such as "azure/gpt-4o", "gpt-4o" or "openrouter/openai/gpt-4o"."""
    for resource, provider in _RESOURCES:
        if "/" in name and re.match(resource, name):
            return ModelName(provider, name.rpartition("/")[2])
    prefix, slash, rest = name.partition("/")
    if prefix and slash and rest:
        return ModelName(_PREFIXES.get(prefix, prefix), rest)
    for family, provider in _FAMILIES:
        if re.match(family, name):  # which compiles it at the first name: the import need not
            return ModelName(provider, name)
    return ModelName(None, name)


def counts_thoughts_apart(name: object) -> bool:
    """Say whether the model of that *name* may count its thoughts in the total of its tokens only: one of Gemini's."""
    return isinstance(name, str) and "gemini" in name.lower()
