"""overcoat and its peers in one process, each over the same call of its own kind without what is measured."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import openai
import pydantic_ai.models
from floor import MODEL, RESPONSE_MODEL, Discard, Floor, Provider, Yardstick, providers
from httpx import AsyncClient, MockTransport, Response
from langchain_core.runnables import RunnableLambda
from measure import Variant, measure, table, versions
from openai.resources.chat.completions import AsyncCompletions
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from overhead import Tenacious, layers, traced
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.instrumented import InstrumentationSettings, InstrumentedModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from overcoat import stack

Sdk = tuple[TracerProvider, MeterProvider]

PACKAGES = (
    "opentelemetry-sdk",
    "pydantic-ai-slim",
    "openai",
    "openinference-instrumentation-openai",
    "opentelemetry-instrumentation-openai",
    "langchain-core",
    "litellm",
    "tenacity",
)
ANSWER = "SELECT name FROM customers ORDER BY revenue DESC LIMIT 1"
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-BdPPq6lZ3V5Xw8a1",
    "object": "chat.completion",
    "created": 1750000000,
    "model": RESPONSE_MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ANSWER}}],
    "usage": {"prompt_tokens": 250, "completion_tokens": 40, "total_tokens": 290},
}


class Model(pydantic_ai.models.Model):
    """The least that pydantic-ai takes for a model."""

    @property
    def model_name(self) -> str:
        """The model's name, as prices know it."""
        return MODEL

    @property
    def system(self) -> str:
        """The provider's name."""
        return "openai"

    async def request(self, messages: Any, model_settings: Any, model_request_parameters: Any) -> ModelResponse:  # noqa: ARG002
        """Answer."""
        return ModelResponse(
            parts=[TextPart(ANSWER)],
            usage=RequestUsage(input_tokens=250, output_tokens=40),
            model_name=RESPONSE_MODEL,
            provider_name="openai",
            provider_response_id=COMPLETION["id"],
            finish_reason="stop",
        )


class Pydantic:
    """A request to a model of pydantic-ai's."""

    def __init__(self, model: pydantic_ai.models.Model) -> None:
        self._model = model
        self._settings = ModelSettings(temperature=0.0, max_tokens=512)
        self._parameters = pydantic_ai.models.ModelRequestParameters()

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:  # noqa: ARG002
        """Answer."""
        messages: list[ModelMessage] = [ModelRequest([UserPromptPart(conversation[1]["content"])])]
        return await self._model.request(messages, self._settings, self._parameters)


class OpenAI:
    """A request through openai's SDK, all of it but the network."""

    def __init__(self) -> None:
        transport = MockTransport(lambda _: Response(200, json=COMPLETION))
        self._client = openai.AsyncOpenAI(api_key="none", http_client=AsyncClient(transport=transport), max_retries=0)

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:  # noqa: ARG002
        """Answer."""
        return await self._client.chat.completions.create(
            model=MODEL, messages=conversation, temperature=0.0, max_tokens=512
        )


class LangChain:
    """A runnable of langchain's around the call."""

    def __init__(self, wrap: Callable[[Any], Any]) -> None:
        provider = Provider()

        async def answer(arguments: tuple[Any, Any, Any]) -> str:
            return await provider.call(*arguments)

        self._runnable = wrap(RunnableLambda(answer))

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:
        """Answer."""
        return await self._runnable.ainvoke((conversation, options, event))


class LiteLLM:
    """A request through litellm, answered by its own mock."""

    def __init__(self, complete: Callable[..., Any]) -> None:
        self._complete = complete
        self._settings = {"model": MODEL, "mock_response": ANSWER, "temperature": 0.0, "max_tokens": 512}

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:  # noqa: ARG002
        """Answer."""
        return await self._complete(messages=conversation, **self._settings)


def patched(instrument: Callable[[Sdk], None], sdk: Sdk) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which what *instrument* patches is patched: each library once, so that all share a run.

    Their own `uninstrument` was rejected: OpenLLMetry goes on making spans after it.
    """
    places = [(owner, name) for owner in (openai.AsyncOpenAI, AsyncCompletions) for name in ("request", "create")]
    before = {(owner, name): vars(owner).get(name) for owner, name in places}
    instrument(sdk)
    after = {place: vars(place[0]).get(place[1]) for place in places}
    changed = {place: value for place, value in after.items() if value is not before[place]}
    if not changed:
        raise AssertionError("the instrumentation patches something else than it did; see `places`")

    def restore() -> None:
        for owner, name in changed:
            if before[owner, name] is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before[owner, name])

    @contextmanager
    def around() -> Iterator[None]:
        for (owner, name), value in changed.items():
            setattr(owner, name, value)
        try:
            yield
        finally:
            restore()

    restore()
    return around


def instrumented_model(sdk: Sdk) -> InstrumentedModel:
    """Return pydantic-ai's tracing, without content, which overcoat does not record either."""
    tracer_provider, meter_provider = sdk
    settings = InstrumentationSettings(
        tracer_provider=tracer_provider, meter_provider=meter_provider, include_content=False
    )
    return InstrumentedModel(Model(), settings)


def openinference(sdk: Sdk) -> None:
    """Instrument by OpenInference, without content; it makes no metrics."""
    tracer_provider, _ = sdk
    OpenInference().instrument(tracer_provider=tracer_provider, config=TraceConfig(hide_inputs=True, hide_outputs=True))


def openllmetry(sdk: Sdk) -> None:
    """Instrument by OpenLLMetry, without content, which only the environment can tell it."""
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    tracer_provider, meter_provider = sdk
    OpenLLMetry().instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)


def variants(sdks: dict[str, Sdk]) -> list[Variant]:
    """Return what is measured, YARD first; *sdks* are those of the peers that trace."""
    # Imported here, since it asks the environment, and would otherwise fetch prices from the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm  # noqa: PLC0415

    bare = Variant("nothing: the client itself", Provider())
    pydantic = Variant("pydantic-ai: a minimal Model", Pydantic(Model()))
    sdk = Variant("openai: AsyncOpenAI without a network", OpenAI())
    chain = Variant("langchain: a RunnableLambda", LangChain(lambda runnable: runnable))
    lite = Variant("litellm: acompletion, its mock", LiteLLM(litellm.acompletion))
    router = litellm.Router(
        model_list=[{"model_name": MODEL, "litellm_params": {"model": MODEL, "mock_response": ANSWER}}], num_retries=3
    )
    return [
        Variant("YARD: one span, three records", Yardstick(Provider(), *providers()), bare),
        Variant("floor: by hand, two spans, three records, key", Floor(Provider(), *providers()), bare),
        Variant("overcoat: Trace, Cache (miss), Retry, Meter", stack(Provider(), *layers(traced())), bare),
        Variant("overcoat: Trace alone", stack(Provider(), traced()), bare),
        bare,
        Variant("tenacity.AsyncRetrying around the call", Tenacious(Provider()), bare),
        pydantic,
        Variant("  with InstrumentedModel", Pydantic(instrumented_model(sdks["pydantic-ai"])), pydantic),
        sdk,
        Variant("  with OpenInference", OpenAI(), sdk, around=patched(openinference, sdks["OpenInference"])),
        Variant("  with OpenLLMetry", OpenAI(), sdk, around=patched(openllmetry, sdks["OpenLLMetry"])),
        chain,
        Variant("  with with_retry", LangChain(lambda runnable: runnable.with_retry()), chain),
        lite,
        Variant("  with its Router", LiteLLM(router.acompletion), lite),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each variant (default: %(default)s)")
    arguments = parser.parse_args()
    exporters = {name: Discard() for name in ("pydantic-ai", "OpenInference", "OpenLLMetry")}
    sdks = {name: providers(exporter) for name, exporter in exporters.items()}
    measured = variants(sdks)
    asyncio.run(measure(measured, arguments.rounds))
    for tracer_provider, _ in sdks.values():
        tracer_provider.force_flush()
    if mute := [name for name, exporter in exporters.items() if not exporter.spans]:
        raise AssertionError(f"no spans came from {', '.join(mute)}: there is nothing to compare")
    print(f"{versions(*PACKAGES)}; {arguments.rounds} rounds")
    print(table(measured, measured[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
