"""`wrap`: the stack that a file describes, at work around a client."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from overcoat import (
    AnswerRejected,
    Budget,
    Cache,
    CircuitOpen,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Hedge,
    LLMEvent,
    LLMStatusError,
    Meter,
    PolicyError,
    Retry,
    Timeout,
    Trace,
    Validate,
    capture,
    stack,
)
from overcoat.layers.breaker import Breaker
from overcoat.layers.rate_limit import RateLimit
from overcoat.policy import Policy, wrap
from overcoat.policy.fallbacks import Fallbacks
from overcoat.pricing.rates import Rates, Tier
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

from ..real.parts import need

PRODUCTION = Path(__file__).parents[2] / "examples" / "policies" / "production.yaml"
CONVERSATION = [{"role": "user", "content": "hello"}]
DOWN = LLMStatusError("down", 503)
TOO_LONG = LLMStatusError("too long", 413)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_text(f"version: 1\n{text}")
        return path

    return write


def ask(client, **arguments):
    return run(client.call(CONVERSATION, None, LLMEvent([], "test"), **arguments))


def types_of(client):
    return [type(layer) for layer in client.layers]


def test_only_what_the_file_says(write):
    assert types_of(wrap(ScriptedClient("a"), write(""))) == [Trace, Meter]


def test_all_that_the_file_says_in_the_canonical_order():
    client = wrap(
        ScriptedClient("a", model_name="openai/gpt-4o-mini"), PRODUCTION, client_for=lambda name: ScriptedClient("b")
    )
    assert types_of(client) == [
        Trace, Deadline, Cache, Validate, Fallbacks, Hedge, Budget, Retry, Breaker, RateLimit, Timeout, Meter,
    ]  # fmt: skip
    assert ask(client) == "a"


def test_the_retries_that_the_file_says(write):
    policy = write("policies: {default: {retry: {max_attempts: 3, backoff: {base: 0s}}}}\n")
    broken = ScriptedClient(DOWN)
    with capture() as calls, pytest.raises(LLMStatusError):
        ask(wrap(broken, policy))
    assert len(broken.calls) == len(calls[0].attempts) == 3


def test_models_have_policies_of_their_own(write):
    policy = Policy.load(
        write(
            "policies:\n  default: {}\n  patient: {retry: {max_attempts: 2, backoff: {base: 0s}}}\n"
            "models: [{match: 'openai/*', policy: patient}]\n"
        )
    )
    for model, sent in (("openai/gpt-4o", 2), ("mistral/large", 1)):
        broken = ScriptedClient(DOWN, model_name=model)
        with pytest.raises(LLMStatusError):
            ask(wrap(broken, policy))
        assert len(broken.calls) == sent


def test_the_deadline_that_the_file_says(write):
    with pytest.raises(DeadlineExceeded):
        ask(wrap(ScriptedClient(Answer("late", delay=6)), write("policies: {default: {deadline: 5s}}\n")))


def test_clients_of_one_breaker_share_it(write):
    """However often a client is wrapped anew."""
    policy = write("policies: {default: {breaker: b}}\nbreakers: {b: {min_calls: 2}}\n")
    for _ in range(2):
        with pytest.raises(LLMStatusError):
            ask(wrap(ScriptedClient(DOWN, model_name="openai/gpt-4o"), policy))
    last = ScriptedClient("a", model_name="openai/gpt-4o")
    with pytest.raises(CircuitOpen):
        ask(wrap(last, policy))
    assert not last.calls


def test_the_file_that_the_environment_names(write, monkeypatch):
    monkeypatch.setenv("OVERCOAT_CONFIG", str(write("policies: {default: {deadline: 5s}}\n")))
    assert types_of(wrap(ScriptedClient("a"))) == [Trace, Deadline, Meter]


def test_no_file_at_all():
    with pytest.raises(PolicyError, match="name one, or set OVERCOAT_CONFIG"):
        wrap(ScriptedClient("a"))


def test_switched_off(monkeypatch, caplog):
    """No layer does anything, and the log says so; what is left is the record."""
    monkeypatch.setenv("OVERCOAT_ENABLED", "false")
    client = ScriptedClient(DOWN, model_name="openai/gpt-4o")
    stacked = wrap(client, PRODUCTION)
    with capture() as calls, pytest.raises(LLMStatusError):
        ask(stacked)
    assert stacked.layers == ()
    assert calls[0].policy is None
    assert caplog.messages == ["OVERCOAT_ENABLED=false: every layer is off, and calls go straight to their clients"]
    assert len(client.calls) == len(calls) == 1


def test_switched_off_is_no_way_around_mistakes(write, monkeypatch):
    monkeypatch.setenv("OVERCOAT_ENABLED", "false")
    with pytest.raises(PolicyError, match="unknown key"):
        wrap(ScriptedClient("a"), write("cach: {}\n"))


def test_each_call_says_by_which_policy_it_was_made(write):
    """On its record and on its span: who reads a trace can tell which version of the file held."""
    telemetry = InMemoryTelemetry()
    policy = Policy.load(
        write("policies: {default: {}, fast: {deadline: 5s}}\nmodels: [{match: 'a*', policy: fast}]\n")
    )
    client = wrap(
        ScriptedClient("x", model_name="a1"),
        policy,
        trace={"tracer_provider": telemetry.tracer_provider},
        deadline="4s",
    )
    with capture() as calls:
        ask(client)
    digest = policy.for_model("a1", deadline="4s").digest
    assert calls[0].policy == ("fast", digest)
    (span,) = telemetry.named("overcoat.call")
    assert (span.attributes["overcoat.policy"], span.attributes["overcoat.policy.digest"]) == ("fast", digest)


# What code adds


def test_what_only_code_can_give(write):
    """A check, a store, prices and providers: beside what the file says, and not in its place."""
    telemetry, store = InMemoryTelemetry(), MemoryStore(2**20)
    asked = []

    def check(answer):
        asked.append(answer)

    client = wrap(
        ScriptedClient(Answer("a", 10, 1), model_name="m"),
        write("policies: {default: {validate: {max_reasks: 2}}}\ncache: {ttl: 5m}\ntrace: {attempts: always}\n"),
        validate={"check": check},
        cache={"store": store},
        meter={"prices": lambda model, now: Rates((Tier(0, Decimal(1), Decimal(1)),), "test")},
        trace={"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider},
    )
    with capture() as calls:
        assert ask(client) == "a"
    trace, cache, validate, _ = client.layers
    assert (trace.attempts, cache.ttl, cache.store, validate.max_reasks) == ("always", 300, store, 2)
    assert asked == ["a"]
    assert calls[0].cost.billed == 11
    assert telemetry.named("overcoat.call")


def test_a_layer_of_codes_own(write):
    policy = write("policies: {default: {retry: {max_attempts: 4}}}\n")
    client = wrap(ScriptedClient("a"), policy, retry=Retry(max_attempts=2), hedge=Hedge(3), deadline="5s")
    assert types_of(client) == [Trace, Deadline, Hedge, Retry, Meter]
    assert client.layers[3].max_attempts == 2


def test_a_layer_less(write):
    client = wrap(ScriptedClient("a"), write("policies: {default: {hedge: {after: 3s}}}\n"), hedge=None, trace=None)
    assert types_of(client) == [Meter]


def test_loosening_fails_when_the_client_is_made():
    with pytest.raises(PolicyError, match=r"code: deadline: 5m is more than the 2m of enforce.max \(.*production.yaml"):
        wrap(ScriptedClient("a", model_name="openai/gpt-4o"), PRODUCTION, deadline="5m", client_for=ScriptedClient)


# Fallbacks


def clients(**scripts):
    """Return a maker of clients that answer by the last part of the model's name, and those that it has made."""
    made = {}

    def client_for(name):
        made[name] = ScriptedClient(*scripts[name.rpartition("/")[2]], model_name=name)
        return made[name]

    return client_for, made


TWO = """\
policies:
  default: {}
  careful: {retry: {max_attempts: 2, backoff: {base: 0s}}}
models:
  - {match: "b/*", policy: careful}
fallbacks:
  - {from: "a/*", to: [b/second, b/third], when: [overloaded]}
  - {from: "a/*", to: [c/long], when: [context_too_long]}
"""


def test_another_model_is_asked_by_its_own_policy(write):
    client_for, made = clients(second=[DOWN], third=["c"], long=["d"])
    first = ScriptedClient(DOWN, model_name="a/first")
    client = wrap(first, write(TWO), client_for=client_for)
    with capture() as calls:
        assert ask(client) == "c"
    assert [len(each.calls) for each in (first, *made.values())] == [1, 2, 1, 0]
    assert [(each.role, each.model) for each in calls[0].inferences] == [
        ("primary", "a/first"),
        ("fallback", "b/second"),
        ("fallback", "b/third"),
    ]


def test_each_cause_has_targets_of_its_own(write):
    client_for, made = clients(second=["b"], third=["c"], long=["d"])
    assert ask(wrap(ScriptedClient(TOO_LONG, model_name="a/first"), write(TWO), client_for=client_for)) == "d"
    assert [name for name, each in made.items() if each.calls] == ["c/long"]


def test_a_later_rule_is_for_what_an_earlier_ones_targets_fail_with(write):
    """And its targets are asked once, however many there were before."""
    client_for, made = clients(second=[TOO_LONG], third=["never"], long=["d"])
    assert ask(wrap(ScriptedClient(DOWN, model_name="a/first"), write(TWO), client_for=client_for)) == "d"
    assert [len(each.calls) for each in made.values()] == [1, 0, 1]


def test_a_cause_of_no_rule_is_the_callers(write):
    client_for, made = clients(second=["b"], third=["c"], long=["d"])
    with pytest.raises(LLMStatusError, match="no"):
        ask(wrap(ScriptedClient(LLMStatusError("no", 401), model_name="a/first"), write(TWO), client_for=client_for))
    assert not any(each.calls for each in made.values())


def test_one_rule_is_one_fallback(write):
    policy = write("fallbacks: [{from: a, to: [b]}]\n")
    client = wrap(ScriptedClient(DOWN, model_name="a"), policy, client_for=lambda name: ScriptedClient("b"))
    assert types_of(client) == [Trace, Fallback, Meter]
    assert ask(client) == "b"


def test_a_model_is_not_asked_in_place_of_itself(write):
    def client_for(name):
        return ScriptedClient("x", model_name=name)

    policy = Policy.load(write("fallbacks: [{from: '*', to: [a, b]}]\n"))
    targets = {
        name: [target.model_name for target in wrap(client_for(name), policy, client_for=client_for).layers[1].to]
        for name in ("a", "b", "c")
    }
    assert targets == {"a": ["b"], "b": ["a"], "c": ["a", "b"]}


def test_only_the_one_that_is_left(write):
    """A rule all of whose targets are the model itself is no fallback at all."""
    policy = write("fallbacks: [{from: 'a*', to: [ab]}]\n")
    assert types_of(wrap(ScriptedClient("x", model_name="ab"), policy)) == [Trace, Meter]


def test_clients_of_litellm_by_default(write):
    need("litellm")
    client = wrap(ScriptedClient("x", model_name="a"), write("fallbacks: [{from: a, to: [openai/gpt-4o]}]\n"))
    (target,) = client.layers[1].to
    assert type(target.client).__name__ == "LiteLLMClient"
    assert target.model_name == "openai/gpt-4o"


def test_rejected_answers_of_the_files_own_count(write):
    with pytest.raises(AnswerRejected):
        ask(wrap(ScriptedClient(""), write("policies: {default: {validate: {max_reasks: 0}}}\n")))


def test_what_is_enforced_is_not_loosened_from_outside(write):
    """Fifty retries around a policy of two would be a hundred requests."""
    enforced = "policies: {default: {retry: {max_attempts: 2}}}\nenforce: {max: {retry: {max_attempts: 2}}}\n"
    client = wrap(ScriptedClient("never"), write(enforced))
    with pytest.raises(PolicyError, match=r"Retry\(max_attempts=50\) around a client of the policy 'default'"):
        stack(client, Retry(max_attempts=50), order="as given")
    free = wrap(ScriptedClient(DOWN, DOWN, "at last"), write("policies: {default: {retry: {max_attempts: 2}}}\n"))
    assert ask(stack(free, Retry(max_attempts=2), order="as given")) == "at last"
