"""A load of real calls in which everything happens that a dashboard shows or a search looks for."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from overcoat import (
    Breaker,
    Budget,
    Cache,
    Deadline,
    Fallback,
    Hedge,
    LiteLLMClient,
    LiteLLMOptions,
    LLMEvent,
    Meter,
    RateLimit,
    Retry,
    Trace,
    Validate,
    capture,
    stack,
)
from overcoat.attribution import Calls
from overcoat.layers.retry import Backoff
from overcoat.shared import forget
from overcoat.testing import Provider, Received, Step, answer, error, insufficient_quota, rate_limited, slow

CHEAP, DEAR = "openai/gpt-4o-mini", "openai/gpt-4o"

Act = Callable[[int], Step]
"""What the provider does with the n-th request of one question, from 1."""

_ACTS: dict[str, Act] = {
    "plain": lambda _: answer(prompt_tokens=800, completion_tokens=120),
    "shared": lambda _: answer(prompt_tokens=300, completion_tokens=60, delay=0.2),
    "retried": lambda n: rate_limited(retry_after=0.01) if n == 1 else answer(prompt_tokens=400, completion_tokens=50),
    "refused": lambda _: error(401),
    "down": lambda _: error(503),
    "expensive": lambda _: answer(prompt_tokens=60_000, completion_tokens=3_000),
    "hanging": lambda _: slow(60),
    "wordy": lambda n: answer("{}" if n > 1 else "Of course!", prompt_tokens=90, completion_tokens=20),
    "broke": lambda _: insufficient_quota(),
    "late": lambda n: answer(delay=60 if n == 1 else 0),
    "dying": lambda _: error(500),
    "fading": lambda n: answer(prompt_tokens=50, completion_tokens=9) if n == 1 else error(503),
}


@dataclass
class Load:
    """Puts stacks around litellm and calls them, over HTTP, at a provider that misbehaves by the question's first word.

    Attributes:
        tracer_provider: Where spans go.
        meter_provider: Where metrics go.
        calls: The records of all calls that have ended.
        expected: How many calls each story made.
    """

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    ledger: Any = None
    calls: Calls = field(default_factory=Calls)
    expected: Counter[str] = field(default_factory=Counter)

    def run(self, provider: Provider) -> None:
        """Make every call once."""
        from .litellm_loop import run

        provider.default = _Acting()
        with capture() as calls:
            run(self._perform(provider))
        self.calls.extend(calls)
        forget()  # the next round's circuits and limits are closed and empty again

    async def _perform(self, provider: Provider) -> None:
        cheap = self._client(provider, CHEAP)
        usual = self._dressed(
            cheap, Deadline("5s"), Cache(), Validate(), Retry(max_attempts=3, backoff=Backoff(base="10ms")), Meter()
        )
        for number in range(20):
            await self._ask(usual, "plain", number)
        for number in range(5):
            await self._ask(usual, "plain", number, story="hit")
        await asyncio.gather(*(self._ask(usual, "shared", 0, story="coalesced" if n else "plain") for n in range(6)))
        for number in range(4):
            await self._ask(usual, "retried", number)
        for number in range(2):
            await self._ask(usual, "refused", number, story="failed")
        await self._ask(usual, "down", 0, story="exhausted")
        await self._ask(usual, "wordy", 0, story="reask", json_mode=True)
        await self._cancelled(usual)
        await self._ask(self._dressed(cheap, Deadline("100ms"), Meter()), "hanging", 1, story="deadline")

        dear = self._dressed(self._client(provider, DEAR), Meter())
        for number in range(2):
            await self._ask(dear, "expensive", number)

        fallback = self._dressed(cheap, Fallback(to=[self._client(provider, DEAR)]), Meter())
        await self._ask(fallback, "broke", 0, story="fallback")
        await self._ask(self._dressed(cheap, Hedge(after="100ms"), Meter()), "late", 0, story="hedge")

        # A model of its own: the circuit of the others must stay closed.
        guarded = self._dressed(self._client(provider, "openai/gpt-4.1-nano"), Breaker(min_calls=2), Meter())
        for number in range(3):
            await self._ask(guarded, "dying", number, story="opened" if number < 2 else "open")

        fading = self._dressed(cheap, Cache(ttl="1ms", jitter=0, stale_if_error="1h"), Meter())
        await self._ask(fading, "fading", 0, story="plain")
        await asyncio.sleep(0.01)
        await self._ask(fading, "fading", 0, story="stale")
        await self._ask(self._dressed(cheap, Cache(store=_Broken()), Meter()), "plain", 30)
        aging = self._dressed(cheap, Cache(ttl="1ms", jitter=0, stale_while_revalidate="1h"), Meter())
        await self._ask(aging, "plain", 40)
        await asyncio.sleep(0.01)
        before = asyncio.all_tasks()  # litellm has some of its own
        await self._ask(aging, "plain", 40, story="stale")
        self.expected["refresh"] += 1
        await asyncio.wait(asyncio.all_tasks() - before)

        poor = self._dressed(cheap, Budget(usd=0.0005, name="pocket money"), Meter())
        await self._ask(poor, "plain", 31)
        await self._ask(poor, "plain", 32, story="over budget")

        # Two may cost too much together, and do not: the second waits until the first has cost less.
        patient = Budget(usd=0.002, name="patience", default_output_tokens=2000, on_limit="wait")
        saving = self._dressed(cheap, patient, Meter())
        stories = ("plain", "waited for the budget")
        await asyncio.gather(*(self._ask(saving, "shared", 50 + n, story=story) for n, story in enumerate(stories)))

        queued = self._dressed(cheap, RateLimit(concurrency=1), Meter())
        await asyncio.gather(*(self._ask(queued, "shared", number + 1, story="queued") for number in range(2)))
        await self._ask(self._dressed(self._client(provider, "openai/ours"), Meter()), "plain", 99, story="unpriced")

    def _client(self, provider: Provider, model: str) -> LiteLLMClient:
        return LiteLLMClient(model, base_url=provider.url, api_key="any")

    def _dressed(self, client: LiteLLMClient, *layers: Any) -> LiteLLMClient:
        trace = Trace(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider)
        return stack(client, trace, *layers)

    async def _ask(
        self, client: LiteLLMClient, act: str, number: int, *, story: str = "", json_mode: bool = False
    ) -> None:
        self.expected[story or act] += 1
        conversation = [{"role": "user", "content": f"{act} #{number}"}]
        try:
            await client.call(conversation, LiteLLMOptions(), LLMEvent(prompt="?", type="Load"), json_mode=json_mode)
        except Exception:  # noqa: BLE001 - half of the stories end so; the records say how, and the tests read those
            return

    async def _cancelled(self, client: LiteLLMClient) -> None:
        task = asyncio.ensure_future(self._ask(client, "hanging", 0, story="cancelled"))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait([task])


class _Acting:
    """The provider's default: what it does follows from the question and from how often it was asked."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()

    def __call__(self, received: Received) -> Step:
        question: str = received.body["messages"][0]["content"]
        self._asked[question] += 1
        return _ACTS[question.partition(" ")[0]](self._asked[question])


class _Broken:
    """A cache's store whose server is gone."""

    async def get(self, namespace: str, key: str) -> bytes | None:
        raise ConnectionError

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        raise ConnectionError

    async def delete(self, namespace: str, key: str) -> None:
        raise ConnectionError

    async def invalidate(self, namespace: str) -> None:
        raise ConnectionError

    async def close(self) -> None:
        """Nothing is open."""
