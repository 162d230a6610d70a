"""`Hedge`: when another inference starts, which one wins, and what becomes of the others."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Hedge, LLMEvent, LLMStatusError, Meter, Trace, capture, stack
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

RATES = Rates((Tier(0, Decimal(1), Decimal(1)),), "test")


async def ask(client, event=None):
    return await client.call([{"role": "user", "content": "hello"}], None, event or LLMEvent([], "test"))


def timed(client):
    async def main():
        clock = asyncio.get_running_loop().time
        try:
            answer = await ask(client)
        except LLMStatusError as error:
            answer = error
        assert len(asyncio.all_tasks()) == 1
        return answer, clock()

    return run(main())


def failing_after(seconds):
    async def fail(conversation, options):
        await asyncio.sleep(seconds)
        return LLMStatusError(f"after {seconds}", 500)

    return fail


def test_a_fast_answer_starts_nothing():
    client = ScriptedClient(Answer("a", delay=2.9))
    assert timed(stack(client, Hedge("3s"))) == ("a", 2.9)
    assert len(client.calls) == 1


def test_the_first_answer_wins_and_the_other_is_cancelled():
    client = ScriptedClient(Answer("a", delay=60), Answer("b", delay=1))
    own = LLMEvent([], "test")
    with capture() as calls:
        assert timed(stack(client, Hedge("3s"))) == ("b", 4)
    assert client.cancelled == 1
    (call,) = calls
    assert [(each.role, each.error_type) for each in call.inferences] == [("primary", "cancelled"), ("hedge", None)]
    assert own.prompt_tokens is None


def test_the_slow_one_may_still_win():
    client = ScriptedClient(Answer("a", delay=4), Answer("b", delay=9))
    assert timed(stack(client, Hedge("3s"))) == ("a", 4)


def test_several():
    client = ScriptedClient(*[Answer("a", delay=60)] * 2, Answer("c", delay=1))
    assert timed(stack(client, Hedge("3s", max_extra=2))) == ("c", 7)


def test_an_error_does_not_win_while_another_may_answer():
    client = ScriptedClient(failing_after(5), Answer("b", delay=4))
    assert timed(stack(client, Hedge("3s"))) == ("b", 7)


def test_an_error_before_that_starts_nothing():
    """A failure is `Retry`'s to judge, not a reason to ask twice."""
    client = ScriptedClient(failing_after(1))
    error, waited = timed(stack(client, Hedge("3s")))
    assert (error.message, waited, len(client.calls)) == ("after 1", 1, 1)


def test_where_all_fail_the_first_one_s_error_is_raised():
    client = ScriptedClient(failing_after(9), failing_after(1))
    error, waited = timed(stack(client, Hedge("3s")))
    assert (error.message, waited) == ("after 9", 9)


def test_what_the_loser_had_cost_is_wasted():
    class Charging(ScriptedClient):
        async def call(self, conversation, options, event, json_mode=False):
            event.prompt_tokens, event.completion_tokens = 10, 0  # charged at once, as with a stream
            return await super().call(conversation, options, event, json_mode)

    client = Charging(Answer("a", delay=60), Answer("b", 10, 5))
    with capture() as calls:
        run(ask(stack(client, Hedge("3s"), Meter(prices=lambda model, now: RATES))))
    assert (calls[0].cost.billed, calls[0].cost.wasted) == (25, 10)


def test_the_caller_s_cancellation_ends_all():
    client = ScriptedClient(Answer("a", delay=60))
    telemetry = InMemoryTelemetry()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await ask(stack(client, Trace(tracer_provider=telemetry.tracer_provider), Hedge("3s")))
        assert len(asyncio.all_tasks()) == 1

    run(main())
    assert client.cancelled == 2
    assert len(telemetry.named("chat")) == 2


@given(
    delays=st.lists(st.integers(1, 20), min_size=3, max_size=3, unique=True),
    after=st.integers(1, 10),
    extra=st.integers(1, 2),
)
def test_no_answer_comes_later_than_without_it(delays, after, extra):
    """And never more inferences than are allowed."""
    client = ScriptedClient(*(Answer(str(delay), delay=delay) for delay in delays))
    _, waited = timed(stack(client, Hedge(after + 0.5, max_extra=extra)))
    assert waited <= delays[0]
    assert len(client.calls) <= extra + 1


@pytest.mark.parametrize("settings", [{"after": 0}, {"after": "3"}, {"after": 1, "max_extra": 0}])
def test_bad_input(settings):
    with pytest.raises(ValueError, match=r"Hedge\("):
        Hedge(**settings)
