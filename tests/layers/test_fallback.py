"""`Fallback`: when another model is asked, through which layers, and what is recorded."""

from __future__ import annotations

from decimal import Decimal

import pytest

from overcoat import (
    Backoff,
    CircuitOpen,
    Fallback,
    LLMEvent,
    LLMStatusError,
    Meter,
    Retry,
    Trace,
    capture,
    stack,
)
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]
DOWN = LLMStatusError("down", 500)
PRICES = {"openai/gpt-4o": Decimal(2), "anthropic/claude-sonnet-4-5": Decimal(3)}
NOW = Retry(max_attempts=2, backoff=Backoff(base=0))


def prices(model, now):
    return Rates((Tier(0, PRICES[model], PRICES[model]),), "test")


def first(*steps):
    return ScriptedClient(*steps, model_name="openai/gpt-4o")


def second(*steps):
    return ScriptedClient(*steps, model_name="anthropic/claude-sonnet-4-5")


def ask(client):
    return run(client.call(CONVERSATION, None, LLMEvent([], "test")))


def test_the_first_is_enough_where_it_answers():
    other = second("b")
    assert ask(stack(first("a"), Fallback([other]), NOW)) == "a"
    assert not other.calls


def test_each_target_has_retries_of_its_own():
    one, two = first(DOWN), second(DOWN, "b")
    assert ask(stack(one, Fallback([two]), NOW)) == "b"
    assert (len(one.calls), len(two.calls)) == (2, 2)


def test_a_target_that_is_a_stack_goes_through_its_own_layers():
    one, two = first(DOWN), second(DOWN)
    with pytest.raises(LLMStatusError):
        ask(stack(one, Fallback([stack(two, Retry(max_attempts=4, backoff=Backoff(base=0)))]), NOW))
    assert (len(one.calls), len(two.calls)) == (2, 4)


def test_targets_in_their_order_and_the_last_error():
    errors = [LLMStatusError(str(n), 500) for n in range(3)]
    clients = [first(errors[0]), second(errors[1]), ScriptedClient(errors[2])]
    with pytest.raises(LLMStatusError) as caught:
        ask(stack(clients[0], Fallback(clients[1:])))
    assert caught.value is errors[2]
    assert [len(client.calls) for client in clients] == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "when", "falls_back"),
    [
        (503, ("overloaded",), True),
        (503, ("server_error",), False),
        (402, ("quota_exhausted",), True),
        (401, ("auth",), True),
        (400, ("overloaded", "auth"), False),
        (413, ("context_too_long",), True),
        (413, ("overloaded",), False),
    ],
)
def test_causes(status, when, falls_back):
    other = second("b")
    client = stack(first(LLMStatusError("no", status)), Fallback([other], when=when))
    if falls_back:
        assert ask(client) == "b"
    else:
        with pytest.raises(LLMStatusError):
            ask(client)
    assert len(other.calls) == falls_back


def of(model, *steps):
    return ScriptedClient(*steps, model_name=model)


@pytest.mark.parametrize(
    ("models", "asked"),
    [
        (["openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4.1"], [1, 0, 1]),
        (["openai/gpt-4.1", "openai/gpt-4o"], [1, 0]),
        (["openai/gpt-4o", "openai/gpt-4.1", "anthropic/claude-sonnet-4-5"], [1, 1, 0]),  # larger than the first
        (["openai/gpt-4o", "own/model", "openai/gpt-4.1"], [1, 1, 1]),  # nobody knows whether it is larger
        (["openai/gpt-4.1", "own/model", "openai/gpt-4o"], [1, 1, 0]),
        ([None, "openai/gpt-4o"], [1, 1]),
        ([7, "openai/gpt-4o", ""], [1, 1, 1]),
    ],
)
def test_a_prompt_that_is_too_long_goes_to_a_larger_model_only(models, asked):
    errors = [LLMStatusError(str(model), 413) for model in models]
    clients = [of(model, error) for model, error in zip(models, errors, strict=True)]
    with pytest.raises(LLMStatusError) as caught:
        ask(stack(clients[0], Fallback(clients[1:], when=("context_too_long",))))
    assert [len(client.calls) for client in clients] == asked
    assert caught.value is [error for error, count in zip(errors, asked, strict=True) if count][-1]


def test_for_other_causes_a_smaller_model_will_do():
    assert ask(stack(of("openai/gpt-4.1", DOWN), Fallback([of("openai/gpt-4o", "b")]))) == "b"


def test_an_open_breaker_is_a_cause():
    async def broken(request, inner):
        if request.call.model == "openai/gpt-4o" and not request.call.inferences[1:]:
            raise CircuitOpen("openai", 5.0)
        return await inner(request)

    one, two = first("a"), second("b")
    assert ask(stack(one, Fallback([two]), NOW, broken)) == "b"
    assert not one.calls


def test_bugs_are_no_cause():
    other = second("b")
    with pytest.raises(ZeroDivisionError):
        ask(stack(first(ZeroDivisionError()), Fallback([other])))
    assert not other.calls


def test_what_is_recorded():
    """One call, an inference for each model, each with its own name, provider and price."""
    telemetry = InMemoryTelemetry()
    client = stack(
        first(DOWN),
        Trace(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider),
        Fallback([second(Answer("b", 10, 1))]),
        Meter(prices=prices),
    )
    with capture() as calls:
        ask(client)
    (call,) = calls
    assert [(inference.role, inference.model) for inference in call.inferences] == [
        ("primary", "openai/gpt-4o"),
        ("fallback", "anthropic/claude-sonnet-4-5"),
    ]
    assert call.cost.billed == 33
    spans = telemetry.named("chat")
    assert [(span.name, span.attributes["gen_ai.provider.name"]) for span in spans] == [
        ("chat openai/gpt-4o", "openai"),
        ("chat anthropic/claude-sonnet-4-5", "anthropic"),
    ]
    assert telemetry.total("gen_ai.client.token.usage", {"gen_ai.provider.name": "anthropic"}) == 11


@pytest.mark.parametrize(
    ("to", "when", "error", "message"),
    [
        ([], ("timeout",), ValueError, "at least one client"),
        ([7], ("timeout",), TypeError, "target 0 is 7"),
        ([ScriptedClient("x")], ("time_out",), ValueError, "'time_out' is no cause"),
        ([ScriptedClient("x")], ("cancelled",), ValueError, "'cancelled' is no cause"),
    ],
)
def test_bad_input(to, when, error, message):
    with pytest.raises(error, match=message):
        Fallback(to, when=when)


def test_a_target_that_is_a_stack_is_priced_once_also_where_its_meter_has_a_ledger():
    """Which observes the record as well, and so does ours: each call is one row of each ledger."""
    pytest.importorskip("sqlalchemy")
    from overcoat.ledger import Ledger

    book = Ledger()
    metered = stack(second(Answer("b", 10, 5)), Meter(prices=prices, ledger=book))
    with book, capture() as calls:
        assert ask(stack(first(DOWN), Fallback([metered]), Meter(prices=prices, ledger=book))) == "b"
        (row,) = book.costs()
    assert calls.cost.billed == 45
    assert (row.calls, row.billed) == (1, 45)
