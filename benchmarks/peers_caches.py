"""Caches side by side: what a hit in memory takes, and how many of many equal calls at once reach the provider."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any

from caches import talk
from concurrency import DELAY, Slow, wave
from floor import MODEL, Provider, Yardstick, providers
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from measure import OPTIONS, Variant, measure, table, versions
from pydantic import PrivateAttr

from overcoat import Cache, LLMEvent, stack

ANSWER = "SELECT name FROM customers ORDER BY revenue DESC LIMIT 1"
STAMPEDES = (50, 1_000)


class Chat(BaseChatModel):
    """The least that langchain takes for a model; it takes its time, and counts what reaches it."""

    _requests: int = PrivateAttr(default=0)

    @property
    def requests(self) -> int:
        """How many there were."""
        return self._requests

    @property
    def _llm_type(self) -> str:
        return "benchmark"

    async def _agenerate(self, *_arguments: Any, **_settings: Any) -> ChatResult:
        self._requests += 1
        await asyncio.sleep(DELAY)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(ANSWER))])

    def _generate(self, *_arguments: Any, **_settings: Any) -> ChatResult:
        raise NotImplementedError


class LangChain:
    """A model of langchain's, with its cache in memory."""

    def __init__(self) -> None:
        self._model = Chat(cache=InMemoryCache())

    @property
    def requests(self) -> int:
        """How many reached the model."""
        return self._model.requests

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:  # noqa: ARG002
        """Answer."""
        return await self._model.ainvoke(conversation, temperature=0.0, max_tokens=512)


class Overcoat:
    """A stack with a cache in memory."""

    def __init__(self) -> None:
        self._provider = Slow()
        self._client = stack(self._provider, Cache())

    @property
    def requests(self) -> int:
        """How many reached the provider."""
        return self._provider.requests

    async def call(self, conversation: Any, options: Any, event: Any) -> Any:
        """Answer."""
        return await self._client.call(conversation, options, event)


def litellm_client() -> type:
    """Return a class of clients of litellm, with its cache in memory.

    A hit needs fastapi, orjson and soundfile in litellm 1.106.2, and raises ModuleNotFoundError without them.
    """
    # Imported here, since it asks the environment, and would otherwise fetch prices from the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm  # noqa: PLC0415

    litellm.suppress_debug_info = True
    litellm.cache = litellm.Cache()

    class Custom(litellm.CustomLLM):
        """litellm's own way to have another provider: it takes its time, and counts what reaches it."""

        requests = 0

        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
            self.requests += 1
            await asyncio.sleep(DELAY)
            return litellm.completion(MODEL, [], mock_response=ANSWER)

    class LiteLLM:
        """A completion by litellm."""

        def __init__(self) -> None:
            self._custom = Custom()
            name = f"benchmark{id(self)}"
            litellm.custom_provider_map.append({"provider": name, "custom_handler": self._custom})
            self._model = f"{name}/{MODEL}"

        @property
        def requests(self) -> int:
            """How many reached the provider."""
            return self._custom.requests

        async def call(self, conversation: Any, options: Any, event: Any) -> Any:  # noqa: ARG002
            """Answer."""
            return await litellm.acompletion(self._model, conversation, temperature=0.0, max_tokens=512)

    return LiteLLM


async def run(rounds: int) -> None:
    """Measure and print."""
    kinds = {"overcoat: Cache": Overcoat, "langchain: InMemoryCache": LangChain, "litellm: Cache()": litellm_client()}
    bare = Variant("nothing: the client itself", Provider())
    yard = Variant("YARD: one span, three records", Yardstick(Provider(), *providers()), bare)
    ask = talk(2, 1_000)
    hits = {name: Variant(f"{name}, a hit", kind(), bare, repeated=True, ask=ask) for name, kind in kinds.items()}
    for variant in hits.values():
        conversation = ask(0)
        await variant.client.call(conversation, OPTIONS, LLMEvent(conversation, "Benchmark"))
        await asyncio.sleep(0.1)  # litellm stores answers in the background
    await measure([bare, yard, *hits.values()], rounds)
    print(table([yard, *hits.values()], yard))
    for variant in hits.values():
        if variant.client.requests != 1:
            raise AssertionError(f"{variant.client.requests} requests for {variant.name}: it is none")
    for name, kind in kinds.items():
        for tasks in STAMPEDES:
            client = kind()
            _, cpu = await wave(client, equal=True, tasks=tasks)
            print(f"{name}: of {tasks:,} equal calls at once, {client.requests:,} reached the provider; {cpu:.2f} s")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="blocks of each variant (default: %(default)s)")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.rounds))
    print(f"{versions('litellm', 'langchain-core')}; {arguments.rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
