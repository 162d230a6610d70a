"""`explain`: of clients, whether a file or code made their layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from overcoat import (
    Breaker,
    Cache,
    Deadline,
    Explanation,
    Fallback,
    Hedge,
    LLMEvent,
    LLMStatusError,
    Meter,
    OnError,
    Policy,
    PolicyError,
    RateLimit,
    Retry,
    RetryBudget,
    StackOrderError,
    Timeout,
    Trace,
    Validate,
    explain,
    stack,
    wrap,
)
from overcoat.policy.explaining import explain as explain_policy
from overcoat.testing import ScriptedClient, run

PRODUCTION = Path(__file__).parents[2] / "examples" / "policies" / "production.yaml"
DOWN = LLMStatusError("down", 503)
NOW = 1.7e9


def settings_of(explanation):
    return {each.path: (each.value, each.origin) for each in explanation.settings}


def test_what_wrap_made_is_explained_by_its_policy():
    policy = Policy.load(PRODUCTION, environment={})
    client = wrap(ScriptedClient("a", model_name="openai/gpt-4o"), policy, client_for=ScriptedClient, deadline="30s")
    explanation = client.explain(error=503, now=NOW)
    assert isinstance(explanation, Explanation)
    assert explanation == explain_policy(policy.for_model("openai/gpt-4o", deadline="30s"), error=503, now=NOW)
    assert explanation == explain(client, error=503, now=NOW)
    assert explanation.rule.index == 1
    assert str(explanation).startswith("openai/gpt-4o\n  policy  default\n  rule    openai/*  (production.yaml:")


def test_what_stack_made_is_explained_by_its_layers():
    client = stack(
        ScriptedClient("a", model_name="openai/gpt-4o"),
        Trace(attempts="always"),
        Deadline("2m"),
        Cache(ttl="5m"),
        Validate(check=len),
        Hedge("3s"),
        Retry(max_attempts=4, budget=RetryBudget(ratio=0.5)),
        Breaker(min_calls=3, name="mine"),
        RateLimit(requests=5, max_wait="1s"),
        Timeout(20),
        Meter(),
    )
    explanation = client.explain(error="overloaded", now=NOW)
    values = settings_of(explanation)
    assert {path: values[path] for path in ("trace.attempts", "deadline", "cache.ttl", "validate.max_reasks")} == {
        "trace.attempts": ("always", "code"),
        "deadline": ("2m", "code"),
        "cache.ttl": ("5m", "code"),
        "validate.max_reasks": ("1", "code"),
    }
    assert values["validate.check"] == values["breaker.name"] == ("given", "code")
    assert values["hedge.after"] == ("3s", "code")
    assert values["budget.ratio"] == ("0.5", "code")
    assert values["limit.requests"] == ("5", "code")
    assert values["fallbacks"] == ("none", "default")
    assert values["retry.errors.timeout.max_attempts"] == ("2", "default")
    assert (explanation.policy, explanation.rule) == ("code", None)
    assert len(explanation.failure.attempts) == 4
    assert explanation.worst.requests.value == 2 * 2 * 4
    assert explanation.worst.seconds.value == 120
    assert explanation.worst.dollars.value > 0


def test_a_stack_without_layers():
    explanation = stack(ScriptedClient("a")).explain(error=500)
    values = settings_of(explanation)
    assert {path for path, (value, _) in values.items() if value != "none"} == {"meter.on_unknown_price"}
    assert explanation.worst.requests.value == 1


def test_stacks_in_stacks_are_one():
    client = stack(stack(ScriptedClient("a"), Retry(max_attempts=2), Meter()), Trace(), Validate(max_reasks=2))
    assert client.explain().worst.requests.value == 2 * 3


def test_fallbacks_have_their_own_layers_or_those_inside():
    """As in the call itself, which asks so often when everything fails."""

    def made():
        return [ScriptedClient(DOWN, model_name=name) for name in ("a", "b", "c")]

    def stacked(first, second, third):
        return stack(
            first, Trace(), Fallback([stack(second, Retry(max_attempts=3)), third]), Retry(max_attempts=2), Timeout(5)
        )

    clients = made()
    explanation = stacked(*clients).explain(error=503)
    assert [(each.model, each.requests.value) for each in explanation.worst.models] == [("a", 2), ("b", 3), ("c", 2)]
    assert explanation.failure.fallbacks == ("b", "c")
    with pytest.raises(LLMStatusError):
        run(stacked(*clients).call([{"role": "user", "content": "x"}], None, LLMEvent([], "test")))
    assert [len(client.calls) for client in clients] == [2, 3, 2]


def test_functions_are_passed_over():
    async def renamed(request, inner):
        return await inner(request)

    assert stack(ScriptedClient("a"), renamed, Retry(max_attempts=2)).explain().worst.requests.value == 2


@pytest.mark.parametrize("layers", [(Timeout(5), Retry()), (Retry(), Retry())])
def test_an_order_that_no_policy_has_cannot_be_explained(layers):
    """A schedule of attempts with one timeout each would be wrong of the first."""
    with pytest.raises(StackOrderError):
        stack(ScriptedClient("a"), *layers, order="as given").explain()


def test_what_no_file_could_say_cannot_be_explained():
    client = stack(ScriptedClient("a"), Retry(errors={"auth": OnError(max_attempts=2)}))
    with pytest.raises(PolicyError, match=r"code: retry\.errors\.auth"):
        client.explain()


def test_a_stack_around_what_wrap_made_is_not_explained():
    client = wrap(ScriptedClient("a"), PRODUCTION, validate=None, client_for=ScriptedClient)

    async def logged(request, inner):
        return await inner(request)

    assert client.explain()
    with pytest.raises(ValueError, match=r"what wrap\(\) made can be explained, but no stack around or inside it"):
        stack(client, logged).explain()


def test_another_client_is_no_stack():
    with pytest.raises(TypeError, match=r"explain\(client=<.*expected what wrap\(\) or stack\(\) returned"):
        explain(ScriptedClient("a"))
