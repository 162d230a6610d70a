"""Holds `Meter` to pricing what the provider charged for, once and beside it, and to harming no call in doing so."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Backoff,
    Cost,
    LLMEvent,
    LLMStatusError,
    Meter,
    PolicyError,
    Retry,
    Timeout,
    Trace,
    UnknownPrice,
    Usage,
    capture,
    stack,
)
from overcoat.errors import AttemptTimeout
from overcoat.pricing import genai
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

HELLO = [{"role": "user", "content": "hello"}]
CENT = Rates((Tier(0, Decimal("0.01"), Decimal("0.02")),), "cents 1")  # for a token of input, two for one of output
DIME = Rates((Tier(0, Decimal("0.1"), Decimal("0.2")),), "dimes 1")
HALF_HOUR = 1_800
AT_ONCE = Retry(max_attempts=5, backoff=Backoff(base=0))


def event(**fields: Any) -> LLMEvent:
    return LLMEvent(prompt=HELLO, type="test", **fields)


class Source:
    """A price source that remembers what it was asked."""

    def __init__(self, **known: Rates) -> None:
        self.known = known
        self.asked: list[tuple[str, float]] = []

    def __call__(self, model: str, now: float) -> Rates | None:
        self.asked.append((model, now))
        return self.known.get(model)


class Charging(ScriptedClient):
    """Reports what it used before it fails, as a provider that answers and then breaks off."""

    def __init__(self, *used: tuple[int, int, BaseException | str], **options: Any) -> None:
        super().__init__(*(outcome for _, _, outcome in used), **options)
        self.used = used

    async def call(self, conversation, options, event, json_mode=False):
        event.prompt_tokens, event.completion_tokens, _ = self.used[len(self.calls)]
        return await super().call(conversation, options, event, json_mode)


def called(client, *layers, meter):
    """Call *client* once and return the record."""
    with capture() as calls, suppress(LLMStatusError):
        run(stack(client, *layers, meter).call(HELLO, None, event()))
    (call,) = calls
    return call


class TestPrice:
    def test_a_known_model(self):
        call = called(ScriptedClient(Answer("hi", 100, 10), model_name="m"), meter=Meter(prices=Source(m=CENT)))
        assert [(attempt.cost, attempt.price_source) for attempt in call.attempts] == [(Decimal("1.2"), "cents 1")]
        assert call.cost == Cost(billed=Decimal("1.2"), saved=Decimal(0), wasted=Decimal(0))

    def test_an_unknown_model_costs_none_and_never_0(self):
        call = called(ScriptedClient(Answer("hi", 100, 10), model_name="m"), meter=Meter(prices=Source()))
        assert [(attempt.cost, attempt.price_source) for attempt in call.attempts] == [(None, None)]
        assert call.cost == Cost(billed=None, saved=Decimal(0), wasted=Decimal(0))

    @pytest.mark.parametrize(
        "answer", [Answer("hi"), Answer("hi", prompt_tokens=10), Answer("hi", completion_tokens=3)]
    )
    def test_an_answer_without_both_counts_costs_none(self, answer):
        """The provider charged for it; nobody knows what."""
        call = called(ScriptedClient(answer, model_name="m"), meter=Meter(prices=Source(m=CENT)))
        assert call.cost.billed is None

    def test_a_client_without_a_name(self):
        client = ScriptedClient(Answer("hi", 100, 10))
        client.model_name = None
        source = Source()
        assert called(client, meter=Meter(prices=source)).cost.billed is None
        assert not source.asked

    def test_cached_tokens_are_priced_as_such(self):
        rates = Rates((Tier(0, Decimal(1), Decimal(1), cache_read=Decimal("0.1")),), "test")
        client = ScriptedClient(Answer("hi", 100, 0, cached_tokens=80), model_name="m")
        assert called(client, meter=Meter(prices=Source(m=rates))).cost.billed == 28

    def test_out_of_the_box(self):
        call = called(ScriptedClient(Answer("hi", 1_000, 100), model_name="openai/gpt-4o"), meter=Meter())
        assert call.cost.billed == genai.rates("gpt-4o", time.time()).cost(Usage(1_000, 100))
        assert call.duration == 0


class TestMarks:
    """No number is wrong without one."""

    CACHED = Rates((Tier(0, Decimal(1), Decimal(1), cache_read=Decimal("0.1")),), "test")

    @pytest.mark.parametrize(("details", "bound"), [({}, True), ({"cached_tokens": 0}, False)])
    def test_an_upper_bound(self, details, bound):
        client = ScriptedClient(Answer("hi", 100, 0, **details), model_name="m")
        (attempt,) = called(client, meter=Meter(prices=Source(m=self.CACHED))).attempts
        assert (attempt.cost, attempt.upper_bound) == (100, bound)

    def test_without_a_cost_there_is_no_bound(self):
        client = ScriptedClient(Answer("hi", 100), model_name="m")
        (attempt,) = called(client, meter=Meter(prices=Source(m=self.CACHED))).attempts
        assert (attempt.cost, attempt.upper_bound) == (None, False)

    @pytest.mark.parametrize(
        ("said", "anomaly", "cost"),
        [
            ({"prompt_tokens": -1, "completion_tokens": 5}, "negative", None),
            ({"prompt_tokens": 10**12, "completion_tokens": 5}, "absurd", None),
            ({"prompt_tokens": "10", "completion_tokens": 5}, "not_a_number", None),
            ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 99}, "total_mismatch", Decimal("0.2")),
            ({"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 99}, "part_exceeds_whole", Decimal("0.2")),
        ],
    )
    def test_counts_that_make_no_sense(self, said, anomaly, cost):
        """The caller has the answer, and the record a word for what was wrong with the counts."""
        answer = Answer("hi")
        answer.event_fields.update(said)
        call = called(ScriptedClient(answer, model_name="m"), meter=Meter(prices=Source(m=CENT)))
        assert (call.outcome, call.attempts[0].anomaly, call.cost.billed) == ("ok", anomaly, cost)

    def test_marks_are_seen(self):
        """On the spans, and counted where what makes no sense would otherwise go by."""
        telemetry = InMemoryTelemetry()
        trace = Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
        client = ScriptedClient(Answer("hi", 100, 0, cached_tokens=-1), Answer("hi", 100, 0, cached_tokens=1))
        stacked = stack(client, trace, Meter(prices=Source(scripted=self.CACHED)))
        for _ in range(2):
            run(stacked.call(HELLO, None, event()))
        marks = [
            (span.attributes.get("overcoat.cost.upper_bound"), span.attributes.get("overcoat.usage.anomaly"))
            for span in (*telemetry.named("chat"), *telemetry.named("overcoat.call"))
        ]
        assert marks == [(True, "negative"), (None, None), (True, None), (None, None)]
        anomaly = {"overcoat.model": "scripted", "overcoat.usage.anomaly": "negative"}
        assert telemetry.points("overcoat.usage.anomalies") == {frozenset(anomaly.items()): 1}

    def test_how_it_was_served_has_its_price(self):
        rates = Rates(CENT.tiers, "test", services={"flex": (Tier(0, Decimal("0.001"), Decimal(0)),)})
        prices = {}
        for service in ("flex", "default", "batch", "ultra"):
            client = ScriptedClient(Answer("hi", 100, 0, service_tier=service), model_name="m")
            (attempt,) = called(client, meter=Meter(prices=Source(m=rates))).attempts
            prices[service] = (attempt.cost, attempt.upper_bound)
        assert prices == {
            "flex": (Decimal("0.1"), False),
            "default": (1, False),
            "batch": (1, True),  # sold for less, nobody here knows how much
            "ultra": (None, False),
        }


class TestUnknownPrice:
    """What a model without a price means."""

    def test_by_default_it_is_said_once(self, caplog):
        client = stack(ScriptedClient(Answer("hi", 1, 1), model_name="m"), Meter(prices=Source()))
        with caplog.at_level("WARNING", "overcoat"):
            for _ in range(3):
                run(client.call(HELLO, None, event()))
        (warning,) = caplog.messages
        assert warning == "the model 'm' has no price, and its cost is unknown; a price table can declare one"

    def test_only_a_thousand_names_are_remembered(self, caplog):
        metering = Meter(prices=Source()).bind(ScriptedClient("hi", model_name="m"))
        for number in range(1_100):
            metering._warn(f"model {number}")
        assert len(metering._warned) == len(caplog.messages) == 1_000

    @pytest.mark.parametrize("model", ["m", None])
    def test_raise_is_for_the_stack_and_not_for_answers(self, model):
        """What was paid for is never lost: a missing price is found out before the first call, or only warned of."""
        client = ScriptedClient(Answer("hi", 1, 1), model_name="m")
        client.model_name = model
        with pytest.raises(UnknownPrice) as caught:
            stack(client, Meter(prices=Source(), on_unknown_price="raise"))
        assert caught.value.model == model

    def test_a_price_that_expires_overnight_stops_nothing_where_it_raises(self, monkeypatch, caplog):
        source = Source(m=CENT)
        client = stack(
            ScriptedClient(Answer("hi", 1, 1), model_name="m"), Meter(prices=source, on_unknown_price="raise")
        )
        source.known.clear()
        now = time.time() + HALF_HOUR
        monkeypatch.setattr(time, "time", lambda: now)
        with capture() as calls:
            run(client.call(HELLO, None, event()))
        assert (calls[0].outcome, calls[0].cost.billed) == ("ok", None)
        assert "has no price" in caplog.text

    @pytest.mark.parametrize("model", ["m", None])
    def test_block_refuses_the_call_before_it_is_sent(self, model):
        scripted = ScriptedClient(Answer("hi", 1, 1, response_model="known"), model_name="m")
        scripted.model_name = model
        client = stack(scripted, AT_ONCE, Meter(prices=Source(known=CENT), on_unknown_price="block"))
        with capture() as calls, pytest.raises(UnknownPrice):
            run(client.call(HELLO, None, event()))
        assert not scripted.calls
        assert (calls[0].outcome, calls[0].error_type, len(calls[0].attempts)) == ("refused", "unknown_price", 1)
        assert calls[0].cost == Cost(Decimal(0), Decimal(0), Decimal(0))

    def test_block_lets_through_what_has_a_price_also_one_of_0(self):
        free = Rates((Tier(0, Decimal(0), Decimal(0)),), "free")
        meter = Meter(prices=Source(m=free), on_unknown_price="block")
        assert called(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter=meter).cost.billed == 0

    def test_there_is_no_fourth_way(self):
        with pytest.raises(ValueError, match=r"^Meter\(on_unknown_price='ignore'\): expected \"warn\""):
            Meter(on_unknown_price="ignore")


class TestPrices:
    """Where prices come from; see the tests of `overcoat.pricing.sources`."""

    def test_a_table(self, tmp_path):
        path = tmp_path / "prices.yaml"
        path.write_text("version: 1\nprices: [{match: m, input: 10000, output: 20000}]\n")
        call = called(ScriptedClient(Answer("hi", 100, 10), model_name="m"), meter=Meter(prices=path))
        assert call.cost.billed == Decimal("1.2")
        assert call.attempts[0].price_source.startswith("prices.yaml:2 ")

    def test_a_table_with_mistakes_is_refused_where_it_is_given(self, tmp_path):
        with pytest.raises(PolicyError, match="cannot be read"):
            Meter(prices=tmp_path / "none.yaml")

    def test_what_is_none_is_refused_where_it_is_given(self):
        with pytest.raises(TypeError, match=r"^Meter\(prices=0.01\): expected a function"):
            Meter(prices=0.01)

    def test_it_is_read_once(self, tmp_path):
        path = tmp_path / "prices.yaml"
        path.write_text("version: 1\nprices: []\n")
        meter = Meter(prices=(path,))
        path.unlink()
        assert called(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter=meter).cost.billed is None
        assert meter.source is meter.source


class TestWaste:
    """A failure is charged for where the provider says that it used tokens."""

    def test_a_failed_attempt_with_usage(self):
        client = Charging((100, 0, LLMStatusError("down", 503)), (100, 10, "hi"), model_name="m")
        call = called(client, AT_ONCE, meter=Meter(prices=Source(m=CENT)))
        assert [attempt.cost for attempt in call.attempts] == [1, Decimal("1.2")]
        assert call.cost == Cost(billed=Decimal("2.2"), saved=Decimal(0), wasted=Decimal(1))

    def test_a_failed_attempt_without_usage_is_free(self):
        client = ScriptedClient(LLMStatusError("down", 503), Answer("hi", 100, 10), model_name="m")
        call = called(client, AT_ONCE, meter=Meter(prices=Source(m=CENT)))
        assert [attempt.cost for attempt in call.attempts] == [None, Decimal("1.2")]
        assert call.cost == Cost(billed=Decimal("1.2"), saved=Decimal(0), wasted=Decimal(0))

    def test_an_attempt_that_ran_out_of_time(self):
        """Where the answer came too late, it was charged for all the same."""

        class Slow(Charging):
            async def call(self, conversation, options, event, json_mode=False):
                answer = await super().call(conversation, options, event, json_mode)
                await asyncio.sleep(5 if len(self.calls) == 1 else 60)
                return answer

        client = stack(
            Slow((1, 0, "hi"), (100, 0, "too late"), model_name="m"), Timeout("10s"), Meter(prices=Source(m=CENT))
        )

        async def main():
            await client.call(HELLO, None, event())
            with pytest.raises(AttemptTimeout):
                await client.call(HELLO, None, event())

        with capture() as calls:
            run(main())
        assert calls[1].cost == Cost(billed=Decimal(1), saved=Decimal(0), wasted=Decimal(1))

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans()), min_size=1, max_size=5))
    def test_the_columns_add_up(self, attempts):
        """Whatever happened: billed is the sum of all attempts, and wasted of those that gave no answer."""
        last = next((index for index, (_, _, ok) in enumerate(attempts) if ok), len(attempts) - 1)
        used = [(i, o, "hi" if ok else LLMStatusError("down", 503)) for i, o, ok in attempts[: last + 1]]
        retry = Retry(max_attempts=len(used), backoff=Backoff(base=0))
        call = called(Charging(*used, model_name="m"), retry, meter=Meter(prices=Source(m=CENT)))
        costs = [(i + 2 * o) * Decimal("0.01") for i, o, _ in used]
        assert [attempt.cost for attempt in call.attempts] == costs
        assert call.cost.billed == sum(costs)
        assert call.cost.wasted == sum(
            cost for cost, (_, _, outcome) in zip(costs, used, strict=True) if outcome != "hi"
        )


class TestResponseModel:
    """A gateway's own name has no price; the model that it says answered may have one."""

    def test_the_answering_model_s_price(self):
        client = ScriptedClient(Answer("hi", 100, 10, response_model="m"), model_name="router")
        source = Source(m=DIME)
        call = called(client, meter=Meter(prices=source))
        assert (call.cost.billed, call.attempts[0].price_source) == (12, "dimes 1")
        assert [model for model, _ in source.asked] == ["router", "m"]

    def test_a_client_without_a_name(self):
        client = ScriptedClient(Answer("hi", 100, 10, response_model="m"))
        client.model_name = None
        assert called(client, meter=Meter(prices=Source(m=DIME))).cost.billed == 12

    def test_as_the_caller_named_it_comes_first(self):
        client = ScriptedClient(Answer("hi", 100, 10, response_model="m-2024-08-06"), model_name="m")
        source = Source(**{"m": CENT, "m-2024-08-06": DIME})
        assert called(client, meter=Meter(prices=source)).attempts[0].price_source == "cents 1"
        assert [model for model, _ in source.asked] == ["m"]

    def test_neither_is_known(self):
        client = ScriptedClient(Answer("hi", 100, 10, response_model="m"), model_name="router")
        assert called(client, meter=Meter(prices=Source())).cost.billed is None

    def test_a_failed_attempt_is_priced_like_an_answer(self):
        """Else the bill of the same failure depends on whether an answer came before it."""

        class Gateway(Charging):
            async def call(self, conversation, options, event, json_mode=False):
                event.response_model = "m"
                return await super().call(conversation, options, event, json_mode)

        client = Gateway((100, 0, LLMStatusError("down", 503)), (100, 10, "hi"), model_name="router")
        call = called(client, AT_ONCE, meter=Meter(prices=Source(m=CENT)))
        assert call.cost.wasted == 1


class TestLookUp:
    def test_when_the_stack_is_made_and_once_however_many_calls(self):
        """A look-up costs a hundred times what the arithmetic does, and the first one imports a library."""
        source = Source(m=CENT)
        client = stack(ScriptedClient(Answer("hi", 1, 1, delay=1), model_name="m"), Meter(prices=source))
        assert [model for model, _ in source.asked] == ["m"]

        async def main():
            await asyncio.gather(*(client.call(HELLO, None, event()) for _ in range(20)))
            await client.call(HELLO, None, event())

        with capture() as calls:
            run(main())
        assert [model for model, _ in source.asked] == ["m"]
        assert [call.cost.billed for call in calls] == [Decimal("0.03")] * 21

    def test_in_the_caller_s_thread(self):
        """No thread of ours: a process may be forked between two calls, and a cancellation waits for nothing."""
        before, threads = threading.active_count(), []
        client = stack(
            ScriptedClient(Answer("hi", 1, 1, response_model="m"), model_name="router"),
            Meter(prices=lambda model, now: threads.append(threading.current_thread())),
        )
        run(client.call(HELLO, None, event()))
        assert threads == [threading.main_thread()] * 2
        assert threading.active_count() == before

    def test_for_each_model_and_half_hour(self, monkeypatch):
        """Some models have prices by the time of day, all may change from day to day, and processes live on."""
        now = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
        source = Source(m=CENT, router=None, other=DIME)
        monkeypatch.setattr(time, "time", lambda: now)
        mine = stack(ScriptedClient(Answer("hi", 1, 0), model_name="m"), Meter(prices=source))
        gateway = stack(
            ScriptedClient(Answer("hi", 1, 0, response_model="other"), model_name="router"), Meter(prices=source)
        )

        async def main():
            for client in (mine, gateway, mine, gateway):
                await client.call(HELLO, None, event())

        begun = now
        for _ in range(3):
            run(main())
            now += HALF_HOUR - 1
            run(main())
            now += 1
        moments = [begun, begun + HALF_HOUR, begun + 2 * HALF_HOUR]
        assert sorted(source.asked) == [(model, moment) for model in ("m", "other", "router") for moment in moments]

    @pytest.mark.parametrize("clock", ["12:00", "16:15", "16:29:59", "16:30", "23:59", "00:29:59", "00:30"])
    def test_at_the_moment_of_the_call(self, clock, monkeypatch):
        """deepseek-chat is cheaper from 16:30 to 00:30 UTC; the stack was made before noon."""
        now = datetime(2026, 11, 23, 11, 45, tzinfo=UTC).timestamp()
        monkeypatch.setattr(time, "time", lambda: now)
        client = stack(ScriptedClient(Answer("hi", 10**6, 0), model_name="deepseek-chat"), Meter())
        now = datetime.fromisoformat(f"2026-11-24T{clock}+00:00").timestamp()
        with capture() as calls:
            run(client.call(HELLO, None, event()))
        assert calls[0].cost.billed == genai.rates("deepseek-chat", now).cost(Usage(10**6, 0))

    def test_of_a_thousand_models_at_most_are_rates_kept(self):
        """The provider says what answered, and could say anything: a process must not grow by that."""
        metering = Meter(prices=Source(known=CENT)).bind(ScriptedClient("hi", model_name="known"))
        for number in range(2_500):
            assert metering.rates(f"model {number}", 0.0) is None
            assert metering.rates("known", 0.0) is CENT
            assert len(metering.rates._rates) <= 1_000

    def test_a_stack_may_serve_one_loop_after_another(self):
        client = stack(ScriptedClient(Answer("hi", 1, 1), model_name="m"), Meter(prices=Source(m=CENT)))
        with capture() as calls:
            for _ in range(3):
                asyncio.run(client.call(HELLO, None, event()))
        assert [call.cost.billed for call in calls] == [Decimal("0.03")] * 3

    def test_a_source_that_raises_is_reported_and_harms_nothing(self, caplog):
        def source(model, now):
            raise OSError("no such table")

        with caplog.at_level("ERROR", "overcoat"):
            call = called(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter=Meter(prices=source))
        assert (call.outcome, call.cost.billed) == ("ok", None)
        (report,) = caplog.records
        assert "failed for the model 'm'; its cost is unknown" in report.message
        assert isinstance(report.exc_info[1], OSError)

    @pytest.mark.parametrize("rates", [0.01, Decimal(1), {"input": 1}])
    def test_a_source_that_returns_something_else_is_reported_and_harms_nothing(self, rates, caplog):
        """The answer was paid for: a mistake in a function that prices it must not take it from the caller."""
        client = ScriptedClient(Answer("hi", 1, 1), model_name="m")
        with caplog.at_level("ERROR", "overcoat"):
            call = called(client, meter=Meter(prices=lambda model, now: rates))
        assert (call.outcome, call.cost.billed) == ("ok", None)
        (report,) = caplog.records
        assert f"gave {rates!r} for the model 'm'; expected Rates" in report.message

    @pytest.mark.parametrize("answered", [True, False])
    def test_a_cancelled_call_is_charged_for_what_it_used(self, answered):
        """Whoever leaves: what the provider reported until then has its price."""

        async def hang(conversation, options):
            await asyncio.get_running_loop().create_future()

        async def leave(request, inner):
            reply = await inner(request)
            await asyncio.get_running_loop().create_future()
            return reply

        scripted = Charging((1, 1, "hi" if answered else hang), model_name="m")
        client = stack(scripted, leave, Meter(prices=Source(m=CENT)))

        async def main():
            task = asyncio.create_task(client.call(HELLO, None, event()))
            await asyncio.sleep(1)
            assert scripted.in_flight == (not answered)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with capture() as calls:
            run(main())
        cent = Decimal("0.03")
        assert [(call.outcome, call.cost) for call in calls] == [("cancelled", Cost(cent, Decimal(0), cent))]


def test_repr_reads_like_the_code():
    """A function has no code to show: prices are left out."""
    assert repr(Meter()) == repr(Meter(prices=Source())) == "Meter()"
