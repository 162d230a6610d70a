"""Budgets over real litellm and HTTP, in each store: what is retried, raced, cancelled or lost is settled."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from overcoat import (
    Backoff,
    BudgetExceeded,
    LiteLLMClient,
    LiteLLMOptions,
    LLMEvent,
    LLMResponseError,
    Meter,
    Request,
    Retry,
    Timeout,
    capture,
    stack,
)
from overcoat.arithmetic.reservation import Denied, Want
from overcoat.budgets.memory import MemoryBudgets
from overcoat.budgets.redis import RedisBudgets
from overcoat.budgets.sqlite import SqliteBudgets
from overcoat.layers.budget import Budget
from overcoat.layers.hedge import Hedge
from overcoat.pricing.estimate import Estimate
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Provider, answer, empty_choices, invalid_json, slow

from .litellm_loop import run
from .parts import need

CHAT = [{"role": "user", "content": "Why?"}]
OPTIONS = LiteLLMOptions(max_tokens=50)
RATES = Rates((Tier(0, Decimal("0.001"), Decimal("0.01")),), "test")
ANSWERED = Decimal("0.062")
"""Dollars of an answer: 12 tokens sent, 5 answered."""
SENT, MOST = Decimal("0.112"), Decimal("0.612")
"""Dollars that reading the request may cost at most, and all of it with the longest answer."""
AGAIN = Retry(max_attempts=3, backoff=Backoff(base=0.001))
LONG = 60.0  # seconds that nobody waits


def prices(model, now):
    return RATES


@pytest.fixture(scope="module", autouse=True)
def _litellm():
    module = need("litellm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "suppress_debug_info", True)  # else it prints advice
        yield


@pytest.fixture
def provider():
    with Provider() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryBudgets()
    if request.param == "sqlite":
        return SqliteBudgets(tmp_path / "budgets.db")
    return RedisBudgets(request.getfixturevalue("redis_url"), prefix=f"http:{tmp_path}")


class Spending:
    """A stack over HTTP with ten dollars for ever, and what became of its calls."""

    def __init__(self, provider, store, *outside, inside=(), usd=10, **settings):
        client = LiteLLMClient("openai/gpt-4o", base_url=provider.url, api_key="any")
        self.budget = Budget(usd=usd, window=None, prices=prices, store=store, **settings)
        self.client = stack(client, *outside, self.budget, *inside, Meter(prices=prices))
        self.store = store

    def ask(self):
        return self.client.call(CHAT, OPTIONS, LLMEvent(prompt=CHAT, type="test"))

    def run(self, main):
        """Run *main*; return its result, the records of its calls, and what the store says is spent and reserved."""

        async def all_of_it():
            with capture() as calls:
                try:
                    result = await main()
                except LLMResponseError as error:
                    result = error
            (rule,) = self.budget.rules
            denied = await self.store.reserve([Want(rule.prefix, rule.window, 0, 1)])
            await self.store.close()
            assert isinstance(denied, Denied)
            return result, calls, tuple(map(rule.shown, denied.standing))

        return run(all_of_it())


def results(calls):
    return sorted((each.result, each.reserved, each.settled) for call in calls for each in call.reservations)


def test_the_bounds_are_those_that_the_tests_below_say():
    estimate = Estimate.of(Request(CHAT, OPTIONS, None, False, None))
    assert (estimate.input_tokens() * Decimal("0.001"), estimate.dollars(RATES, default=1)) == (SENT, MOST)


class TestRetries:
    def test_each_attempt_that_is_billed_is_settled_and_the_overrun_is_recorded(self, provider, store):
        """One is reserved for, and two are billed: one without an answer in it."""
        provider.script(empty_choices(prompt_tokens=800), answer())
        spending = Spending(provider, store, inside=[AGAIN])
        text, calls, standing = spending.run(spending.ask)
        assert (text, len(provider)) == ("Hello!", 2)
        billed = Decimal("0.8") + ANSWERED
        assert results(calls) == [("overrun", MOST, billed)]
        assert calls[0].reservations[0].overrun == billed - MOST
        assert (calls[0].cost.billed, standing) == (billed, (billed, 0))

    def test_the_next_call_is_refused_for_what_was_overrun(self, provider, store):
        provider.script(empty_choices(prompt_tokens=400), answer())
        spending = Spending(provider, store, inside=[AGAIN], usd=Decimal("1.073"))

        async def main():
            await spending.ask()
            with pytest.raises(BudgetExceeded) as refused:
                await spending.ask()
            return refused.value.spent, refused.value.needed

        result, _, standing = spending.run(main)
        assert result == (Decimal("0.462"), MOST)
        assert (len(provider), standing) == (2, (Decimal("0.462"), 0))

    def test_an_attempt_that_ran_out_of_time_counts_as_what_it_may_at_most(self, provider, store):
        provider.script(slow(LONG), answer())
        spending = Spending(provider, store, inside=[AGAIN, Timeout("2s")])
        text, calls, standing = spending.run(spending.ask)
        assert text == "Hello!"
        assert results(calls) == [("overrun", MOST, MOST + ANSWERED)]
        assert standing == (MOST + ANSWERED, 0)

    def test_so_does_an_answer_of_which_only_shreds_came(self, provider, store):
        provider.script(invalid_json(), answer())
        spending = Spending(provider, store, inside=[AGAIN], attempts=2)
        text, calls, standing = spending.run(spending.ask)
        assert text == "Hello!"
        assert results(calls) == [("estimated", 2 * MOST, MOST + ANSWERED)]
        assert standing == (MOST + ANSWERED, 0)


def test_a_hedge_reserves_twice_and_both_are_settled(provider, store):
    provider.script(slow(LONG), answer())
    spending = Spending(provider, store, Hedge("100ms"))
    text, calls, standing = spending.run(spending.ask)
    assert (text, len(provider)) == ("Hello!", 2)
    assert [each.role for each in calls[0].inferences] == ["primary", "hedge"]
    assert results(calls) == [("estimated", MOST, SENT), ("settled", MOST, ANSWERED)]
    assert standing == (SENT + ANSWERED, 0)


def test_a_hedge_for_which_there_is_no_room_harms_nobody(provider, store):
    provider.script(answer(delay=1.0))
    spending = Spending(provider, store, Hedge("100ms"), usd=1)
    text, calls, standing = spending.run(spending.ask)
    assert (text, len(provider)) == ("Hello!", 1)
    assert results(calls)[1] == ("settled", MOST, ANSWERED)
    assert [each.result for each in calls[0].reservations].count("refused") == 1
    assert standing == (ANSWERED, 0)


def test_a_call_that_is_cancelled_settles_what_is_known(provider, store):
    """The request was read; what there was of an answer, nobody knows."""
    provider.script(slow(LONG))
    spending = Spending(provider, store, inside=[AGAIN])

    async def main():
        task = asyncio.ensure_future(spending.ask())
        while not len(provider):
            await asyncio.wait([task], timeout=0.01)
        task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    (error,), calls, standing = spending.run(main)
    assert isinstance(error, asyncio.CancelledError)
    assert (calls[0].outcome, results(calls)) == ("cancelled", [("estimated", MOST, SENT)])
    assert standing == (SENT, 0)


def test_the_last_answer_is_billed_though_it_was_refused(provider, store):
    provider.script(*[empty_choices(prompt_tokens=100)] * 2)
    spending = Spending(provider, store, inside=[AGAIN])
    error, calls, standing = spending.run(spending.ask)
    assert isinstance(error, LLMResponseError)
    spent = Decimal("0.2")
    assert results(calls) == [("settled", MOST, spent)]
    assert (calls[0].cost.billed, calls[0].cost.wasted, standing) == (spent, spent, (spent, 0))
