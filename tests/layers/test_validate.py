"""`Validate`: which answers pass, what the model is told, and who pays for the others."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from overcoat import AnswerRejected, Cache, LLMEvent, Meter, Trace, Validate, capture, stack
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "three"}]
RATES = Rates((Tier(0, Decimal(1), Decimal(1)),), "test")


def ask(client, *layers, json_mode=False, event=None):
    client = stack(client, *layers, Meter(prices=lambda model, now: RATES))
    return run(client.call(CONVERSATION, None, event or LLMEvent([], "test"), json_mode))


def small(text):
    if int(text) > 9:
        raise ValueError(f"{text} is above 9")


def test_a_good_answer_passes():
    client = ScriptedClient("7")
    assert ask(client, Validate(check=small)) == "7"
    assert len(client.calls) == 1


@pytest.mark.parametrize(
    ("bad", "json_mode", "complaint"),
    [
        ("12", False, "the check raised ValueError. 12 is above 9"),
        ("many", False, "the check raised ValueError. invalid literal for int() with base 10: 'many'"),
        ("{", True, "it is no JSON. Expecting property name"),
        ("[" * 100_000, True, "its JSON is nested too deeply."),
    ],
)
def test_the_model_is_told_what_was_wrong(bad, json_mode, complaint):
    client = ScriptedClient(bad, "7")
    assert ask(client, Validate(check=small), json_mode=json_mode) == "7"
    first, again = (call.conversation for call in client.calls)
    assert first is CONVERSATION
    assert again[:2] == [*CONVERSATION, {"role": "assistant", "content": bad}]
    assert again[2]["role"] == "user"
    assert complaint in again[2]["content"]


def test_an_empty_answer_is_simply_asked_for_again():
    client = ScriptedClient("", "7")
    assert ask(client, Validate()) == "7"
    assert client.calls[1].conversation is CONVERSATION


def test_rejected_answers_are_billed_and_wasted():
    """And the event is that of the answer that was taken."""
    own = LLMEvent([], "test")
    with capture() as calls:
        ask(ScriptedClient(Answer("12", 10, 1), Answer("7", 30, 1)), Validate(check=small), event=own)
    (call,) = calls
    assert [inference.role for inference in call.inferences] == ["primary", "reask"]
    assert (call.cost.billed, call.cost.wasted) == (42, 11)
    assert (own.prompt_tokens, call.delivered.input_tokens) == (30, 30)


def test_each_inference_has_its_span():
    telemetry = InMemoryTelemetry()
    ask(ScriptedClient("12", "7"), Trace(tracer_provider=telemetry.tracer_provider), Validate(check=small))
    assert len(telemetry.named("chat")) == 2


@pytest.mark.parametrize("reasks", [0, 1, 3])
def test_it_is_bounded_and_quotes_nothing(reasks):
    client = ScriptedClient("secret")
    with capture() as calls, pytest.raises(AnswerRejected, match="the check raised ValueError") as caught:
        ask(client, Validate(check=small, max_reasks=reasks))
    assert len(client.calls) == reasks + 1
    assert "secret" not in str(caught.value)
    assert (calls[0].outcome, calls[0].error_type) == ("error", "bad_output")


def test_rejected_answers_are_not_cached():
    client = ScriptedClient("12", "12", "7")
    layers = (Cache(), Validate(check=small, max_reasks=0))
    stacked = stack(client, *layers)
    for _ in range(2):
        with pytest.raises(AnswerRejected):
            run(stacked.call(CONVERSATION, None, LLMEvent([], "test")))
    assert run(stacked.call(CONVERSATION, None, LLMEvent([], "test"))) == "7"


def test_an_async_check_is_refused_where_it_is_written():
    """Its verdict would never be awaited, and every answer would pass."""

    async def check(text):
        small(text)

    with pytest.raises(TypeError, match="expected a plain function, not an `async def`"):
        Validate(check=check)


def test_a_bug_in_the_check_is_the_caller_s_to_see():
    with pytest.raises(KeyError):
        ask(ScriptedClient("{}"), Validate(check=lambda text: json.loads(text)["answer"]))


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"check": 7}, TypeError), ({"max_reasks": -1}, ValueError), ({"max_reasks": True}, ValueError)],
)
def test_bad_input(settings, error):
    with pytest.raises(error, match=rf"Validate\({next(iter(settings))}="):
        Validate(**settings)
