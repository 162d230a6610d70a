"""`Budget`: what passes, what is refused, what is settled, and what is made known of it."""

from __future__ import annotations

import asyncio
import gc
import logging
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Backoff,
    BudgetExceeded,
    BudgetUnchecked,
    Cache,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    LLMEvent,
    LLMResponseError,
    LLMStatusError,
    Meter,
    Retry,
    StackOrderError,
    Timeout,
    Trace,
    UnknownPrice,
    capture,
    stack,
    tags,
)
from overcoat.budgets import open_budgets, watch
from overcoat.budgets.memory import MemoryBudgets
from overcoat.errors import OvercoatError, PolicyError
from overcoat.layer import Request
from overcoat.layers.budget import Budget, Limit
from overcoat.pricing.estimate import Estimate
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

CENT = Decimal("0.01")
FREE_INPUT = Rates((Tier(0, Decimal(0), CENT),), "test")
"""A cent for each token of an answer: its limit is its price."""
CENTS = Rates((Tier(0, CENT, CENT),), "test")


def free_input(model, now):
    return FREE_INPUT


def cents(model, now):
    return CENTS


def nobody(model, now):
    return None


def virtual(start=0.0):
    """A store in memory whose clock is that of the test's loop."""
    return MemoryBudgets(lambda: start + asyncio.get_running_loop().time())


def stacked(*steps, layers=(), outside=(), prices=free_input, model="m", **settings):
    settings.setdefault("store", virtual())
    budget = Budget(prices=prices, **settings)
    return stack(ScriptedClient(*steps, model_name=model), *outside, budget, *layers, Meter(prices=prices))


def ask(client, tokens=10, text="hello", event=None):
    return client.call([{"role": "user", "content": text}], {"max_tokens": tokens}, event or LLMEvent([], "test"))


async def timed(awaitable):
    """Return the answer, or the error, and when it came."""
    (answer,) = await asyncio.gather(awaitable, return_exceptions=True)
    return answer, asyncio.get_running_loop().time()


def used(call):
    return [(each.result, each.reason, each.reserved, each.settled, each.used) for each in call.reservations]


def answer(tokens, delay=0.0, text="hi"):
    return Answer(text, 5, tokens, delay=delay)


class TestReserving:
    def test_the_upper_bound_is_reserved_and_the_cost_settled(self):
        with capture() as calls:
            run(ask(stacked(answer(3), usd=1)))
        (record,) = calls[0].reservations
        assert used(calls[0]) == [("settled", None, Decimal("0.10"), Decimal("0.03"), Decimal("0.03"))]
        assert (record.budget, record.window, record.unit) == ("global calendar day", "calendar day", "usd")
        assert (record.scope, record.limit, record.overrun) == ("global", 1, 0)

    def test_without_a_meter_it_prices_by_itself(self):
        client = stack(ScriptedClient(answer(3), model_name="m"), Budget(usd=1, prices=free_input, store=virtual()))
        with capture() as calls:
            run(ask(client))
        assert calls[0].reservations[0].settled == Decimal("0.03")

    def test_what_does_not_fit_is_refused_before_it_is_sent(self):
        client = stacked(answer(3), usd=1)

        async def main():
            for _ in range(30):
                await ask(client)
            return await timed(ask(client, 11))

        with capture() as calls:
            error, _ = run(main())
        assert type(error) is BudgetExceeded
        assert (error.scope, error.limit, error.spent, error.reserved) == ("global", 1, Decimal("0.9"), 0)
        assert (error.needed, error.resets_at) == (Decimal("0.11"), datetime(1970, 1, 2, tzinfo=UTC))
        assert len(client.client.calls) == 30
        assert (calls[-1].outcome, calls[-1].error_type) == ("refused", "budget_exceeded")
        assert used(calls[-1]) == [("refused", "limit", Decimal("0.11"), None, Decimal("0.9"))]

    def test_concurrent_calls_never_overspend(self):
        """However many come at once, and whatever they turn out to cost."""
        client = stacked(lambda _, options: answer(options["max_tokens"], delay=1), usd=1)

        async def main():
            return await asyncio.gather(*[ask(client, 7) for _ in range(400)], return_exceptions=True)

        answers = run(main())
        assert (answers.count("hi"), len(client.client.calls)) == (14, 14)

    def test_a_price_that_no_store_can_count_is_the_most_that_it_can(self, tmp_path):
        """Nine million dollars: of a price function that makes no sense, the next call's sums must not suffer."""
        senseless = Rates((Tier(0, Decimal(10) ** 12, Decimal("1E+999999")),), "test")
        url = f"sqlite:///{tmp_path / 'budgets.db'}"
        client = stacked(answer(3), usd=1, on_limit="warn", prices=lambda model, now: senseless, store=url)

        async def main():
            await ask(client)
            await ask(client)
            await open_budgets(url).close()

        with capture() as calls:
            asyncio.run(main())
        most = Decimal("9007199.254740991")
        assert used(calls[1]) == [("settled", "limit", most, most, 2 * most)]

    def test_amounts_read_well(self):
        """As numbers that people write, in the record, its repr and the error."""
        client = stacked(answer(10), usd=10, prices=lambda model, now: Rates((Tier(0, Decimal(0), Decimal(1)),), "t"))

        async def main():
            await ask(client)
            return await timed(ask(client))

        with capture() as calls:
            error, _ = run(main())
        (record,) = calls[0].reservations
        shown = [str(each) for each in (record.limit, record.reserved, record.settled, record.used, error.spent)]
        assert (shown, str(error.reserved)) == (["10"] * 5, "0")
        assert str(calls[0].cost.billed) == "10"

    def test_what_was_not_used_can_be_used_by_others(self):
        client = stacked(answer(1), usd=1)

        async def main():
            for _ in range(90):
                await ask(client, 10)

        run(main())

    def test_a_billed_failure_is_settled_with_the_rest(self):
        """And what it costs beyond what was reserved is an overrun, which is never clipped."""

        class Billing(ScriptedClient):
            async def call(self, conversation, options, event, json_mode=False):
                event.prompt_tokens, event.completion_tokens = 5, 8
                return await super().call(conversation, options, event, json_mode)

        inner = Billing(LLMStatusError("late", 500), answer(9), model_name="m")
        budget = Budget(usd=Decimal("0.10"), prices=free_input, store=virtual())
        client = stack(inner, budget, Retry(backoff=Backoff(base=0)), Meter(prices=free_input))

        async def main():
            await ask(client)
            return await timed(ask(client, 1))

        with capture() as calls:
            error, _ = run(main())
        assert used(calls[0]) == [("overrun", None, Decimal("0.10"), Decimal("0.17"), Decimal("0.17"))]
        assert calls[0].reservations[0].overrun == Decimal("0.07")
        assert (type(error), error.spent) == (BudgetExceeded, Decimal("0.17"))

    def test_several_attempts_may_be_reserved_for(self):
        with capture() as calls:
            run(ask(stacked(answer(3), usd=1, attempts=3)))
        assert calls[0].reservations[0].reserved == Decimal("0.30")

    def test_requests_without_a_limit_take_the_default(self):
        with capture() as calls:
            run(ask(stacked(answer(3), usd=1, default_output_tokens=50), None))
        assert calls[0].reservations[0].reserved == Decimal("0.50")

    @pytest.mark.parametrize("limit", [{"usd": 0}, {"tokens": 0}])
    def test_a_budget_of_nothing_lets_nothing_pass_that_costs(self, limit):
        error, _ = run(timed(ask(stacked(answer(3), **limit))))
        assert (type(error), error.resets_at) == (BudgetExceeded, None)

    def test_a_budget_of_nothing_lets_pass_what_is_free(self):
        free = Rates((Tier(0, Decimal(0), Decimal(0)),), "test")
        assert run(ask(stacked(answer(3), usd=0, prices=lambda model, now: free))) == "hi"

    def test_a_hit_costs_nothing(self):
        client = stacked(answer(3), usd=Decimal("0.10"), outside=[Cache(ttl="1h")])

        async def main():
            return await ask(client), await ask(client)

        with capture() as calls:
            assert run(main()) == ("hi", "hi")
        assert [len(call.reservations) for call in calls] == [1, 0]


class TestTokens:
    def test_tokens(self):
        client = stacked(answer(3), tokens=1000)
        with capture() as calls:
            run(ask(client))
        request = Request([{"role": "user", "content": "hello"}], {"max_tokens": 10}, None, False, calls[0])
        most = Estimate.of(request).all_tokens(default=4096)
        assert used(calls[0]) == [("settled", None, most, 8, 8)]
        assert calls[0].reservations[0].budget == "global calendar day tokens"

    def test_the_error_counts_tokens(self):
        error, _ = run(timed(ask(stacked(answer(3), tokens=5))))
        assert (error.limit, error.spent, error.needed > 5) == (5, 0, True)

    def test_no_price_is_needed(self):
        assert run(ask(stacked(answer(3), tokens=1000, prices=nobody))) == "hi"

    def test_a_total_that_nobody_says_is_the_sum(self):
        with capture() as calls:
            run(ask(stacked(Answer("hi", 5, 3, total_tokens=None), tokens=1000)))
        assert calls[0].reservations[0].settled == 8

    def test_what_nothing_bounds_is_refused(self):
        client = stacked(answer(3), tokens=1000, prices=nobody)
        image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
        error, _ = run(timed(ask(client, text=image)))
        assert (type(error), error.reason) == (BudgetUnchecked, "no_bound")

    def test_nothing_is_known_of_what_nothing_bounds_where_it_is_cancelled(self):
        client = stacked(answer(3, delay=9), tokens=1000, prices=nobody, on_unknown_price="allow")
        image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]

        async def main():
            async with asyncio.timeout(5):
                await ask(client, text=image)

        with capture() as calls:
            run(timed(main()))
        assert used(calls[0]) == [("estimated", "no_bound", None, 0, 0)]

    def test_a_silent_answer_uses_what_it_may_at_most(self):
        with capture() as calls:
            run(ask(stacked("hi", tokens=1000)))
        (record,) = calls[0].reservations
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_what_nothing_bounds_may_be_allowed_and_is_counted_afterwards(self):
        client = stacked(answer(3), tokens=1000, prices=nobody, on_unknown_price="allow")
        image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
        with capture() as calls:
            run(ask(client, text=image))
        assert used(calls[0]) == [("settled", "no_bound", None, 8, 8)]


class TestScopes:
    def test_each_value_of_a_tag_has_its_own(self):
        client = stacked(answer(10), usd=Decimal("0.10"), scope="tag:tenant")

        async def main():
            outcomes = []
            for tenant in ("acme", "bolt", "acme"):
                with tags(tenant=tenant):
                    outcomes.append(await timed(ask(client)))
            return outcomes

        with capture() as calls:
            (first, _), (second, _), (third, _) = run(main())
        assert (first, second) == ("hi", "hi")
        assert (type(third), third.scope) == (BudgetExceeded, "tenant:acme")
        assert [call.reservations[0].scope for call in calls] == ["tenant:acme", "tenant:bolt", "tenant:acme"]
        assert {call.reservations[0].budget for call in calls} == {"tag:tenant calendar day"}

    def test_no_value_of_a_tag_looks_like_another_name(self):
        store = virtual()
        one = stacked(answer(10), usd=Decimal("0.10"), scope="tag:tenant", name="a", store=store)
        other = stacked(answer(10), usd=Decimal("0.10"), scope="tag:tenant", name="a|usd|calendar day|b", store=store)

        async def main():
            with tags(tenant="b|usd|calendar day|c"):
                await ask(one)
            with tags(tenant="c"):
                await ask(other)

        run(main())

    @pytest.mark.parametrize("url", [None, "sqlite:///{}"])
    def test_a_tag_that_no_store_takes_has_its_own_and_stops_no_other(self, url, tmp_path):
        """Half a character, as a careless client cuts them: it cannot be written in UTF-8."""
        store = url and url.format(tmp_path / "budgets.db")
        client = stacked(answer(10), usd=Decimal("0.10"), scope="tag:tenant", store=store)
        tenants = ["\ud800", "%ED%A0%80", "%25ED%25A0%2580", "nul\0", "acme"]

        async def main():
            for tenant in tenants:
                with tags(tenant=tenant):
                    await ask(client)
                    with pytest.raises(BudgetExceeded):
                        await ask(client)
            await open_budgets(store).close()

        with capture() as calls:
            asyncio.run(main())
        assert [call.reservations[0].scope for call in calls[::2]] == [f"tenant:{tenant}" for tenant in tenants]

    def test_a_missing_tag_is_refused(self):
        client = stacked(answer(1), usd=1, scope="tag:tenant")
        with capture() as calls:
            error, _ = run(timed(ask(client)))
        assert (type(error), error.reason, error.budget) == (BudgetUnchecked, "no_tag", "tag:tenant calendar day")
        assert "tags()" in str(error)
        assert used(calls[0]) == [("refused", "no_tag", None, None, None)]
        assert client.client.calls == []

    def test_or_allowed_and_counted_by_the_other_limits_only(self):
        limits = [Limit(usd=1, scope="tag:tenant"), Limit(usd=1)]
        with capture() as calls:
            run(ask(stacked(answer(1), limits=limits, on_missing_tag="allow")))
            run(ask(stacked(answer(1), usd=1, scope="tag:tenant", on_missing_tag="allow")))
        assert used(calls[0]) == [
            ("uncounted", "no_tag", None, None, None), ("settled", None, Decimal("0.1"), CENT, CENT)
        ]  # fmt: skip
        assert used(calls[1]) == [("uncounted", "no_tag", None, None, None)]

    def test_each_model_has_its_own(self):
        store = virtual()
        clients = [stacked(answer(10), usd=Decimal("0.10"), scope="model", model=name, store=store) for name in "aab"]

        async def main():
            return [await timed(ask(client)) for client in clients]

        (first, _), (second, _), (third, _) = run(main())
        assert (first, type(second), second.scope, third) == ("hi", BudgetExceeded, "model:a", "hi")

    def test_all_stacks_of_a_process_share_a_store_by_default(self):
        async def main():
            return [await timed(ask(stacked(answer(10), usd=Decimal("0.10"), store=None))) for _ in range(2)]

        (first, _), (second, _) = run(main())
        assert (first, type(second)) == ("hi", BudgetExceeded)


class TestSeveral:
    LIMITS = (
        Limit(usd=1, window="calendar month"),
        Limit(usd=Decimal("0.15"), window="calendar day", scope="tag:tenant"),
        Limit(tokens=1000, window="1h", scope="model"),
    )

    def test_all_are_reserved_or_none(self):
        client = stacked(answer(10), limits=self.LIMITS)

        async def main():
            await ask(client)
            return await timed(ask(client))

        with tags(tenant="acme"), capture() as calls:
            error, _ = run(main())
        assert error.scope == "tenant:acme"
        assert [each[0] for each in used(calls[0])] == ["settled"] * 3
        assert [each[:2] for each in used(calls[1])] == [("released", None), ("refused", "limit"), ("released", None)]
        assert [each.used for each in calls[0].reservations] == [Decimal("0.1"), Decimal("0.1"), 15]

    def test_the_short_form_is_one_more(self):
        budget = Budget(usd=5, limits=self.LIMITS)
        assert [rule.name for rule in budget.rules] == [
            "global calendar day",
            "global calendar month",
            "tag:tenant calendar day",
            "model 1h tokens",
        ]

    def test_two_of_the_same_name_are_refused(self):
        with pytest.raises(ValueError, match="two limits are called 'global calendar day'"):
            Budget(limits=[Limit(usd=1), Limit(usd=2)])
        assert len(Budget(limits=[Limit(usd=1), Limit(usd=2, name="ours")]).rules) == 2


class TestWindows:
    def test_a_calendar_s_window_is_over_all_at_once(self):
        client = stacked(answer(10, delay=1), usd=Decimal("0.10"), window="calendar hour")

        async def main():
            first = await timed(ask(client))
            second = await timed(ask(client))
            await asyncio.sleep(3599)
            return first, second, await timed(ask(client))

        (first, _), (second, _), (third, _) = run(main())
        assert (first, third) == ("hi", "hi")
        assert second.resets_at == datetime(1970, 1, 1, 1, tzinfo=UTC)

    def test_a_sliding_one_forgets_no_sooner_than_after_its_span(self):
        client = stacked(answer(10), usd=Decimal("0.10"), window="1h")

        async def main():
            await asyncio.sleep(30)
            await ask(client)
            error, _ = await timed(ask(client))
            reset = error.resets_at.timestamp()
            assert 3630 <= reset <= 3690
            await asyncio.sleep(reset - 30 - 0.001)
            still, _ = await timed(ask(client))
            await asyncio.sleep(0.002)
            return type(still), await ask(client)

        assert run(main()) == (BudgetExceeded, "hi")

    def test_what_was_reserved_in_a_window_is_settled_there(self):
        """A call over midnight is the old day's."""
        client = stacked(lambda _, options: answer(10, delay=options["delay"]), usd=Decimal("0.10"))

        async def one(delay):
            return await client.call(
                [{"role": "user", "content": "a"}], {"max_tokens": 10, "delay": delay}, LLMEvent([], "")
            )

        async def main():
            await asyncio.sleep(86_390)
            old = asyncio.create_task(one(20))
            await asyncio.sleep(15)
            new = asyncio.create_task(one(1))
            refused, _ = await timed(one(1))
            await old
            await new
            return refused, (await timed(one(1)))[0]

        with capture() as calls:
            refused, last = run(main())
        assert (type(refused), refused.reserved, type(last), last.spent) == (
            BudgetExceeded, Decimal("0.1"), BudgetExceeded, Decimal("0.1"),
        )  # fmt: skip
        assert [call.reservations[0].used for call in calls if call.outcome == "ok"] == [Decimal("0.1"), Decimal("0.1")]

    def test_without_a_window_it_counts_for_ever(self):
        client = stacked(answer(10), usd=Decimal("0.10"), window=None)

        async def main():
            await ask(client)
            await asyncio.sleep(10**9)
            return await timed(ask(client))

        error, _ = run(main())
        assert (type(error), error.resets_at) == (BudgetExceeded, None)

    @pytest.mark.parametrize("jump", [-(10**9), -86_400, -1, 86_400, 10**9, 10**15])
    def test_a_clock_that_jumps_and_comes_back_forgets_nothing(self, jump):
        clock = [1_700_000_000.0]
        client = stacked(answer(10), usd=Decimal("0.10"), window="1d", store=MemoryBudgets(lambda: clock[0]))

        async def main():
            await ask(client)
            clock[0] += jump
            await timed(ask(client))
            clock[0] -= jump
            return await timed(ask(client))

        error, _ = run(main())
        assert type(error) is BudgetExceeded


class TestSettling:
    """10 cents are reserved for the answer, and 5 bytes sent."""

    def after(self, *steps, layers=(), patience=None, prices=cents, **settings):
        client = stacked(*steps, usd=1000, layers=layers, prices=prices, **settings)

        async def main():
            task = asyncio.create_task(ask(client))
            if patience is not None:
                await asyncio.sleep(patience)
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            assert len(asyncio.all_tasks()) == 1

        with capture() as calls:
            run(main())
        (record,) = calls[0].reservations
        (counted,) = run(self.left(client))
        assert counted.reserved == 0
        assert (counted.spent, record.used) == (int(record.settled * 10**9), record.settled)
        return record

    async def left(self, client):
        budgeting = next(bound.function for bound in client.bound if isinstance(bound.layer, Budget))
        store = budgeting._store
        ((_, account),) = store._ledger.accounts.items()
        return [account]

    def sent(self):
        """What reading the request may cost at most."""
        request = Request([{"role": "user", "content": "hello"}], {"max_tokens": 10}, None, False, None)
        return Estimate.of(request).input_tokens(CENTS) * CENT

    def test_an_answer(self):
        record = self.after(answer(3))
        assert (record.result, record.settled) == ("settled", Decimal("0.08"))
        assert record.reserved == self.sent() + Decimal("0.10")

    def test_a_silent_answer_costs_what_it_may_at_most(self):
        record = self.after("hi")
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_so_does_an_answer_of_unknown_cost(self):
        """Its price went while it was under way."""
        prices = iter([FREE_INPUT, None, None])
        record = self.after(Answer("hi", 5, None), prices=lambda model, now: next(prices, None))
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_a_failure_costs_nothing(self):
        record = self.after(LLMStatusError("down", 500))
        assert (record.result, record.settled) == ("settled", 0)

    def test_an_answer_that_came_in_shreds_costs_what_it_may_at_most(self):
        """It was made, and nobody knows how long it was."""
        record = self.after(LLMResponseError("no JSON"))
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_a_timeout_costs_what_it_may_at_most(self):
        record = self.after(answer(3, delay=9), layers=[Timeout("5s")])
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_so_does_a_deadline(self):
        record = self.after(answer(3, delay=9), outside=[Deadline("5s")])
        assert (record.result, record.settled) == ("estimated", record.reserved)

    def test_a_cancellation_costs_what_was_sent(self):
        record = self.after(answer(3, delay=9), patience=5)
        assert (record.result, record.settled) == ("estimated", self.sent())

    def test_and_what_is_known_of_the_answer(self):
        class Streaming(ScriptedClient):
            async def call(self, conversation, options, event, json_mode=False):
                event.prompt_tokens, event.completion_tokens = 5, 2
                return await super().call(conversation, options, event, json_mode)

        client = stack(Streaming(answer(9, delay=9), model_name="m"), Budget(usd=10, prices=cents, store=virtual()))

        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await ask(client)

        with capture() as calls:
            run(main())
        assert used(calls[0])[0][0::3] == ("settled", Decimal("0.07"))

    def test_what_was_never_sent_costs_nothing(self):
        async def refuse(request, inner):
            raise CircuitOpen("inside")

        record = self.after(answer(3), layers=[refuse])
        assert (record.result, record.settled) == ("released", 0)

    def test_a_cancellation_in_its_first_moment(self):
        record = self.after(answer(3, delay=9), patience=0)
        assert record.settled == self.sent()

    def test_a_call_that_is_thrown_away(self):
        """By the garbage collector: its coroutine is closed, and cannot wait for anything."""
        client = stacked(answer(3, delay=9), usd=1000, prices=cents)

        async def main():
            call = ask(client)
            call.send(None)
            call.close()

        with capture() as calls:
            run(main())
        gc.collect()
        (account,) = run(self.left(client))
        assert (account.reserved, account.spent) == (0, int(self.sent() * 10**9))
        assert calls[0].reservations[0].result == "estimated"

    def test_an_order_as_given_inside_the_retries(self):
        """There each attempt is reserved for by itself."""
        inner = ScriptedClient(LLMStatusError("down", 500), answer(3), model_name="m")
        client = stack(
            inner,
            Retry(backoff=Backoff(base=0)),
            Budget(usd=1, prices=free_input, store=virtual()),
            Timeout("5s"),
            Meter(prices=free_input),
            order="as given",
        )
        with capture() as calls:
            run(ask(client))
        assert [(each.result, each.settled) for each in calls[0].reservations] == [
            ("settled", 0), ("settled", Decimal("0.03"))
        ]  # fmt: skip

    def test_an_order_as_given_inside_an_attempt(self):
        client = stack(
            ScriptedClient(answer(3), model_name="m"),
            Timeout("5s"),
            Budget(usd=1, prices=free_input, store=virtual()),
            Meter(prices=free_input),
            order="as given",
        )
        with capture() as calls:
            run(ask(client))
        assert calls[0].reservations[0].settled == Decimal("0.03")


class TestRaces:
    def test_each_of_the_inferences_that_race_settles_its_own(self):
        client = stacked(
            answer(1, delay=60), answer(2, delay=60), answer(3, delay=1), usd=1, outside=[Hedge("3s", max_extra=2)]
        )
        with capture() as calls:
            assert run(timed(ask(client))) == ("hi", 7)
        assert [each.role for each in calls[0].inferences] == ["primary", "hedge", "hedge"]
        assert sorted((each.result, each.settled) for each in calls[0].reservations) == [
            ("estimated", 0), ("estimated", 0), ("settled", Decimal("0.03"))
        ]  # fmt: skip

    def test_a_fallback_may_be_for_it(self):
        """A cheaper model whose own bound fits."""
        rates = {"dear": FREE_INPUT, "cheap": Rates((Tier(0, Decimal(0), Decimal("0.001")),), "test")}

        def prices(model, now):
            return rates[model]

        dear, cheap = ScriptedClient("never", model_name="dear"), ScriptedClient(answer(5), model_name="cheap")
        client = stack(
            dear,
            Fallback(to=[cheap], when=("budget_exceeded",)),
            Budget(usd=Decimal("0.05"), prices=prices, store=virtual()),
            Meter(prices=prices),
        )
        with capture() as calls:
            assert run(ask(client)) == "hi"
        assert dear.calls == []
        assert [(each.result, each.reserved) for each in calls[0].reservations] == [
            ("refused", Decimal("0.1")), ("settled", CENT)
        ]  # fmt: skip
        assert [each.model for each in calls[0].inferences] == ["cheap"]

    def test_it_stands_once_and_at_its_place(self):
        budget = Budget(usd=1, prices=free_input)
        with pytest.raises(StackOrderError, match="use `limits` for several"):
            stack(ScriptedClient("a"), budget, budget)
        with pytest.raises(StackOrderError, match="belongs outside"):
            stack(ScriptedClient("a"), Retry(), budget)


class TestWaiting:
    def waiting(self, *steps, max_wait="2h", **settings):
        return stacked(
            *steps, usd=Decimal("0.10"), window="calendar hour", on_limit="wait", max_wait=max_wait, **settings
        )

    def both(self, client, *, one_by_one=False):
        async def main():
            if one_by_one:
                return await timed(ask(client)), await timed(ask(client))
            return await asyncio.gather(timed(ask(client)), timed(ask(client)))

        with capture() as calls:
            outcome = run(main())
        return outcome, calls

    def test_until_the_window_is_over(self):
        (first, second), calls = self.both(self.waiting(answer(10)))
        assert (first, second) == (("hi", 0), ("hi", 3600))
        (wait,) = calls[1].waits
        assert (wait.kind, wait.source, wait.before, wait.duration) == ("budget", "budget", 1, 3600)
        assert calls[0].waits == []
        assert calls[1].reservations[0].result == "settled"

    def test_until_others_have_settled_for_less(self):
        (_, second), calls = self.both(self.waiting(answer(0, delay=4.5)))
        assert second == ("hi", 9.5)
        assert (calls[1].waits[0].asked, calls[1].waits[0].duration) == (None, 5)

    def test_no_longer_than_it_may(self):
        (_, (error, when)), calls = self.both(self.waiting(answer(0, delay=60), max_wait="30s"))
        assert (type(error), when) == (BudgetExceeded, 30)
        assert [wait.duration for call in calls for wait in call.waits] == [30]
        assert calls[0].reservations[0].result == "refused"

    def test_not_at_all_where_it_is_plain_that_it_will_not_do(self):
        client = self.waiting(answer(10), max_wait="59m")
        (_, (error, when)), calls = self.both(client, one_by_one=True)
        assert (type(error), when, [call.waits for call in calls]) == (BudgetExceeded, 0, [[], []])
        too_dear, when = run(timed(ask(self.waiting(answer(10)), 11)))
        assert (type(too_dear), too_dear.resets_at, when) == (BudgetExceeded, None, 0)

    def test_nor_beyond_the_deadline(self):
        (_, (error, when)), _ = self.both(self.waiting(answer(10), outside=[Deadline("59m")]), one_by_one=True)
        assert (type(error), when) == (BudgetExceeded, 0)
        (_, (error, when)), calls = self.both(self.waiting(answer(0, delay=9), outside=[Deadline("5.5s")]))
        assert (type(error), when) == (DeadlineExceeded, 5.5)
        assert sorted(call.reservations[0].result for call in calls) == ["estimated", "released"]

    def test_a_cancellation_ends_it(self):
        client = self.waiting(answer(10))

        async def main():
            await ask(client)
            task = asyncio.create_task(ask(client))
            await asyncio.sleep(9)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert len(asyncio.all_tasks()) == 1

        with capture() as calls:
            run(main())
        assert [wait.duration for wait in calls[1].waits] == [9]
        assert calls[1].reservations[0].result == "released"


class TestWarning:
    def test_it_only_says_so(self):
        client = stacked(answer(10), usd=Decimal("0.10"), on_limit="warn", limits=[Limit(usd=100, name="other")])

        async def main():
            await ask(client)
            return await ask(client)

        with capture() as calls:
            assert run(main()) == "hi"
        assert [each[:2] for each in used(calls[0])] == [("settled", None)] * 2
        assert [each[:2] for each in used(calls[1])] == [("settled", "limit"), ("settled", None)]
        assert calls[1].reservations[0].used == Decimal("0.20")


class TestPrices:
    def test_no_price_no_call(self):
        client = stacked(answer(3), usd=1, prices=nobody)
        with capture() as calls:
            error, _ = run(timed(ask(client)))
        assert (type(error), error.model) == (UnknownPrice, "m")
        assert client.client.calls == []
        assert used(calls[0]) == [("refused", "unknown_price", None, None, None)]

    def test_or_it_is_allowed_and_said(self):
        with capture() as calls:
            run(ask(stacked(answer(3), usd=1, prices=nobody, on_unknown_price="allow")))
        assert used(calls[0]) == [("estimated", "unknown_price", None, 0, 0)]

    def test_what_is_known_afterwards_is_counted(self):
        """A gateway's own name is priced by the model that it says answered."""
        named = {"real": FREE_INPUT}
        client = stacked(
            Answer("hi", 5, 3, response_model="real"),
            usd=1,
            prices=lambda model, now: named.get(model),
            on_unknown_price="allow",
        )
        with capture() as calls:
            run(ask(client))
        assert used(calls[0]) == [("settled", "unknown_price", None, Decimal("0.03"), Decimal("0.03"))]


class TestAlerts:
    def test_once_for_each_share_in_a_window(self, caplog):
        given = []
        client = stacked(answer(10), usd=1, window="calendar hour", on_alert=given.append)

        async def main():
            for _ in range(2):
                for _ in range(12):
                    await timed(ask(client))
                await asyncio.sleep(3600)

        with caplog.at_level(logging.WARNING, "overcoat"), capture() as calls:
            run(main())
        assert [(alert.percent, alert.spent) for alert in given] == [
            (50, Decimal("0.5")), (80, Decimal("0.8")), (100, 1)
        ] * 2  # fmt: skip
        assert (given[0].budget, given[0].scope, given[0].limit) == ("global calendar hour", "global", 1)
        assert given[3].resets_at == datetime(1970, 1, 1, 2, tzinfo=UTC)
        assert [record.getMessage() for record in caplog.records] == [str(alert) for alert in given]
        assert str(given[0]) == (
            "the budget 'global calendar hour' of 'global' has reached 50 %: $0.50 of $1 are spent"
        )
        assert [each.alerts for call in calls for each in call.reservations if each.alerts] == 2 * [
            (50,), (80,), (100,)
        ]  # fmt: skip

    def test_a_sliding_window_says_it_again_when_it_has_forgotten(self):
        given = []
        client = stacked(answer(60), usd=1, window="1h", on_alert=given.append)

        async def main():
            await ask(client, 60)
            await asyncio.sleep(7200)
            await ask(client, 60)

        run(main())
        assert [alert.percent for alert in given] == [50, 50]

    def test_what_is_left_does_not_do_any_more(self):
        given = []
        client = stacked(answer(95), usd=1, on_alert=given.append)

        async def main():
            await ask(client, 95)
            await timed(ask(client))

        run(main())
        assert [(alert.percent, alert.spent) for alert in given] == [
            (50, Decimal("0.95")), (80, Decimal("0.95")), (100, Decimal("0.95"))
        ]  # fmt: skip

    def test_what_is_only_reserved_is_no_alert(self):
        given = []
        client = stacked(answer(1, delay=1), usd=1, on_alert=given.append)

        async def main():
            return await asyncio.gather(*[timed(ask(client, 100)) for _ in range(3)])

        run(main())
        assert given == []

    def test_tokens_are_said_as_such(self):
        given = []
        client = stacked(answer(995), tokens=1000, on_alert=given.append, on_limit="warn")
        run(ask(client))
        assert str(given[-1]).endswith("has reached 100 %: 1000 tokens of 1000 tokens are spent")

    def test_of_many_tenants_not_all_alerts_are_remembered(self, monkeypatch):
        """The oldest may be given once more."""
        monkeypatch.setattr(watch, "_REMEMBERED", 2)
        given = []
        client = stacked(answer(60), usd=1, scope="tag:tenant", on_alert=lambda alert: given.append(alert.scope))

        async def main():
            for tenant in "abca":
                with tags(tenant=tenant):
                    await ask(client, 10)

        run(main())
        assert given[:3] == ["tenant:a", "tenant:b", "tenant:c"]
        assert given[3:] == ["tenant:a"] * 3

    def test_a_callback_that_fails_harms_nobody(self, caplog):
        def fail(alert):
            raise RuntimeError("no pager")

        assert run(ask(stacked(answer(60), usd=1, on_alert=fail), 60)) == "hi"
        assert "on_alert failed" in caplog.text


class Broken(MemoryBudgets):
    """A store that answers only now and then."""

    def __init__(self, *broken):
        super().__init__(lambda: asyncio.get_running_loop().time())
        self.broken = set(broken)

    async def reserve(self, wants):
        if "reserve" in self.broken:
            raise ConnectionError("no route")
        return await super().reserve(wants)

    async def settle(self, held, amounts):
        if "settle" in self.broken:
            raise ConnectionError("no route")
        return await super().settle(held, amounts)


class TestStoreDown:
    def test_closed(self):
        client = stacked(answer(3), usd=1, store=Broken("reserve"))
        with capture() as calls:
            error, _ = run(timed(ask(client)))
        assert (type(error), error.reason, type(error.__cause__)) == (BudgetUnchecked, "store_failed", ConnectionError)
        assert "no route" in str(error)
        assert used(calls[0])[0][:2] == ("refused", "store_failed")
        assert client.client.calls == []

    def test_open(self):
        with capture() as calls:
            assert run(ask(stacked(answer(3), usd=1, store=Broken("reserve"), fail="open"))) == "hi"
        assert used(calls[0])[0][:2] == ("uncounted", "store_failed")

    def test_an_outage_is_said_once(self, caplog):
        store = Broken("reserve")
        client = stacked(answer(3), usd=1, store=store, fail="open")

        async def main():
            for broken in (["reserve"], ["reserve"], [], [], ["settle"]):
                store.broken = set(broken)
                await ask(client)

        with caplog.at_level(logging.INFO, "overcoat"):
            run(main())
        said = [(record.levelname, record.getMessage().split()[-2]) for record in caplog.records]
        assert said == [("WARNING", "not"), ("INFO", "answers"), ("WARNING", "not")]

    def test_an_answer_is_not_lost_where_it_cannot_be_settled(self):
        with capture() as calls:
            assert run(ask(stacked(answer(3), usd=1, store=Broken("settle")))) == "hi"
        assert used(calls[0]) == [("reserved", "store_failed", Decimal("0.1"), None, None)]


class Leasing(MemoryBudgets):
    """A store that must be told what is still under way."""

    lease = 60.0

    def __init__(self):
        super().__init__(lambda: asyncio.get_running_loop().time())
        self.renewed = []
        self.fails = False

    async def renew(self, held):
        self.renewed.append(asyncio.get_running_loop().time())
        if self.fails:
            raise ConnectionError


class TestLeases:
    @pytest.mark.parametrize("fails", [False, True])
    def test_they_are_renewed_while_the_inference_is_under_way(self, fails):
        store = Leasing()
        store.fails = fails

        async def main():
            await ask(stacked(answer(3, delay=70), usd=1, store=store))
            assert len(asyncio.all_tasks()) == 1
            await asyncio.sleep(100)

        run(main())
        assert store.renewed == [20, 40, 60]

    def test_a_short_one_needs_none(self):
        store = Leasing()
        run(ask(stacked(answer(3, delay=19), usd=1, store=store)))
        assert store.renewed == []

    def test_a_call_that_is_thrown_away(self):
        store = Leasing()
        client = stacked(answer(3, delay=50), usd=1, store=store)

        async def main():
            call = ask(client)
            pause = call.send(None)
            await asyncio.sleep(30)
            assert pause is not None
            call.close()
            await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1

        run(main())
        assert store.renewed == [20]


class TestTelemetry:
    def traced(self, *steps, **settings):
        telemetry = InMemoryTelemetry()
        trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        return telemetry, stacked(*steps, outside=[trace], **settings)

    def test_the_call_s_span_says_what_became_of_it(self):
        telemetry, client = self.traced(answer(60), usd=1)
        with tags(tenant="acme"):
            run(ask(client, 60))
        (span,) = telemetry.named("overcoat.call")
        said = {name: value for name, value in span.attributes.items() if name.startswith("overcoat.budget")}
        assert said == {
            "overcoat.budget.name": "global calendar day",
            "overcoat.budget.result": "settled",
            "overcoat.budget.alert": 50,
        }

    def test_a_refusal(self):
        telemetry, client = self.traced(answer(60), usd=1, limits=[Limit(usd=Decimal("0.1"), name="small")])
        run(timed(ask(client, 60)))
        (span,) = telemetry.named("overcoat.call")
        assert span.attributes["overcoat.budget.name"] == "small"
        assert span.attributes["overcoat.budget.result"] == "refused"
        assert span.attributes["overcoat.budget.reason"] == "limit"
        assert span.attributes["error.type"] == "budget_exceeded"
        assert telemetry.points("overcoat.budget.refusals") == {
            frozenset({("overcoat.budget.name", "small"), ("overcoat.budget.reason", "limit")}): 1
        }

    def test_a_wait_is_a_span_of_its_own(self):
        telemetry, client = self.traced(
            answer(10), usd=Decimal("0.1"), window="calendar hour", on_limit="wait", max_wait="2h"
        )

        async def main():
            await ask(client)
            await ask(client)

        run(main())
        (span,) = telemetry.named("budget.wait")
        assert span.parent.span_id == telemetry.named("overcoat.call")[1].context.span_id
        assert dict(span.attributes) == {"overcoat.wait.asked": 3600, "overcoat.wait.source": "budget"}
        assert span.end_time - span.start_time == pytest.approx(3600e9, abs=1000)
        assert telemetry.total("overcoat.wait.time", {"overcoat.wait.source": "budget"}) == 3600

    def test_gauges_and_counters(self):
        import time

        limits = [Limit(usd=2, scope="tag:tenant", name="tenants"), Limit(tokens=10_000, name="tokens")]
        telemetry, client = self.traced(
            answer(60), usd=1, limits=limits, store=MemoryBudgets(time.time), on_limit="warn"
        )

        async def main():
            for tenant, tokens in (("acme", 60), ("acme", 60), ("bolt", 10)):
                with tags(tenant=tenant):
                    await ask(client, tokens)

        run(main())
        day = ("overcoat.budget.window", "calendar day")

        def by_name(metric):
            return {dict(labels)["overcoat.budget.name"]: value for labels, value in telemetry.points(metric).items()}

        assert by_name("overcoat.budget.limit") == {"global calendar day": 1, "tenants": 2}
        assert by_name("overcoat.budget.used") == pytest.approx({"global calendar day": 1.8, "tenants": 1.2})
        assert all(day in labels and len(labels) == 2 for labels in telemetry.points("overcoat.budget.used"))
        assert by_name("overcoat.budget.token_limit") == {"tokens": 10_000}
        assert by_name("overcoat.budget.tokens_used") == {"tokens": 195}
        assert by_name("overcoat.budget.overrun") == pytest.approx({"global calendar day": 0.5, "tenants": 0.5})
        assert telemetry.total("overcoat.budget.alerts", {"overcoat.budget.name": "global calendar day"}) == 3
        assert telemetry.total("overcoat.budget.unchecked", {"overcoat.budget.reason": "limit"}) == 2
        assert "acme" not in str(telemetry.points("overcoat.budget.used"))

    def test_what_is_over_is_not_shown_as_used(self):
        """The store's clock, and so the window, is long before the machine's."""
        telemetry, client = self.traced(answer(60), usd=1)
        run(ask(client, 60))
        assert list(telemetry.points("overcoat.budget.used").values()) == [0]


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "either usd or tokens"),
            ({"usd": 1, "tokens": 1}, "either usd or tokens"),
            ({"usd": -1}, r"usd=-1.*0 or more"),
            ({"usd": float("nan")}, r"usd=nan"),
            ({"usd": Decimal("NaN")}, r"usd="),
            ({"usd": float("inf")}, r"usd=inf"),
            ({"usd": 10**8}, r"at most 9007199 dollars"),
            ({"tokens": -1}, r"tokens=-1"),
            ({"tokens": 1.5}, r"tokens=1.5"),
            ({"tokens": 2**60}, r"at most"),
            ({"usd": 1, "window": "1 day"}, r"no duration"),
            ({"usd": 1, "window": "5s"}, r'"1m" to "366d"'),
            ({"usd": 1, "window": "1000d"}, r'"1m" to "366d"'),
            ({"usd": 1, "window": "calendar fortnight"}, r'one of "calendar minute"'),
            ({"usd": 1, "zone": "Mars/Olympus"}, r"no such time zone"),
            ({"usd": 1, "zone": "/etc/passwd"}, r"no such time zone"),
            ({"usd": 1, "window": "1d", "zone": "Europe/Warsaw"}, r"only a window such as"),
            ({"usd": 1, "window": "calendar hour", "zone": "Europe/Warsaw"}, r"the same everywhere"),
            ({"usd": 1, "scope": "tenant"}, r'"global", "model", or a tag'),
            ({"usd": 1, "scope": "tag:"}, r'"global", "model", or a tag'),
            ({"usd": 1, "scope": None}, r'"global", "model", or a tag'),
            ({"usd": 1, "name": ""}, r"expected a text"),
        ],
    )
    def test_where_it_was_written(self, settings, message):
        with pytest.raises(ValueError, match=f"^Budget.*{message}"):
            Budget(**settings)
        if settings:
            with pytest.raises(ValueError, match=f"^Limit.*{message}"):
                Limit(**settings)

    @pytest.mark.parametrize("usd", ["1", "1 EUR", True, [1]])
    def test_what_is_no_number(self, usd):
        with pytest.raises(TypeError, match=r"expected US dollars as a number"):
            Budget(usd=usd)

    def test_other_currencies_are_unknown(self):
        with pytest.raises(TypeError, match="eur"):
            Budget(eur=1)

    @pytest.mark.parametrize(
        "settings",
        [
            {"on_limit": "block"},
            {"on_unknown_price": "warn"},
            {"on_missing_tag": "skip"},
            {"fail": "soft"},
            {"max_wait": -1},
            {"default_output_tokens": 0},
            {"attempts": 0},
        ],
    )
    def test_the_layer_s_own(self, settings):
        with pytest.raises(ValueError, match=f"Budget.*{next(iter(settings))}"):
            Budget(usd=1, **settings)

    def test_a_password_is_not_shown(self):
        budget = Budget(usd=1, store="redis://:secret@localhost/0", prices=free_input)
        layer = stack(ScriptedClient("a", model_name="m"), budget).bound[0]
        assert "secret" not in repr((budget, layer.function._store))
        assert repr(layer.function._store) == "RedisBudgets('redis://localhost/0')"

    @pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "sqlite://", "budgets.db", ""])
    def test_a_store_that_is_none(self, url):
        with pytest.raises(PolicyError, match="no store of budgets") as caught:
            stack(ScriptedClient("a"), Budget(usd=1, store=url, prices=free_input))
        assert "secret" not in str(caught.value)


tokens = st.integers(0, 30)
people = st.lists(
    st.tuples(tokens, tokens, st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([None, 0.0, 0.2, 2.0]), st.booleans()),
    max_size=20,
)


@given(people, st.sampled_from(["raise", "wait"]))
def test_no_interleaving_spends_more_than_the_limit_and_the_overrun(people, on_limit):
    """Callers of any patience, answers of any length, failures that are billed."""

    class Provider:
        model_name = "m"
        billed = 0

        async def call(self, conversation, options, event, json_mode=False):
            await asyncio.sleep(options["delay"])
            event.prompt_tokens, event.completion_tokens = 1, options["used"]
            self.billed += options["used"]
            if options["fails"]:
                raise Failing
            return "hi"

    class Failing(OvercoatError):
        pass

    provider = Provider()
    budget = Budget(usd=1, window=None, on_limit=on_limit, prices=free_input, store=virtual())
    client = stack(provider, budget, Meter(prices=free_input))

    async def one(most, used, delay, patience, fails):
        options = {"max_tokens": most, "used": used, "delay": delay, "fails": fails}
        try:
            async with asyncio.timeout(patience):
                await client.call([{"role": "user", "content": "a"}], options, LLMEvent([], "test"))
        except (BudgetExceeded, TimeoutError, Failing):
            pass

    async def main():
        await asyncio.gather(*[one(*person) for person in people])
        assert len(asyncio.all_tasks()) == 1

    with capture() as calls:
        run(main())
    records = [each for call in calls for each in call.reservations]
    overrun = sum(each.overrun for each in records)
    settled = sum(each.settled for each in records if each.settled is not None)
    assert settled <= 1 + overrun
    assert provider.billed * CENT <= settled
    accounts = list(budget.store._ledger.accounts.values())
    assert all(account.reserved == 0 for account in accounts)
    assert sum(account.spent for account in accounts) == settled * 10**9
