"""What a file says of money: limits on spending, prices and ledgers, and what `explain` makes of them."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Budget,
    BudgetExceeded,
    Cache,
    LLMEvent,
    LLMStatusError,
    Meter,
    Policy,
    PolicyError,
    RateLimit,
    UnknownPrice,
    capture,
    explain,
    stack,
    tags,
    wrap,
)
from overcoat.budgets.memory import MemoryBudgets
from overcoat.errors import OvercoatError
from overcoat.layers.budget import Limit
from overcoat.policy.explain_command import render
from overcoat.pricing.rates import Rates, Tier
from overcoat.shared import forget
from overcoat.stores.memory import MemoryStore
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]
TOGETHER = "with which it is reserved"
SHARED = ("sqlite:///", "redis://", "rediss://", "unix://")
DAILY = "spending: {daily: {usd: 5, default_output_tokens: 1}}\npolicies: {default: {spending: [daily]}}\n"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_text(f"version: 1\n{text}")
        return path

    return write


def load(path, **environment):
    return Policy.load(path, environment={f"OVERCOAT_{name}": value for name, value in environment.items()})


def refused(path, **environment):
    with pytest.raises(PolicyError) as caught:
        load(path, **environment)
    text = str(caught.value).replace(f"{path.parent}/", "")
    return [line.removeprefix("policy.yaml:") for line in text.splitlines()]


def cents(model, now):
    """Return a price of a cent for each token, sent or answered."""
    return Rates((Tier(0, Decimal("0.01"), Decimal("0.01")),), "test")


async def ask(client):
    with capture() as calls:
        await client.call(CONVERSATION, None, LLMEvent([], "test"))
    return calls[0]


def budget_of(path, model="m", **overrides):
    layers = load(path).for_model(model, **overrides).layers()
    return next((layer for layer in layers if isinstance(layer, Budget)), None)


def test_a_limit_that_the_file_says(write):
    """Each call answers with 400 tokens, of a cent each, and sets aside 110 or so."""
    client = wrap(ScriptedClient(Answer("a", 1, 399), model_name="m"), write(DAILY), meter={"prices": cents})
    assert run(ask(client)).cost.billed == 4
    with pytest.raises(BudgetExceeded, match="the budget of 'global' leaves no room") as caught:
        run(ask(client))
    assert (caught.value.limit, caught.value.spent) == (5, 4)


def test_several_limits_are_reserved_together(write):
    policy = write(
        "spending:\n"
        "  each: {usd: 10, scope: 'tag:tenant', window: calendar month, zone: Europe/Warsaw, on_limit: wait}\n"
        "  all: {tokens: 500, window: 1h, on_limit: wait, max_wait: 1m, store: none}\n"
        "policies: {default: {spending: [each, all]}}\n"
    )
    assert budget_of(policy) == Budget(
        limits=[
            Limit(usd=10, scope="tag:tenant", window="calendar month", zone="Europe/Warsaw", name="each"),
            Limit(tokens=500, window="1h", name="all"),
        ],
        on_limit="wait",
    )


def test_it_is_inherited_and_taken_out(write):
    policy = load(
        write(
            "spending: {a: {usd: 1}, b: {usd: 2}}\n"
            "policies: {default: {spending: [a, b]}, heir: {extends: default},\n"
            "  other: {extends: default, spending: [b]},\n"
            "  free: {extends: default, spending: none}}\n"
            "models: [{match: h, policy: heir}, {match: o, policy: other}, {match: f, policy: free}]\n"
        )
    )
    names = {
        model: [
            rule.name for layer in policy.for_model(model).inner() if isinstance(layer, Budget) for rule in layer.rules
        ]
        for model in "hof"
    }
    assert names == {"h": ["a", "b"], "o": ["b"], "f": []}


def test_a_window_without_end(write):
    assert budget_of(write("spending: {a: {usd: 1, window: none}}\npolicies: {default: {spending: [a]}}\n")) == Budget(
        limits=[Limit(usd=1, window=None, name="a")]
    )


def test_the_environment_can_change_a_limit(write):
    policy = load(write(DAILY), SPENDING__DAILY__USD="3")
    assert policy.for_model("m").settings.at(("spending",))[0].usd == 3
    assert policy.for_model("m").tree.get("spending", 0, "usd").origin.source == "env OVERCOAT_SPENDING__DAILY__USD"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "spending: {daily: {usd: 5}}\npolicies: {default: {spending: [dayly, daily, daily]}}\n",
            [
                "3:33: policies.default.spending[0]: there is no 'dayly' in spending, did you mean 'daily'?",
                "3:47: policies.default.spending[2]: 'daily' is in the list already",
            ],
        ),
        (
            "spending: {a: {usd: 5, on_limit: wait}, b: {usd: 9}}\npolicies: {default: {spending: [a, b]}}\n",
            [f"3:36: policies.default.spending[1]: it has another on_limit than 'a' (policy.yaml:2:15), {TOGETHER}"],
        ),
        (
            "spending: {a: {}, b: {usd: 1, tokens: 2}}\n",
            [
                "2:15: spending.a: expected either usd or tokens; two limits are two of Budget(limits=[...])",
                "2:22: spending.b: expected either usd or tokens; two limits are two of Budget(limits=[...])",
            ],
        ),
        (
            "spending: {a: {usd: 1, window: calendar fortnight}}\n",
            [
                "2:32: spending.a.window: expected one of "
                + ", ".join(f'"calendar {each}"' for each in ("minute", "hour", "day", "week", "month"))
            ],
        ),
        (
            "spending: {a: {usd: 1, window: 60}}\n",
            ["2:32: spending.a.window: expected text, not 60"],
        ),
        (
            "spending: {a: {usd: 1, limits: []}}\n",
            ["2:24: spending.a.limits: only code can give it"],
        ),
        (
            "spending: {a: {usd: 1, store: 'memory://'}}\n",
            [f"2:31: spending.a.store: expected a URL that begins with {', '.join(SHARED)}"],
        ),
    ],
)
def test_mistakes(text, lines, write):
    assert refused(write(text)) == lines


# What code adds


def test_what_only_code_can_give(write):
    def told(alert):
        pass

    store = MemoryBudgets()
    budget = budget_of(write(DAILY), spending={"on_alert": told, "store": store}, meter={"prices": cents})
    assert (budget.on_alert, budget.store, budget.prices) == (told, store, cents)
    assert [rule.amount for rule in budget.rules] == [5]


def test_a_budget_of_codes_own(write):
    own = Budget(usd=Decimal("0.5"), limits=[Limit(tokens=9, window=90)], window="1h", prices=cents)
    effective = load(write(DAILY)).for_model("m", spending=own)
    assert next(layer for layer in effective.layers() if isinstance(layer, Budget)) is own
    values = {setting.path: setting.value for setting in explain(stack(ScriptedClient("a"), own)).settings}
    assert (values["spending[0].usd"], values["spending[0].window"]) == ("0.5", "1h")
    assert (values["spending[1].usd"], values["spending[1].tokens"], values["spending[1].window"]) == (
        "none",
        "9",
        "90s",
    )


def test_code_can_name_and_take_out_what_the_file_has(write):
    policy = write("spending: {a: {usd: 1}, b: {usd: 2}}\npolicies: {default: {spending: [a]}}\n")
    assert [rule.name for rule in budget_of(policy, spending=["b"]).rules] == ["b"]
    assert [rule.name for rule in budget_of(policy, spending="b").rules] == ["b"]
    assert budget_of(policy, spending=None) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"spending": ["dayly"]}, "code: spending: there is no 'dayly' in spending, did you mean 'daily'?"),
        ({"spending": {"usd": 1}}, "code: spending.usd: only the file has it; code gives on_alert, prices, store"),
        ({"meter": {"price": 1}}, "code: meter.price: unknown key, did you mean 'prices'?"),
    ],
)
def test_overrides_that_make_no_sense(overrides, message, write):
    with pytest.raises(PolicyError) as caught:
        load(write(DAILY)).for_model("m", **overrides)
    assert str(caught.value) == message


# What is enforced


@pytest.mark.parametrize(
    ("enforce", "overrides", "message"),
    [
        ("require: [spending]", {"spending": None}, "spending: required by enforce.require"),
        ("forbid: [spending]", None, "spending: forbidden by enforce.forbid"),
        ("locked: [spending]", {"spending": Budget(usd=9)}, "spending: locked at [{usd: 5.0, tokens: none"),
        ("locked: [meter]", {"meter": {"on_unknown_price": "block"}}, "meter: locked at {prices: none"),
        ("locked: [cache.store]", {"cache": {"store": "sqlite:///x"}}, "cache.store: locked at 'redis://***@h/0' by"),
        ("max: {cache: {stale_if_error: 1h}}", {"cache": {"stale_if_error": "2h"}}, "cache.stale_if_error: 2h is more"),
    ],
)
def test_enforcement(enforce, overrides, message, write):
    path = write(f"{DAILY}cache: {{store: 'redis://me:secret@h/0'}}\nenforce: {{{enforce}}}\n")
    with pytest.raises(PolicyError) as caught:
        load(path).for_model("m", **overrides)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


# Prices, ledgers and stores


def test_prices_and_unknown_ones(write, tmp_path):
    table = tmp_path / "prices.yaml"
    table.write_text("version: 1\nprices: [{match: house, input: 1, output: 2}]\n")
    path = write(f"meter: {{prices: {table}, on_unknown_price: raise}}\n{DAILY}")
    client = wrap(ScriptedClient(Answer("a", 500_000, 250_000), model_name="house"), path, spending=None)
    assert run(ask(client)).cost.billed == 1
    assert budget_of(path, "house").source("house", 0).source == client.layers[-1].source("house", 0).source
    with pytest.raises(UnknownPrice):
        wrap(ScriptedClient("a", model_name="another"), path)


def test_a_price_table_with_mistakes(write, tmp_path):
    (tmp_path / "prices.yaml").write_text("version: 1\nprices: [{match: house, input: 1, output: 2, cash: 3}]\n")
    (line,) = refused(write(f"meter: {{prices: {tmp_path}/prices.yaml}}\n"))
    assert line.startswith("2:8: meter: prices.yaml:2:46: prices[0].cash: unknown key")


def test_what_code_gives_in_place_of_a_url(write):
    store = MemoryStore(2**20)
    path = write("cache: {store: 'sqlite:///cache.db', ttl: 5m}\nmeter: {on_unknown_price: block}\n")
    layers = load(path).for_model("m", cache={"store": store}, meter={"prices": cents}).layers()
    assert next(layer for layer in layers if isinstance(layer, Cache)).store is store
    assert next(layer for layer in layers if isinstance(layer, Meter)) == Meter(prices=cents, on_unknown_price="block")
    whole = load(path).for_model("m", cache=Cache(ttl=60), meter=Meter(prices=cents)).layers()
    assert next(layer for layer in whole if isinstance(layer, Cache)) == Cache(ttl=60)
    assert next(layer for layer in whole if isinstance(layer, Meter)) == Meter(prices=cents)


def test_shared_state_is_named_without_the_folder(write):
    """Other processes may have the file elsewhere; in one process, other files have the same names."""
    path = write(
        "limits: {here: {requests: 1}, there: {requests: 1, store: 'redis://localhost/0'}}\n"
        "policies: {default: {limit: here}, other: {limit: there}}\nmodels: [{match: o, policy: other}, {match: '*'}]\n"
    )
    names = {
        model: next(layer.name for layer in load(path).for_model(model).layers() if isinstance(layer, RateLimit))
        for model in "oa"
    }
    assert names == {"o": "limits.there", "a": f"{path}: limits.here"}


def test_no_password_is_shown(write):
    path = write(
        "cache: {store: 'redis://me:secret@host/0'}\nmeter: {ledger: 'postgresql://me:secret@host/costs'}\n"
        "limits: {l: {requests: 1, store: 'redis://me:secret@host/0'}}\nspending: {s: {usd: 1, store: 'redis://me:secret@h'}}\n"
        "policies: {default: {limit: l, spending: [s]}}\n"
    )
    effective = load(path).for_model("m")
    explanation = explain_policy(effective)
    for text in (render(explanation), json.dumps(explanation.as_json())):
        assert "secret" not in text
        assert "redis://***@" in text
    assert "secret" not in repr(effective)
    (line,) = refused(write("cache: {store: {url: 'redis://me:secret@host/0'}}\n"))
    assert "secret" not in line


# Reloads


def test_what_is_spent_counts_towards_a_new_limit(write):
    async def main():
        path = write(DAILY)
        policy = Policy.watch(path, environment={})
        client = wrap(ScriptedClient(Answer("a", 1, 399), model_name="m"), policy, meter={"prices": cents})
        await ask(client)
        write(DAILY.replace("5", "8"))
        await policy.reload()
        await ask(client)
        write(DAILY.replace("5", "7"))
        await policy.reload()
        with pytest.raises(BudgetExceeded) as caught:
            await ask(client)
        assert (caught.value.limit, caught.value.spent) == (7, 8)

    run(main())


def test_answers_in_memory_survive_new_settings(write):
    async def main():
        path = write("cache: {ttl: 1h}\n")
        policy = Policy.watch(path, environment={})
        client = wrap(ScriptedClient("a", then="raise"), policy)
        await ask(client)
        write("cache: {ttl: 2h, sampled: true}\n")
        await policy.reload()
        assert (await ask(client)).cache.result == "hit"

    run(main())


# The worst case


def explain_policy(effective, **asked):
    from overcoat.policy.explaining import explain

    return explain(effective, now=1.7e9, **asked)


def worst(write, spending, policy="retry: {max_attempts: 3}, deadline: 30s", prices=cents):
    path = write(f"spending: {{s: {{{spending}}}}}\npolicies: {{default: {{spending: [s], {policy}}}}}\n")
    effective = load(path).for_model("m", meter={"prices": prices})
    return explain_policy(effective, input_tokens=50, output_tokens=50).worst.dollars


@pytest.mark.parametrize(
    ("spending", "dollars", "formula"),
    [
        ("usd: 1, window: 1h, attempts: 3", "1", "s: $1"),
        ("usd: 1, window: none, attempts: 3", "1", "s: $1"),
        ("usd: 0.5, window: 1h", "2.5", "s: $0.5 + $2 of retries, which are not reserved"),
        ("usd: 1, attempts: 3", "2", "s: $1 in each of 2 windows"),
        ("usd: 4, window: 1h, attempts: 3", "3", "3 requests x $1"),
        ("usd: 1, window: 1h, attempts: 3, on_limit: warn", "3", "3 requests x $1"),
        ("usd: 1, window: 1h, attempts: 3, store: 'redis://h', fail: open", "3", "3 requests x $1"),
        ("usd: 1, window: 1h, attempts: 3, store: 'redis://h'", "1", "s: $1"),
        ("usd: 1, window: 1h, attempts: 3, scope: 'tag:t'", "1", "s: $1"),
        ("usd: 1, window: 1h, attempts: 3, scope: 'tag:t', on_missing_tag: allow", "3", "3 requests x $1"),
        ("tokens: 1, window: 1h, attempts: 3", "3", "3 requests x $1"),
    ],
)
def test_a_limit_bounds_the_worst_case(spending, dollars, formula, write):
    figure = worst(write, spending)
    assert (figure.value, figure.formula) == (Decimal(dollars), formula)


def test_time_that_nothing_bounds_has_any_number_of_windows(write):
    assert worst(write, "usd: 1, window: 1h, attempts: 3", "retry: {max_attempts: 3}").value == 3
    assert worst(write, "usd: 1, window: none, attempts: 3", "retry: {max_attempts: 3}").value == 1


def test_long_calls_have_several_windows(write):
    assert worst(
        write, "usd: 0.1, window: 1m, attempts: 3", "retry: {max_attempts: 3}, deadline: 150s"
    ).value == Decimal("0.3")
    slow = "retry: {max_attempts: 3}, deadline: 150s"
    assert worst(write, "usd: 0.1, window: calendar minute, attempts: 3", slow).value == Decimal("0.4")


def test_who_waits_for_money_takes_longer(write):
    path = write(
        "spending: {s: {usd: 1, on_limit: wait, max_wait: 10s}}\n"
        "policies: {default: {spending: [s], attempt_timeout: 5s}}\n"
    )
    explanation = explain_policy(load(path).for_model("m"), error=503)
    assert (explanation.worst.seconds.value, explanation.worst.seconds.formula) == (
        15,
        "10s for its budget + 1 attempt x 5s",
    )
    assert explanation.failure.attempts[0].start.most == 10


def test_the_text_says_what_may_be_spent(write):
    text = render(explain_policy(load(write(DAILY)).for_model("openai/gpt-4o")))
    assert "  Budget\n    daily.usd" in text
    assert "(policy.yaml" not in text.split("EFFECTIVE")[0]


class Charging:
    """A provider that charges for each request, whatever comes of it: 100 tokens."""

    def __init__(self, outcomes, model_name):
        self.model_name = model_name
        self._outcomes = outcomes
        self.asked = 0

    async def call(self, conversation, options, event, json_mode=False):
        outcome = self._outcomes[self.asked % len(self._outcomes)]
        self.asked += 1
        await asyncio.sleep(outcome == "slow")
        event.prompt_tokens, event.completion_tokens, event.total_tokens = 50, 50, 100
        if outcome == "down":
            raise LLMStatusError("down", 503)
        return "" if outcome == "empty" else "a"


limits = st.fixed_dictionaries(
    {"usd": st.sampled_from([0, 1.4, 2, 3.7, 5]), "window": st.sampled_from(["1m", "1d", "calendar day", "none"])},
)
own_policies = st.fixed_dictionaries(
    {"retry": st.fixed_dictionaries({"max_attempts": st.integers(1, 4), "backoff": st.just({"base": "0s"})})},
    optional={"spending": st.sampled_from([["one"], ["one", "other"]]), "hedge": st.just({"after": "500ms"})},
)


@given(
    one=limits,
    other=limits,
    reserved=st.integers(1, 3),
    own=own_policies,
    target=own_policies,
    reasks=st.integers(0, 2),
    deadline=st.booleans(),
    outcomes=st.tuples(
        *[st.lists(st.sampled_from(["down", "down", "empty", "slow", "ok"]), min_size=1, max_size=6)] * 2
    ),
)
def test_no_call_costs_more_than_the_worst_case(
    tmp_path_factory, one, other, reserved, own, target, reasks, deadline, outcomes
):
    """Limits hold for all that a call asks for, at any time of the day, and the retries that they do not foresee."""
    forget()
    path = tmp_path_factory.getbasetemp() / "spending.yaml"
    terms = {"attempts": reserved, "default_output_tokens": 1}
    default = {**own, "validate": {"max_reasks": reasks}} | ({"deadline": "20s"} if deadline else {})
    path.write_text(
        json.dumps(
            {
                "version": 1,
                "spending": {"one": {**one, **terms}, "other": {**other, **terms}},
                "policies": {"default": default, "target": target},
                "models": [{"match": "b", "policy": "target"}, {"match": "*"}],
                "fallbacks": [{"from": "a", "to": ["b"], "when": ["overloaded", "budget_exceeded"]}],
            }
        )
    )
    policy = Policy.load(path, environment={})
    clients = {name: Charging(each, name) for name, each in zip("ab", outcomes, strict=True)}
    client = wrap(clients["a"], policy, client_for=clients.__getitem__, meter={"prices": cents})

    async def main():
        with capture() as calls, suppress(LLMStatusError, OvercoatError):
            await client.call(CONVERSATION, None, LLMEvent([], "test"))
        return calls[0]

    most = client.explain(input_tokens=50, output_tokens=50).worst.dollars.value
    assert run(main()).cost.billed <= most


def test_a_tag_has_its_own(write):
    """And the reservation that is refused names it."""
    path = write(
        "spending: {each: {usd: 5, scope: 'tag:tenant', default_output_tokens: 1}}\n"
        "policies: {default: {spending: [each]}}\n"
    )
    client = wrap(ScriptedClient(Answer("a", 1, 399), model_name="m"), path, meter={"prices": cents})
    for tenant in ("acme", "umbrella"):
        with tags(tenant=tenant):
            run(ask(client))
    with tags(tenant="acme"), pytest.raises(BudgetExceeded, match="tenant:acme"):
        run(ask(client))
