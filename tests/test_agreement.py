"""One call, one record: spans, metrics, events and the provider's own books agree with it to the token and the cent."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from overcoat import (
    Cache,
    Call,
    Deadline,
    LLMConnectionError,
    LLMEvent,
    LLMStatusError,
    Meter,
    NotCached,
    Retry,
    Timeout,
    Trace,
    Usage,
    cache_mode,
    capture,
    stack,
)
from overcoat.caching.controls import CacheMode
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import InMemoryTelemetry, run

RATES = Rates((Tier(0, Decimal("0.0000025"), Decimal("0.00001"), Decimal("0.00000125")),), "test 1")


@dataclass(frozen=True)
class Step:
    """What the provider does with one request: it thinks, may charge, and answers or fails."""

    delay: float
    tokens: tuple[int, int, int] | None
    failure: int | None
    text: str = "answer"


@dataclass(frozen=True)
class Caller:
    """Who asks what, when, and when they lose patience."""

    prompt: int
    start: float
    patience: float | None
    mode: CacheMode


@dataclass
class Charging:
    """A provider that keeps its own books."""

    steps: list[Step]
    model_name: str = "gpt-test"
    requests: int = 0
    charged: Counter[str] = field(default_factory=Counter)

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str:
        step = self.steps[self.requests % len(self.steps)]
        self.requests += 1
        await asyncio.sleep(step.delay)
        if step.tokens is not None:
            tokens_in, tokens_out, cached = step.tokens
            event.prompt_tokens, event.completion_tokens = tokens_in, tokens_out
            event.total_tokens, event.cached_tokens = tokens_in + tokens_out, cached
            self.charged.update(input=tokens_in, output=tokens_out)
            self.charged["nano"] += int(RATES.cost(Usage(tokens_in, tokens_out, None, cached)) * 10**9)
        if step.failure == 0:
            raise LLMConnectionError
        if step.failure is not None:
            raise LLMStatusError("no", step.failure)
        return step.text


tokens = st.tuples(st.integers(0, 5000), st.integers(0, 500)).flatmap(
    lambda counts: st.tuples(st.just(counts[0]), st.just(counts[1]), st.integers(0, counts[0]))
)
answers = st.builds(Step, st.sampled_from([0.0, 0.5, 3.0]), tokens, st.none(), st.sampled_from(["answer", ""]))
failures = st.builds(
    Step, st.sampled_from([0.0, 0.5, 3.0]), st.none() | tokens, st.sampled_from([0, 400, 401, 429, 500, 503])
)
callers = st.builds(
    Caller,
    st.integers(0, 2),
    st.sampled_from([0.0, 0.25, 1.0, 5.0, 9.0]),
    st.none() | st.sampled_from([0.0, 0.3, 2.0, 9.0]),
    st.sampled_from(["default", "default", "default", "refresh", "bypass", "only-if-cached"]),
)
caches = st.sampled_from(
    [
        None,
        Cache(ttl="4s"),
        Cache(ttl="4s", stale_while_revalidate="3s", stale_if_error="1m", max_refreshes=1),
        Cache(ttl="0.5s", jitter=0.5, stale_if_error="1m"),
    ]
)


@given(
    steps=st.lists(answers | failures, min_size=1, max_size=8),
    people=st.lists(callers, min_size=1, max_size=8),
    cache=caches,
    always=st.booleans(),
)
def test_all_projections_agree(steps: list[Step], people: list[Caller], cache: Cache | None, always: bool) -> None:
    """Over random successes, failures, hits, stale answers, shared ones, timeouts and cancellations."""
    provider, telemetry = Charging(steps), InMemoryTelemetry()
    client = stack(
        provider,
        Trace(
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            attempts="always" if always else "failed",
        ),
        Deadline("8s"),
        *([] if cache is None else [cache]),
        Retry(max_attempts=3, random=lambda: 0.5),
        Timeout("2s"),
        Meter(prices=lambda model, now: RATES),
    )
    events: list[LLMEvent] = []

    async def ask(caller: Caller) -> None:
        await asyncio.sleep(caller.start)
        event = LLMEvent([], "test")
        try:
            with cache_mode(caller.mode):
                async with asyncio.timeout(caller.patience):
                    await client.call([{"role": "user", "content": f"prompt {caller.prompt}"}], None, event)
        except (LLMConnectionError, LLMStatusError, NotCached, TimeoutError):
            assert event == LLMEvent([], "test"), "a call that failed must leave nothing on its event"
        else:
            events.append(event)
        assert not trace.get_current_span().get_span_context().is_valid, "a span was left in the caller's context"

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(ask(caller)) for caller in people))
        background = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(background) <= 2, "more was left behind than one refresh and its inference"
        await asyncio.gather(*background)

    clock = SimpleNamespace(time=lambda: 1.8e9 + asyncio.get_running_loop().time())
    with capture() as calls, pytest.MonkeyPatch.context() as patch:
        patch.setattr("overcoat.client.time", clock)  # stored answers age by the calendar's clock
        run(main())
    assert len([call for call in calls if call.origin is None]) == len(people)
    check_requests(provider, calls, telemetry)
    check_tokens(provider, calls, telemetry)
    check_money(provider, calls, telemetry)
    check_events(events, calls)
    check_trees(telemetry)


def check_requests(provider: Charging, calls: list[Call], telemetry: InMemoryTelemetry) -> None:
    roots, attempts = telemetry.named("overcoat.call"), [attempt for call in calls for attempt in call.attempts]
    assert len(calls) == len(roots)
    assert provider.requests == len(attempts) == telemetry.total("overcoat.attempts")
    assert sum(span.attributes["overcoat.attempts"] for span in roots) == len(attempts)
    assert len(telemetry.named("chat")) == sum(len(call.inferences) for call in calls)
    outcomes = Counter(call.outcome for call in calls)
    assert outcomes == Counter(span.attributes["overcoat.outcome"] for span in roots)
    for outcome, count in outcomes.items():
        assert telemetry.total("overcoat.calls", {"overcoat.outcome": outcome}) == count


def check_tokens(provider: Charging, calls: list[Call], telemetry: InMemoryTelemetry) -> None:
    usage = [attempt.usage for call in calls for attempt in call.attempts if attempt.usage is not None]
    for kind in ("input", "output"):
        recorded = sum(getattr(each, f"{kind}_tokens") for each in usage)
        assert recorded == provider.charged[kind]
        chats = telemetry.named("chat")
        assert recorded == sum(span.attributes.get(f"gen_ai.usage.{kind}_tokens", 0) for span in chats)
        assert recorded == telemetry.total("gen_ai.client.token.usage", {"gen_ai.token.type": kind})


def check_money(provider: Charging, calls: list[Call], telemetry: InMemoryTelemetry) -> None:
    assert sum((call.cost.billed for call in calls), Decimal(0)) == Decimal(provider.charged["nano"]) / 10**9
    roots, chats = telemetry.named("overcoat.call"), telemetry.named("chat")
    for column, attribute in (("billed", "usd"), ("saved", "saved_usd"), ("wasted", "wasted_usd")):
        # Spans and metrics hold floats, whose sums differ in the last bits.
        recorded = pytest.approx(float(sum(getattr(call.cost, column) for call in calls)), abs=1e-12)
        assert sum(span.attributes.get(f"overcoat.cost.{attribute}", 0) for span in roots) == recorded
        assert telemetry.total(f"overcoat.cost.{column}") == recorded
    billed = pytest.approx(float(sum(call.cost.billed for call in calls)), abs=1e-12)
    assert sum(span.attributes.get("overcoat.cost.usd", 0) for span in chats) == billed
    for call in calls:
        if call.outcome != "ok":
            assert (call.cost.wasted, call.cost.saved) == (call.cost.billed, 0)
        elif call.cache is not None and call.cache.served:
            # What is billed are attempts that failed before a stale answer made up for them.
            assert (call.cost.billed, call.cost.saved) == (call.cost.wasted, RATES.cost(call.delivered))
            assert not call.attempts or call.cache.reason == "if_error"
        else:
            assert call.cost.billed - call.cost.wasted == RATES.cost(call.delivered)


def check_events(events: list[LLMEvent], calls: list[Call]) -> None:
    asked = [call for call in calls if call.origin is None and call.outcome == "ok"]
    assert Counter(_counts(call.delivered) for call in asked) == Counter(
        (event.prompt_tokens, event.completion_tokens, event.total_tokens, event.cached_tokens) for event in events
    )


def check_trees(telemetry: InMemoryTelemetry) -> None:
    spans = {span.context.span_id: span for span in telemetry.spans}
    for span in spans.values():
        assert span.end_time >= span.start_time
        assert (span.parent is None) == (span.name == "overcoat.call")
        assert span.parent is None or span.parent.span_id in spans
        linked = "overcoat.call" if span.name == "overcoat.call" else "chat "
        assert all(spans[link.context.span_id].name.startswith(linked) for link in span.links)


def _counts(usage: Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return (None, None, None, None)
    return (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cache_read_input_tokens)
