"""Test what is built on LLM clients: no network, no key, no waiting.

A provider over real HTTP, for everything that claims to work with litellm, openai or any other SDK; it answers, refuses
and breaks by a script, and counts what reaches it:

```python
from overcoat.testing import Provider, answer, dropped, rate_limited

with Provider() as provider:
    provider.script(rate_limited(retry_after=0.1), dropped(), answer("At last.", prompt_tokens=20))
    client = LiteLLMClient("openai/gpt-4o", base_url=provider.url, api_key="any")
    ...
    assert len(provider) == 3
```

A client by db-ally's interface without any HTTP, and a clock that does not wait: `run` is `asyncio.run` in virtual
time, where an hour's backoff takes a millisecond and is an hour exactly, and a deadlock is an error instead of a hang:

```python
from overcoat.testing import Answer, ScriptedClient, run

client = ScriptedClient(TimeoutError, "Hello!", Answer("Slowly.", completion_tokens=7, delay=3600))
run(exercise(stack(client, Retry())))
assert len(client.calls) == 3
```

What a stack's `Trace` would export is kept in memory by `InMemoryTelemetry`, with the real SDK.

For pytest, `pytest_plugins = ["overcoat.testing.fixtures"]` in the top `conftest.py` brings the fixture `provider`.
"""

from .in_memory import InMemoryTelemetry
from .provider import Provider
from .scripted import Answer, ScriptedCall, ScriptedClient, ScriptExhaustedError
from .steps import (
    Received,
    Step,
    answer,
    anthropic_answer,
    anthropic_error,
    content_filter_refused,
    context_length_exceeded,
    dropped,
    empty_choices,
    error,
    error_body_with_200,
    filtered,
    insufficient_quota,
    invalid_json,
    rate_limited,
    raw,
    slow,
    truncated,
)
from .virtual_time import DeadlockError, VirtualTimeLoop, run

__all__ = [
    "Answer",
    "DeadlockError",
    "InMemoryTelemetry",
    "Provider",
    "Received",
    "ScriptExhaustedError",
    "ScriptedCall",
    "ScriptedClient",
    "Step",
    "VirtualTimeLoop",
    "answer",
    "anthropic_answer",
    "anthropic_error",
    "content_filter_refused",
    "context_length_exceeded",
    "dropped",
    "empty_choices",
    "error",
    "error_body_with_200",
    "filtered",
    "insufficient_quota",
    "invalid_json",
    "rate_limited",
    "raw",
    "run",
    "slow",
    "truncated",
]
