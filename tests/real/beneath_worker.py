"""A process whose OpenAI SDK is instrumented by someone else, beneath a stack: what both emitted, as JSON on stdout."""

import asyncio
import json
import sys
from importlib import import_module

from opentelemetry import metrics, trace

from overcoat import LiteLLMClient, LiteLLMOptions, LLMEvent, Meter, Retry, Trace, capture, stack
from overcoat.layers.retry import Backoff
from overcoat.telemetry import names
from overcoat.testing import InMemoryTelemetry, Provider, answer, error

INSTRUMENTATIONS = {
    "genai": ("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor"),
    "openllmetry": ("opentelemetry.instrumentation.openai", "OpenAIInstrumentor"),
    "openinference": ("openinference.instrumentation.openai", "OpenAIInstrumentor"),
    "httpx": ("opentelemetry.instrumentation.httpx", "HTTPXClientInstrumentor"),
}


class PlainClient:
    """What one writes in five minutes: the official SDK, and db-ally's three counts."""

    def __init__(self, model, url):
        from openai import AsyncOpenAI

        self.model_name = model
        self._sdk = AsyncOpenAI(base_url=url, api_key="any", max_retries=0)

    async def call(self, conversation, options, event, json_mode=False):
        made = await self._sdk.chat.completions.create(model=self.model_name.partition("/")[2], messages=conversation)
        used = made.usage
        event.prompt_tokens, event.completion_tokens = used.prompt_tokens, used.completion_tokens
        event.total_tokens = used.total_tokens
        return made.choices[0].message.content

    async def close(self):
        await self._sdk.close()


class SilentClient(PlainClient):
    """The same, without a word on what it used."""

    async def call(self, conversation, options, event, json_mode=False):
        return await super().call(conversation, options, LLMEvent([], "nobody's"), json_mode)


async def perform(kind, telemetry):
    """Make one call that is retried once, through a stack or by the bare client, and return its record."""
    with Provider() as provider, capture() as calls:
        provider.script(error(503), answer("hi", prompt_tokens=100, completion_tokens=20, cached_tokens=60))
        model = "openai/gpt-4o-mini"
        made = {"plain": PlainClient, "silent": SilentClient}.get(kind)
        if made is not None:
            client = made(model, provider.url)
        else:
            client = LiteLLMClient(model, base_url=provider.url, api_key="any")
        event = LLMEvent([], "test")
        stacked = stack(client, Trace(), Retry(backoff=Backoff(base="1ms")), Meter())
        await stacked.call([{"role": "user", "content": "hi"}], LiteLLMOptions(), event)
        if made is not None:
            await client.close()
        else:
            import litellm

            await litellm.close_litellm_async_clients()
    (call,) = calls
    said = {
        "attempts": [
            {
                "error": attempt.error_type,
                "response_id": attempt.response_id,
                "response_model": attempt.response_model,
                "finish_reason": attempt.finish_reason,
                "cached": attempt.usage and attempt.usage.cache_read_input_tokens,
            }
            for attempt in call.attempts
        ],
        "billed": str(call.cost.billed),
        "upper_bound": any(attempt.upper_bound for attempt in call.attempts),
        "event": [event.prompt_tokens, event.completion_tokens],
    }
    by_id = {span.context.span_id: span.name for span in telemetry.spans}
    said["spans"] = [
        {
            "name": span.name,
            "by": span.instrumentation_scope.name,
            "in": by_id.get(span.parent.span_id) if span.parent else None,
            "tokens": sorted(name for name in span.attributes if "token" in name),
        }
        for span in telemetry.spans
    ]
    said["tokens"] = {
        kind: telemetry.total(names.TOKEN_USAGE, {names.TOKEN_TYPE: kind}) for kind in ("input", "output")
    }
    said["durations"] = sum(point.count for point in telemetry.points(names.OPERATION_DURATION).values())
    said["dollars"] = telemetry.total(names.METRIC_COST_BILLED)
    return said


def main(instrumentations, kind):
    telemetry = InMemoryTelemetry()
    trace.set_tracer_provider(telemetry.tracer_provider)
    metrics.set_meter_provider(telemetry.meter_provider)
    for name in instrumentations.split(","):
        module, instrumentor = INSTRUMENTATIONS[name]
        getattr(import_module(module), instrumentor)().instrument()
    print(json.dumps(asyncio.run(perform(kind, telemetry))))


if __name__ == "__main__":
    main(*sys.argv[1:])
