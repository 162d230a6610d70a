"""The record: its sums and its times."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal, Inexact, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Attempt, Call, LLMEvent, LLMStatusError, Lookup, Retry, Usage, capture, stack
from overcoat.record import Inference
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]

counts = st.none() | st.integers(0, 10**6)
usages = st.builds(Usage, *[counts] * len(fields(Usage)))
amounts = st.none() | st.decimals(0, 10, places=9)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 9),
    model=st.just("m"),
    started=st.floats(0, 100),
    ended=st.just(101.0),
    error_type=st.none() | st.just("timeout"),
    usage=st.none() | usages,
    cost=amounts,
)


def call_with(*inferences, outcome="ok", cache=None):
    call = Call("Client", "m", False, {}, 0.0, 0.0)
    call.inferences = [Inference("m", 0.0, attempts=list(each)) for each in inferences]
    call.outcome, call.cache = outcome, cache
    return call


async def ask(client):
    return await client.call(CONVERSATION, None, LLMEvent([], "test"))


@given(st.lists(st.lists(attempts, max_size=3), max_size=3), st.data())
def test_the_columns_of_a_call(groups, data):
    """All that was charged is billed, and what did not answer is wasted; one unknown price makes a sum unknown."""
    call = call_with(*groups)
    everything = [attempt for group in groups for attempt in group]
    answered_by = data.draw(st.sampled_from([attempt for attempt in everything if attempt.ok] or [None]))
    call.settle(answered_by)
    charged = [attempt for attempt in everything if attempt.charged]
    others = [attempt for attempt in charged if attempt is not answered_by]
    for column, of in ((call.cost.billed, charged), (call.cost.wasted, others)):
        costs = [attempt.cost for attempt in of]
        assert column == (None if None in costs else sum(costs, Decimal(0)))
    assert call.cost.saved == 0


@pytest.mark.parametrize(
    ("outcome", "result", "saved"),
    [
        ("ok", "hit", Decimal("0.5")),
        ("ok", "coalesced", Decimal("0.5")),
        ("ok", "miss", 0),
        ("error", "coalesced", 0),
        ("cancelled", "coalesced", 0),
    ],
)
def test_only_an_answer_that_was_served_saves(outcome, result, saved):
    call = call_with(outcome=outcome, cache=Lookup(result, 0.0, 0.0, usage=Usage(1, 2, 3), cost=Decimal("0.5")))
    call.settle(None)
    assert (call.cost.billed, call.cost.saved, call.cost.wasted) == (0, saved, 0)


def test_a_saving_of_unknown_price_is_unknown():
    call = call_with(cache=Lookup("hit", 0.0, 0.0))
    call.settle(None)
    assert call.cost.saved is None


def test_without_a_meter_the_cost_is_unknown():
    """It is not 0: the provider charged, and nobody looked up what."""
    with capture() as calls:
        run(ask(stack(ScriptedClient(Answer("hi", 1, 1)))))
    assert calls[0].cost.billed is None


def test_times_are_on_one_clock():
    client = stack(ScriptedClient(LLMStatusError("down", 500), Answer("hi", delay=3)), Retry(random=lambda: 0.5))
    with capture() as calls:
        run(ask(client))
    (call,) = calls
    assert call.duration == 3.25
    assert [attempt.duration for attempt in call.attempts] == [0, 3]
    assert call.at(call.ended) - call.at(call.started) == pytest.approx(3.25)


def test_attempts_are_in_order_of_their_beginning():
    early, late = Attempt(1, "m", 1.0), Attempt(1, "m", 2.0)
    assert list(call_with([late], [early]).attempts) == [early, late]


def test_sums_do_not_depend_on_the_application_s_decimal_context():
    """It may round to a few digits, or raise where a result is inexact."""
    first = Attempt(1, "m", 0.0, ended=1.0, cost=Decimal("0.123456789"))
    second = Attempt(2, "m", 1.0, ended=2.0, cost=Decimal(9))
    call = call_with([first, second])
    with localcontext(prec=3, traps=[Inexact]):
        call.settle(second)
    assert (call.cost.billed, call.cost.wasted) == (Decimal("9.123456789"), Decimal("0.123456789"))
