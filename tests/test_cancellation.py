"""A cancellation passes at every point, and leaves no task, span, context or half a record behind."""

from __future__ import annotations

import asyncio
import gc

import pytest
from opentelemetry import trace

from overcoat import Backoff, Cache, Deadline, LLMEvent, LLMStatusError, Meter, Retry, Timeout, Trace, capture, stack
from overcoat.pricing.rates import Rates
from overcoat.testing import InMemoryTelemetry, ScriptedClient, run


def full_stack(telemetry, *steps):
    client = stack(
        ScriptedClient(*steps),
        Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, attempts="always"),
        Deadline("1m"),
        Cache(),
        Retry(max_attempts=4, backoff=Backoff(base="1s"), random=lambda: 0.5),
        Timeout("10s"),
        Meter(prices=lambda model, now: Rates((), "none")),
    )
    return client, client.bound[0]


async def slow_failure(conversation, options):
    await asyncio.sleep(1)
    return LLMStatusError("down", 500)


async def slow_answer(conversation, options):
    await asyncio.sleep(1)
    await asyncio.sleep(0)
    return "hi"


def check(telemetry, calls):
    roots = telemetry.named("overcoat.call")
    assert len(roots) == len(calls)
    assert all(call.ended is not None and call.outcome is not None for call in calls)
    for call in calls:
        assert all(inference.ended is not None for inference in call.inferences)
        assert all(attempt.ended is not None for attempt in call.attempts)
        assert all(wait.ended is not None for inference in call.inferences for wait in inference.waits)
    assert len(telemetry.named("chat")) == sum(len(call.inferences) for call in calls)
    assert len(telemetry.named("attempt")) == sum(len(call.attempts) for call in calls)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with another who waits"])
def test_cancelled_at_every_step_of_the_loop(shared):
    """The call is cancelled after 0, 1, 2, ... turns of the event loop, until it is faster than its cancellation."""
    survived = 0
    for turns in range(100):
        telemetry = InMemoryTelemetry()
        client, _ = full_stack(telemetry, slow_failure, slow_failure, slow_answer)

        async def main(client=client, turns=turns):
            loop = asyncio.get_running_loop()

            def ask():
                return asyncio.create_task(client.call([{"role": "user", "content": "hi"}], None, LLMEvent([], "test")))

            task = ask()
            other = ask() if shared else None
            turn = 0

            def step():
                # After each callback that the loop runs; timers are advanced by the loop itself.
                nonlocal turn
                turn += 1
                if turn > turns:
                    task.cancel()
                elif not task.done():
                    loop.call_later(0.125 if turn % 2 else 0, step)

            loop.call_soon(step)
            await asyncio.wait([task])
            assert not trace.get_current_span().get_span_context().is_valid
            if other is not None:
                assert await other == "hi"
            assert len(asyncio.all_tasks()) == 1
            return task.cancelled()

        with capture() as calls:
            cancelled = run(main())
        check(telemetry, calls)
        assert {call.outcome for call in calls} <= {"cancelled", "ok"}
        survived += not cancelled
    assert 0 < survived < 100, "the range must cover a call from before its beginning to after its end"


def test_a_coroutine_that_is_thrown_away():
    """As by a generator that nobody finishes: its spans end, and no context of somebody else is touched."""
    telemetry = InMemoryTelemetry()
    client, _ = full_stack(telemetry, slow_answer)

    async def main():
        coroutine = client.call([{"role": "user", "content": "hi"}], None, LLMEvent([], "test"))
        coroutine.send(None)
        coroutine.close()
        await asyncio.sleep(2)
        assert len(asyncio.all_tasks()) == 1

    with capture() as calls:
        run(main())
    gc.collect()
    check(telemetry, calls)
    assert [call.outcome for call in calls] == ["cancelled"]


def test_a_thousand_calls_cancelled_at_once():
    telemetry = InMemoryTelemetry()
    client, _ = full_stack(telemetry, slow_answer)

    async def main():
        tasks = [
            asyncio.create_task(client.call([{"role": "user", "content": str(n % 100)}], None, LLMEvent([], "test")))
            for n in range(1000)
        ]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert len(asyncio.all_tasks()) == 1

    with capture() as calls:
        run(main())
    check(telemetry, calls)
    assert sum(len(call.attempts) for call in calls) == 100
