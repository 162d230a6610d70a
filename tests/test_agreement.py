"""One call, one record: records, spans, metrics, events and what the provider charged agree to the token and the cent."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from overcoat import (
    Cache,
    Deadline,
    LLMConnectionError,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Timeout,
    Trace,
    Usage,
    capture,
    stack,
)
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
    Caller, st.integers(0, 2), st.sampled_from([0.0, 0.25, 1.0, 5.0]), st.none() | st.sampled_from([0.0, 0.3, 2.0, 9.0])
)


@given(
    steps=st.lists(answers | failures, min_size=1, max_size=8),
    people=st.lists(callers, min_size=1, max_size=8),
    cached=st.booleans(),
    always=st.booleans(),
)
def test_all_projections_agree(steps: list[Step], people: list[Caller], cached: bool, always: bool) -> None:
    """Over random successes, failures, hits, shared answers, timeouts and cancellations."""
    provider, telemetry = Charging(steps), InMemoryTelemetry()
    client = stack(
        provider,
        Trace(
            tracer_provider=telemetry.tracer_provider,
            meter_provider=telemetry.meter_provider,
            attempts="always" if always else "failed",
        ),
        Deadline("8s"),
        *([Cache(ttl="4s")] if cached else []),
        Retry(max_attempts=3, random=lambda: 0.5),
        Timeout("2s"),
        Meter(prices=lambda model, now: RATES),
    )
    client.bound[-1].function.rates("gpt-test", int(time.time() // 86400)).result()  # else a cancelled call may be unpriced
    events: list[LLMEvent] = []

    async def ask(caller: Caller) -> None:
        await asyncio.sleep(caller.start)
        event = LLMEvent([], "test")
        try:
            async with asyncio.timeout(caller.patience):
                await client.call([{"role": "user", "content": f"prompt {caller.prompt}"}], None, event)
        except (LLMConnectionError, LLMStatusError, TimeoutError):
            assert event == LLMEvent([], "test"), "a call that failed must leave nothing on its event"
        else:
            events.append(event)
        assert not trace.get_current_span().get_span_context().is_valid, "a span was left in the caller's context"

    async def main() -> None:
        await asyncio.gather(*(asyncio.create_task(ask(caller)) for caller in people))
        assert len(asyncio.all_tasks()) == 1, "a task was left behind"

    with capture() as calls:
        run(main())

    spans = telemetry.spans
    chats, roots = telemetry.named("chat"), telemetry.named("overcoat.call")
    attempts = [attempt for call in calls for attempt in call.attempts]

    # Requests and calls
    assert len(calls) == len(roots) == len(people)
    assert provider.requests == len(attempts) == telemetry.total("overcoat.attempts")
    assert Counter(call.outcome for call in calls) == Counter(span.attributes["overcoat.outcome"] for span in roots)
    for outcome, count in Counter(call.outcome for call in calls).items():
        assert telemetry.total("overcoat.calls", {"overcoat.outcome": outcome}) == count
    assert sum(span.attributes["overcoat.attempts"] for span in roots) == len(attempts)
    assert len(chats) == sum(len(call.inferences) for call in calls)

    # Tokens
    usage = [attempt.usage for attempt in attempts if attempt.usage is not None]
    for kind in ("input", "output"):
        recorded = sum(getattr(each, f"{kind}_tokens") for each in usage)
        assert recorded == provider.charged[kind]
        assert recorded == sum(span.attributes.get(f"gen_ai.usage.{kind}_tokens", 0) for span in chats)
        assert recorded == telemetry.total("gen_ai.client.token.usage", {"gen_ai.token.type": kind})

    # Money
    billed = sum((call.cost.billed for call in calls), Decimal(0))
    assert billed == Decimal(provider.charged["nano"]) / 10**9
    for name, of in (("usd", "billed"), ("saved_usd", "saved"), ("wasted_usd", "wasted")):
        amounts = [span.attributes.get(f"overcoat.cost.{name}", 0) for span in roots]
        column = sum((getattr(call.cost, of) for call in calls), Decimal(0))
        assert sum(amounts) == pytest.approx(float(column), abs=1e-12)
        assert telemetry.total(f"overcoat.cost.{of}") == pytest.approx(float(column), abs=1e-12)
    assert sum(span.attributes.get("overcoat.cost.usd", 0) for span in chats) == pytest.approx(float(billed), abs=1e-12)

    # Events
    delivered = [call.delivered for call in calls if call.outcome == "ok"]
    assert Counter(map(_counts, delivered)) == Counter(
        (event.prompt_tokens, event.completion_tokens, event.total_tokens, event.cached_tokens) for event in events
    )
    for call in calls:
        kept = [attempt for attempt in call.attempts if attempt.ok and attempt.usage == call.delivered]
        if call.cache is not None and call.cache.served and call.outcome == "ok":
            assert (call.cost.billed, call.cost.saved) == (0, RATES.cost(call.delivered))
        elif call.outcome == "ok":
            assert call.cost.billed - call.cost.wasted == RATES.cost(kept[-1].usage)
        else:
            assert call.cost.wasted == call.cost.billed

    # Trees
    ids = {span.context.span_id for span in spans}
    assert all(span.end_time is not None and span.end_time >= span.start_time for span in spans)
    assert all(span.parent is None or span.parent.span_id in ids for span in spans)
    assert {span.context.span_id for span in spans if span.parent is None} == {span.context.span_id for span in roots}
    assert all(link.context.span_id in {chat.context.span_id for chat in chats} for span in spans for link in span.links)


def _counts(usage: Usage | None) -> tuple[int | None, ...]:
    if usage is None:
        return (None, None, None, None)
    return (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cache_read_input_tokens)
