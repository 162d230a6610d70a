"""`overcoat demo`: real litellm, over real HTTP, against a provider that misbehaves by a script."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from decimal import Decimal

from rich.console import Console

from overcoat import (
    Cache,
    Call,
    Deadline,
    LiteLLMClient,
    LiteLLMOptions,
    LLMError,
    LLMEvent,
    Meter,
    OvercoatError,
    Retry,
    Timeout,
    Trace,
    __version__,
    capture,
    stack,
)
from overcoat.telemetry import Telemetry, setup
from overcoat.testing import Provider, answer, empty_choices, insufficient_quota, rate_limited, slow, truncated

MODEL = "openai/gpt-4o-mini"


def dressed(client: LiteLLMClient) -> LiteLLMClient:
    """Put the layers around *client*: this is all that an application has to write."""
    return stack(
        client,
        Trace(),
        Deadline("10s"),
        Cache(ttl="1h"),
        Retry(max_attempts=3),
        Timeout("1500ms"),
        Meter(),
    )
