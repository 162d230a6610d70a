"""What `explain` promises, against what the real stack then does."""

from __future__ import annotations

import asyncio
import inspect
import io
import json
import math
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import LLMEvent, Retry, capture, stack
from overcoat.classification import Kind
from overcoat.errors import OvercoatError
from overcoat.layers.breaker import Breaker
from overcoat.policy import Policy, wrap
from overcoat.policy.explain_command import render, run_explain
from overcoat.policy.explaining import DBALLY_RETRIES, explain, kind_of
from overcoat.policy.worst_case import duration
from overcoat.pricing.rates import Rates, Tier
from overcoat.shared import forget
from overcoat.testing import Answer, ScriptedClient, run

from ..real.parts import need

PRODUCTION = Path(__file__).parents[2] / "examples" / "policies" / "production.yaml"
CONVERSATION = [{"role": "user", "content": "hello"}]
SLACK = 1e-6
FOREVER = 10_000.0  # seconds; longer than any timeout that is drawn


FAILING = [kind for kind in Kind if kind not in (Kind.CANCELLED, Kind.REFUSED, Kind.DEADLINE_EXCEEDED)]
RETRIED = [kind for kind in Kind if kind.retryable]


class Failed(Exception):
    """A failure of any kind, with what the server asks for."""

    def __init__(self, kind, retry_after=None):
        super().__init__(kind.value)
        self.kind = kind
        self.retry_after = retry_after


@pytest.fixture(scope="module")
def policy_of(tmp_path_factory):
    """Return a function that loads what a file would say; JSON is YAML."""
    path = tmp_path_factory.mktemp("policy") / "policy.yaml"

    def policy_of(**sections):
        path.write_text(json.dumps({"version": 1, **sections}))
        return Policy.load(path, environment={})

    return policy_of


def no_prices(model, now):
    return None


def cents(model, now):
    return None if model == "unknown" else Rates((Tier(0, Decimal("0.01"), Decimal("0.02")),), "test")


def at(policy, model="a", prices=no_prices, **overrides):
    return policy.for_model(model, meter={"prices": prices}, **overrides)


# Schedules and worst cases, against the real stack


def text(milliseconds):
    return f"{milliseconds}ms"


durations = st.integers(1, 8000).map(text)
waits = st.integers(0, 4000).map(text)
backoffs = st.tuples(st.integers(0, 3000), st.integers(0, 9000)).map(
    lambda drawn: {"base": text(drawn[0]), "cap": text(drawn[0] + drawn[1])}
)
on_errors = st.fixed_dictionaries({}, optional={"max_attempts": st.integers(1, 5), "backoff": backoffs})
retries = st.fixed_dictionaries(
    {"max_attempts": st.integers(1, 4)},
    optional={
        "backoff": backoffs,
        "server_delay": st.fixed_dictionaries({"max": waits, "jitter": waits}),
        "errors": st.dictionaries(st.sampled_from([kind.value for kind in RETRIED]), on_errors, max_size=3),
    },
)
inner = {
    "retry": retries,
    "attempt_timeout": durations,
    "hedge": st.fixed_dictionaries({"after": durations}, optional={"max_extra": st.integers(1, 2)}),
    "budget": st.sampled_from(["none", "none_at_all", "one", "many"]),
    "breaker": st.just("b"),
    "limit": st.just("l"),
}
own_policies = st.fixed_dictionaries(
    {}, optional={**inner, "validate": st.fixed_dictionaries({"max_reasks": st.integers(0, 2)})}
)
fallbacks = st.lists(
    st.fixed_dictionaries(
        {
            "from": st.just("a"),
            "to": st.lists(st.sampled_from(["b", "c"]), min_size=1, max_size=2, unique=True),
            "when": st.lists(
                st.sampled_from([kind.value for kind in FAILING if kind is not Kind.UNKNOWN]), min_size=1, unique=True
            ),
        }
    ),
    max_size=2,
)
limits = st.fixed_dictionaries(
    {"requests": st.integers(1, 4), "max_wait": waits, "window": durations},
    optional={"concurrency": st.integers(1, 2)},
)
breakers = st.fixed_dictionaries({"min_calls": st.integers(1, 6), "window": st.just("1000s"), "open_for": durations})
alone = st.fixed_dictionaries(
    {"retry": retries},
    optional={
        **{name: inner[name] for name in ("attempt_timeout", "budget", "breaker", "limit")},
        "deadline": st.integers(8000, 40_000).map(text),
    },
)
BUDGETS = {
    "none_at_all": {"ratio": 0, "min_per_second": 0},
    "one": {"ratio": 0, "min_per_second": 0.1},
    "many": {"ratio": 10},
}
deadlines = st.none() | st.integers(8000, 40_000).map(text)
steps = st.lists(
    st.tuples(
        st.sampled_from(["empty", "ok"]) | st.sampled_from(RETRIED) | st.sampled_from(FAILING),
        st.sampled_from([0.0, 0.0, 0.25, 3.0, FOREVER]),
        st.sampled_from([None, None, 0.5, 3.0, 60.0]),
    ),
    min_size=1,
    max_size=12,
)


def scripted(script, model, *, never_slow=False):
    """Return a client that takes seconds before each outcome, and begins again when the script is over."""
    position = iter(range(10**6))

    async def step(conversation, options):
        outcome, delay, told = script[next(position) % len(script)]
        await asyncio.sleep(0 if never_slow else delay)
        if outcome == "ok":
            return "hi"
        if outcome == "empty":
            return ""
        return Failed(outcome, told)

    return ScriptedClient(step, model_name=model)


def ask(client):
    """Return the record of one call, whatever came of it, and its seconds."""

    async def main():
        clock = asyncio.get_running_loop().time
        started = clock()
        with suppress(Failed, OvercoatError):
            await client.call(CONVERSATION, None, LLMEvent([], "test"))
        return clock() - started

    with capture() as calls:
        elapsed = run(main())
    return calls[0], elapsed


@given(
    own=own_policies,
    others=st.tuples(st.fixed_dictionaries({}, optional=inner), st.fixed_dictionaries({}, optional=inner)),
    deadline=deadlines,
    limit=limits,
    breaker=breakers,
    rules=fallbacks,
    scripts=st.tuples(steps, steps, steps),
    random=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_no_call_is_worse_than_the_worst_case(policy_of, own, others, deadline, limit, breaker, rules, scripts, random):
    """Whatever the policy is and whatever fails: neither more requests nor more seconds."""
    forget()
    own = own if deadline is None else {**own, "deadline": deadline}
    policy = policy_of(
        policies={"default": own, "b": others[0], "c": others[1]},
        models=[{"match": name, "policy": name} for name in ("b", "c")] + [{"match": "a"}],
        budgets=BUDGETS,
        breakers={"b": {**breaker, "window": "1000s"}},
        limits={"l": limit},
        fallbacks=rules,
    )
    clients = {
        name: scripted(script, name, never_slow="attempt_timeout" not in each and deadline is None)
        for name, script, each in zip("abc", scripts, (own, *others), strict=True)
    }
    overrides = {"retry": {"random": lambda: random}} if "retry" in own else {}
    explanation = explain(at(policy, **overrides))
    client = wrap(
        clients["a"], policy, client_for=clients.__getitem__, trace=None, meter={"prices": no_prices}, **overrides
    )
    call, elapsed = ask(client)
    requests = sum(len(each.calls) for each in clients.values())
    assert requests == len(call.attempts)
    assert requests <= explanation.worst.requests.value
    if explanation.worst.seconds.value is not None:
        assert elapsed <= explanation.worst.seconds.value + SLACK


@pytest.mark.parametrize("hedge", [None, {"after": "500ms"}])
def test_the_worst_case_of_a_whole_call_is_reached(policy_of, hedge):
    """All fail as often as they can, the last answers at its last attempt, and uselessly, each time."""
    own = {"retry": {"max_attempts": 2}, "validate": {"max_reasks": 2}}
    policy = policy_of(
        policies={"default": own if hedge is None else {**own, "hedge": hedge}, "b": {"retry": {"max_attempts": 3}}},
        models=[{"match": "b", "policy": "b"}, {"match": "*"}],
        fallbacks=[{"from": "a", "to": ["b"]}],
    )
    down = (Kind.OVERLOADED, 1.0, None)
    clients = {"a": scripted([down], "a"), "b": scripted([down, down, ("empty", 0.0, None)], "b")}
    ask(wrap(clients["a"], policy, client_for=clients.__getitem__, meter={"prices": no_prices}))
    requests = explain(at(policy)).worst.requests
    assert requests.formula == ("3 asks x (2 + 3)" if hedge is None else "3 asks x (4 + 3)")
    assert sum(len(each.calls) for each in clients.values()) == requests.value


def test_the_seconds_of_hedges_are_reached(policy_of):
    """The last hedge begins when the first inference is about to fail."""
    policy = policy_of(policies={"default": {"attempt_timeout": "1s", "hedge": {"after": "900ms", "max_extra": 2}}})
    effective = at(policy)
    call, elapsed = ask(stack(ScriptedClient(Answer("late", delay=5)), *effective.layers()))
    worst = explain(effective).worst
    assert (len(call.attempts), elapsed) == (worst.requests.value, pytest.approx(worst.seconds.value))
    assert worst.seconds.formula == "2 hedges x 900ms + 1 attempt x 1s"


def test_the_seconds_of_queues_are_reached(policy_of):
    """By a call that waits for its turn as long as it may, before each of its attempts."""
    policy = policy_of(
        policies={"default": {"attempt_timeout": "1s", "retry": {"backoff": {"base": "0s"}}, "limit": "one"}},
        limits={"one": {"requests": 1, "window": "3s", "max_wait": "2s"}},
    )
    effective = at(policy, retry={"max_attempts": 2, "server_delay": {"max": "0s", "jitter": "0s"}})
    client = stack(ScriptedClient("hi", Answer("late", delay=5)), *effective.layers())

    async def main():
        clock = asyncio.get_running_loop().time
        await client.call(CONVERSATION, None, LLMEvent([], "test"))
        await asyncio.sleep(1)
        with capture() as calls, suppress(OvercoatError):
            await client.call(CONVERSATION, None, LLMEvent([], "test"))
        return calls[0], clock() - calls[0].started

    call, elapsed = run(main())
    explanation = explain(effective, error="timeout")
    assert elapsed == pytest.approx(explanation.worst.seconds.value)
    starts = [attempt.started - call.started for attempt in call.attempts]
    assert starts == pytest.approx([each.start.most for each in explanation.failure.attempts])


@given(retry=retries, timeout=durations)
def test_the_worst_case_of_retries_is_reached(policy_of, retry, timeout):
    """By who fails at the last moment, each time in the way that is waited for longest, and asks for a delay."""
    effective = at(
        policy_of(policies={"default": {"retry": retry, "attempt_timeout": timeout}}), retry={"random": lambda: 1.0}
    )
    layer = next(each for each in effective.inner() if isinstance(each, Retry))
    attempt = effective.value("attempt_timeout")
    sent = []

    async def worst(conversation, options):
        sent.append(None)
        kinds = [kind for kind in RETRIED if layer.on(kind)[0] > len(sent)] or RETRIED
        await asyncio.sleep(attempt - SLACK / 100)
        longest = max(kinds, key=lambda kind: layer.on(kind)[1].delay(len(sent), random=1.0))
        return Failed(longest, layer.server_delay.max)

    worst_case = explain(effective).worst
    _, elapsed = ask(stack(ScriptedClient(worst), *effective.layers()))
    assert len(sent) == worst_case.requests.value
    assert elapsed == pytest.approx(worst_case.seconds.value, abs=SLACK)


@given(retry=retries, kind=st.sampled_from(RETRIED))
def test_a_constant_failure_is_what_its_schedule_says(policy_of, retry, kind):
    """With the jitter at its limit, each attempt begins at the very end of its range, if it takes no time itself."""
    forget()
    effective = at(policy_of(policies={"default": {"retry": retry}}), retry={"random": lambda: 1.0})
    schedule = explain(effective, error=kind).failure.attempts
    client = ScriptedClient(Failed(kind))
    call, _ = ask(stack(client, *effective.layers()))
    assert len(client.calls) == len(schedule)
    assert [each.retried for each in schedule] == [True] * (len(schedule) - 1) + [False]
    assert (call.inferences[0].gave_up,) == schedule[-1].ended_by
    assert [attempt.waited for attempt in call.attempts] == pytest.approx([each.wait.most for each in schedule])


@given(
    own=alone,
    limit=limits,
    breaker=breakers,
    kind=st.sampled_from(FAILING),
    told=st.sampled_from([None, 0.0, 1.0, 3.0, 60.0]),
    delays=st.lists(st.sampled_from([0.0, 0.25, 3.0, 7.0]), min_size=1, max_size=6),
    random=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_attempts_begin_when_the_schedule_says(policy_of, own, limit, breaker, kind, told, delays, random):
    """Each within its range, also behind a limit; there are no more, and what ends them was named."""
    forget()
    policy = policy_of(policies={"default": own}, breakers={"b": breaker}, limits={"l": limit}, budgets=BUDGETS)
    effective = at(policy, retry={"random": lambda: random})
    failure = explain(effective, error=kind, retry_after=told).failure
    client = scripted(
        [(kind, min(delay, effective.value("attempt_timeout") or delay) * 0.9, told) for delay in delays], "a"
    )
    call, _ = ask(stack(client, *effective.layers()))
    inference = call.inferences[0]
    for attempt, foreseen in zip(call.attempts, failure.attempts, strict=False):
        started = attempt.started - call.started
        assert foreseen.start.least - SLACK <= started
        assert foreseen.start.most is None or started <= foreseen.start.most + SLACK
    assert len(call.attempts) <= len(failure.attempts)
    if call.attempts:
        last = failure.attempts[len(call.attempts) - 1]
        assert (inference.gave_up or call.error_type) in {*last.ended_by, "deadline_exceeded"}


@pytest.mark.parametrize("kind", FAILING)
def test_the_breaker_counts_as_it_is_said(policy_of, kind):
    """A circuit that one failure opens is open after exactly the kinds that are said to count."""
    policy = policy_of(policies={"default": {"breaker": "b"}}, breakers={"b": {"min_calls": 1}})
    counts = explain(at(policy), error=kind).failure.breaker
    client = stack(ScriptedClient(Failed(kind)), Breaker(min_calls=1))
    first, _ = ask(client)
    assert bool(first.turns) == (counts != "neither")


@pytest.mark.parametrize("kind", FAILING)
def test_the_fallbacks_that_take_over(policy_of, kind):
    """Those that are said are asked, in that order, and no others."""
    policy = policy_of(
        fallbacks=[
            {"from": "a", "to": ["b", "c"], "when": ["overloaded", "auth"]},
            {"from": "a", "to": ["d"], "when": ["auth", "timeout"]},
        ]
    )
    said = explain(at(policy), error=kind).failure.fallbacks
    clients = {name: ScriptedClient(Failed(kind), model_name=name) for name in "abcd"}
    call, _ = ask(wrap(clients["a"], policy, client_for=clients.__getitem__, meter={"prices": no_prices}))
    assert tuple(each.model for each in call.inferences) == ("a", *said)


def test_a_prompt_that_is_too_long_goes_to_larger_models_only(policy_of):
    models = ["openai/gpt-4o-mini", "openai/gpt-4.1", "anthropic/claude-sonnet-4-5", "own/model"]
    policy = policy_of(fallbacks=[{"from": "openai/gpt-4o", "to": models, "when": ["context_too_long", "overloaded"]}])
    effective = at(policy, "openai/gpt-4o")
    assert explain(effective, error="context_too_long").failure.fallbacks == ("openai/gpt-4.1", "own/model")
    assert explain(effective, error="overloaded").failure.fallbacks == tuple(models)


# Worst cases, by hand


def test_formulas_and_numbers():
    """Every number of the example's strictest policy; each formula, evaluated by its reader, is its number."""
    policy = Policy.load(PRODUCTION, environment={})
    worst = explain(at(policy, "openai/gpt-4o-mini", cents), input_tokens=100, output_tokens=10).worst
    first, claude, gpt = worst.models
    assert (first.requests.value, first.requests.formula) == (4, "2 inferences x 2 attempts")
    assert first.seconds.value == 3 + 2 * (5 + 7) + 30.5
    assert first.seconds.formula == "1 hedge x 3s + 2 attempts x (5s queued + 7s) + 1 wait of 30.5s"
    assert (first.dollars.value, first.dollars.formula) == (Decimal("4.8"), "4 requests x $1.2")
    assert (claude.requests.value, gpt.requests.value) == (6, 6)
    assert (worst.requests.value, worst.requests.formula) == (32, "2 asks x (4 + 6 + 6)")
    assert worst.seconds.value == 15
    assert worst.seconds.formula == "the deadline; without it 2 asks x (57.5s + 4m34s + 5m4s) = 21m11s"
    assert (worst.dollars.value, worst.dollars.formula) == (Decimal("38.4"), "2 asks x ($4.8 + $7.2 + $7.2)")


def test_nothing_but_a_client(policy_of):
    worst = explain(at(policy_of())).worst
    assert (worst.requests.value, worst.requests.formula) == (1, "1 attempt")
    assert (worst.seconds.value, worst.seconds.formula) == (None, "neither a deadline nor an attempt_timeout")
    assert (worst.dollars.value, worst.dollars.formula) == (None, "no price for a")


def test_one_unknown_price_makes_the_whole_unknown(policy_of):
    """It is never taken for 0."""
    policy = policy_of(fallbacks=[{"from": "a", "to": ["unknown"]}])
    worst = explain(at(policy, "a", cents)).worst
    assert worst.models[0].dollars.value == 30
    assert (worst.dollars.value, worst.dollars.formula) == (None, "no price for unknown")


def test_a_budget_that_never_has_anything(policy_of):
    """There are no retries, however many attempts there could be."""
    policy = policy_of(policies={"default": {"retry": {}, "budget": "x"}}, budgets={"x": BUDGETS["none_at_all"]})
    explanation = explain(at(policy), error=503)
    assert explanation.worst.requests.value == 1
    assert explanation.failure.attempts[0].ended_by == ("budget",)


def test_what_is_around_multiplies():
    explanation = explain(at(Policy.load(PRODUCTION, environment={}), "openai/gpt-4o-mini"), host_retries=2)
    assert [(each.name, each.factor, each.requests, each.seconds) for each in explanation.around] == [
        ("SDK", 1, 32, 15),
        ("host", 3, 96, 45),
        ("in db-ally 0.8", 4, 128, 60),
    ]
    assert explanation.requests == 96


def test_the_default_that_is_said_of_db_ally():
    """Nobody would notice if it changed."""
    generator = need("dbally.iql_generator.iql_generator").IQLGenerator
    assert inspect.signature(generator.__call__).parameters["n_retries"].default == DBALLY_RETRIES


def test_switched_off():
    """A bare call: no retries, no fallbacks and no deadline."""
    effective = at(Policy.load(PRODUCTION, environment={"OVERCOAT_ENABLED": "false"}), "openai/gpt-4o")
    explanation = explain(effective, error="overloaded")
    assert not explanation.enabled
    assert (explanation.worst.requests.value, explanation.worst.seconds.value) == (1, None)
    assert (len(explanation.failure.attempts), explanation.failure.fallbacks) == (1, ())
    assert "OVERCOAT_ENABLED=false" in render(explanation)


# Schedules, by hand


def test_a_delay_of_the_server_is_a_floor(policy_of):
    effective = at(policy_of(policies={"default": {"retry": {"max_attempts": 2}, "attempt_timeout": "3s"}}))
    second = explain(effective, error="rate_limited", retry_after=10).failure.attempts[1]
    assert (second.wait.least, second.wait.most) == (10, 10.5)
    assert (second.start.least, second.start.most) == (10, 13.5)


@pytest.mark.parametrize(
    ("error", "retry_after", "ended_by"),
    [
        ("auth", None, "non_retryable"),
        (402, None, "non_retryable"),
        (500, 31, "server_delay"),
        (500, 20, "deadline"),
        ("connection", None, "attempts"),
    ],
)
def test_what_ends_it(policy_of, error, retry_after, ended_by):
    effective = at(policy_of(policies={"default": {"retry": {"max_attempts": 2}, "deadline": "20s"}}))
    assert explain(effective, error=error, retry_after=retry_after).failure.attempts[-1].ended_by == (ended_by,)


@pytest.mark.parametrize(
    ("policy", "ended_by"),
    [
        ({}, ("server_delay",)),
        ({"deadline": "20s"}, ("deadline", "server_delay")),
        ({"deadline": "20s", "attempt_timeout": "1s"}, ("server_delay",)),
        ({"budget": "many"}, ("server_delay", "budget")),
        ({"breaker": "b"}, ("server_delay", "breaker_open")),
        ({"limit": "l"}, ("server_delay", "limit_reached")),
    ],
)
def test_what_may_end_it_sooner(policy_of, policy, ended_by):
    """Only what there is; a deadline only where it can come first."""
    sections = {"budgets": BUDGETS, "breakers": {"b": {}}, "limits": {"l": {"requests": 1}}}
    effective = at(policy_of(policies={"default": {"retry": {}, **policy}}, **sections))
    first = explain(effective, error="connection").failure.attempts[0]
    assert (first.retried, first.ended_by) == (True, ended_by)


@pytest.mark.parametrize(
    ("error", "kind"),
    [("429", Kind.RATE_LIMITED), ("529", Kind.OVERLOADED), ("auth", Kind.AUTH), ("418", Kind.BAD_REQUEST)],
)
def test_kinds_by_name_and_by_status(error, kind):
    assert kind_of(error) is kind


@pytest.mark.parametrize(
    ("error", "message"), [("200", "400 to 599"), ("rate_limit", "did you mean 'rate_limited'"), ("42٩", "no class")]
)
def test_no_such_error(error, message):
    with pytest.raises(ValueError, match=message):
        kind_of(error)


# Values and their origins


def test_every_value_has_its_origin(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\npolicies:\n  default:\n    retry: {errors: {auth: {}}}\n".replace("auth", "timeout"))
    environment = {"OVERCOAT_POLICIES__DEFAULT__RETRY__MAX_ATTEMPTS": "4"}
    effective = Policy.load(path, environment=environment).for_model("a", deadline=9.5, validate={"check": str})
    settings = {each.path: (each.layer, each.value, each.origin) for each in explain(effective).settings}
    assert settings["retry.max_attempts"] == (
        "Retry", "4", "env OVERCOAT_POLICIES__DEFAULT__RETRY__MAX_ATTEMPTS",
    )  # fmt: skip
    assert settings["deadline"] == ("Deadline", "9.5s", "code")
    assert settings["validate.check"] == ("Validate", "given", "code")
    assert settings["hedge"] == ("Hedge", "none", "default")
    assert settings["retry.backoff.base"] == ("Retry", "500ms", "default")


def test_classes_are_listed_where_they_differ(policy_of):
    """Whether the file says so, or `Retry` by itself."""
    policy = policy_of(
        policies={"default": {"retry": {"max_attempts": 3, "errors": {"connection": {"max_attempts": 3}}}}}
    )
    listed = {
        each.path.removeprefix("retry.errors."): each.value
        for each in explain(at(policy)).settings
        if each.path.startswith("retry.errors")
    }
    assert listed == {
        "overloaded.backoff.base": "2s",
        "overloaded.backoff.cap": "1m",
        "timeout.max_attempts": "2",
        "connection.max_attempts": "3",
        "bad_output.max_attempts": "2",
        "bad_output.backoff.base": "0s",
    }


def test_layers_come_in_the_canonical_order():
    explanation = explain(at(Policy.load(PRODUCTION, environment={}), "openai/gpt-4o-mini"))
    assert list(dict.fromkeys(each.layer for each in explanation.settings)) == [
        "Trace", "Deadline", "Cache", "Validate", "Fallback", "Hedge", "Budget", "Retry", "RetryBudget", "Breaker",
        "RateLimit", "Timeout", "Meter",
    ]  # fmt: skip


# The command


def explained(model="openai/gpt-4o-mini", *arguments, path=PRODUCTION, **options):
    out = io.StringIO()
    code = run_explain(path, model, *arguments, out=out, environment={}, **options)
    return code, out.getvalue()


@pytest.mark.parametrize("error", [None, *(kind.value for kind in Kind)])
@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "openai/gpt-4o", "other"])
def test_text_fits_a_terminal(model, error):
    code, text = explained(model, error)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()
    assert all(line == line.rstrip() for line in text.splitlines())


def test_text():
    """As an operator reads it: who, why, what then, and at what price."""
    _, text = explained("openai/gpt-4o", "503")
    assert "rule    openai/*  (production.yaml:59:14)" in text
    assert "        2  0s to 2s         0s to 32s      retried\n" in text
    assert "        4  0s to 8s         0s to 1m       gives up: no attempts left\n" in text
    assert "breaker         each counts as a failure\n" in text
    assert "fallback        anthropic/claude-sonnet-4-5\n" in text
    assert "    requests            18  6 + 6 + 6\n" in text


def test_long_origins_have_a_line_of_their_own():
    out, name = io.StringIO(), "OVERCOAT_POLICIES__DEFAULT__RETRY__MAX_ATTEMPTS"
    assert run_explain(PRODUCTION, "openai/gpt-4o", out=out, environment={name: "2"}) == 0
    lines = out.getvalue().splitlines()
    index = next(index for index, line in enumerate(lines) if line.endswith(f" env {name}"))
    assert lines[index - 1].split() == ["max_attempts", "2"]
    assert max(map(len, lines)) == 80


def test_text_of_a_policy_without_rules_and_limits(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\npolicies: {default: {retry: {}}}\n")
    _, text = explained("a", "connection", path=path)
    assert text.startswith("a\n  policy  default\n  digest")
    assert "        3  0s to 1s         0s or later    gives up: no attempts left\n" in text
    assert "    seconds      unbounded  neither a deadline nor an attempt_timeout\n" in text


def test_json():
    code, text = explained(error="429", format="json")
    read = json.loads(text)
    assert code == 0
    assert read["rule"] == {"index": 0, "match": "openai/gpt-4o-mini*", "origin": f"{PRODUCTION}:58:14"}
    assert read["failure"]["kind"] == "rate_limited"
    assert read["failure"]["attempts"][1]["wait"] == {"least": 0, "most": 2}
    assert read["worst"]["requests"] == {"value": 32, "formula": "2 asks x (4 + 6 + 6)"}
    assert Decimal(read["worst"]["dollars"]["value"]) > 0


@pytest.mark.parametrize(("most", "code"), [(32, 0), (31, 1), (None, 0)])
def test_more_requests_than_are_allowed(capsys, most, code):
    assert explained(max_requests=most)[0] == code
    assert capsys.readouterr().err == ("overcoat explain: 32 requests are more than 31\n" if code else "")


def test_the_host_s_retries_count_as_well():
    assert explained(max_requests=32, host_retries=1)[0] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"error": "4299"},
        {"host_retries": -1},
        {"input_tokens": -1},
        {"retry_after": -1.0},
        {"retry_after": math.inf},
        {"retry_after": math.nan},
    ],
)
def test_arguments_that_make_no_sense(capsys, options):
    assert explained(**options) == (2, "")
    assert capsys.readouterr().err.startswith("overcoat explain: ")


def test_a_file_with_mistakes(tmp_path, capsys):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\npolicies: {default: {retry: {atempts: 3}}}\n")
    assert explained(path=path) == (1, "")
    assert "did you mean" in capsys.readouterr().err


def test_a_model_without_a_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\npolicies: {p: {}}\nmodels: [{match: a, policy: p}]\n")
    assert explained("b", path=path)[0] == 1
    assert explained("a", path=path)[0] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.5, "500ms"),
        (30.5, "30.5s"),
        (60, "1m"),
        (3725.25, "1h2m5.25s"),
        (59.9999, "1m"),
        (None, "unbounded"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
