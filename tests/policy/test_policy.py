"""What holds for a model, where each value is from, what the environment and code can change, and what is enforced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import Deadline, Hedge, PolicyError, Retry, Timeout, Trace
from overcoat.layers.breaker import Breaker
from overcoat.layers.retry import RetryBudget
from overcoat.policy import Policy
from overcoat.policy.commands import check
from overcoat.policy.overrides import Overrides
from overcoat.policy.schema import Effective
from overcoat.policy.shape import keys_of

PRODUCTION = Path(__file__).parents[2] / "examples" / "policies" / "production.yaml"

SMALL = """\
version: 1
policies:
  default:
    deadline: 60s
    retry:
      max_attempts: 4
      backoff: {base: 1s, cap: 10s}
    breaker: usual
    hedge: {after: 5s}
  fast:
    extends: default
    deadline: 15s
    retry: {backoff: {base: 100ms}}
    hedge: none
  fastest:
    extends: fast
    deadline: 5s
    breaker: quick
breakers:
  usual: {window: 60s}
  quick: {open_for: 5s}
limits:
  small: {requests: 10}
models:
  - {match: "openai/*-mini", policy: fast}
  - {match: "openai/*", policy: fastest, limit: small}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def load(path, **environment):
    return Policy.load(path, environment={f"OVERCOAT_{name}": value for name, value in environment.items()})


def refused(path, **environment):
    """Return the mistakes of a file with an environment, without the folder of the file."""
    with pytest.raises(PolicyError) as caught:
        load(path, **environment)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "policy.yaml"
        path.write_text(f"version: 1\n{text}")
        return path

    return write


# Rules and inheritance


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-4o-mini", "fast"),
        ("openai/gpt-4o", "fastest"),
        ("OpenAI/gpt-4o", "default"),
        ("claude", "default"),
        (None, "default"),
    ],
)
def test_the_first_rule_that_matches(model, name, small):
    assert load(small).for_model(model).name == name


def test_which_rule_it_was(small):
    rules = {model: load(small).for_model(model).rule for model in ("openai/a-mini", "openai/a", "claude")}
    first, second = rules["openai/a-mini"], rules["openai/a"]
    assert (first.index, first.match, first.origin.rpartition("/")[2]) == (0, "openai/*-mini", "small.yaml:25:13")
    assert (second.index, second.match, second.origin.rpartition("/")[2]) == (1, "openai/*", "small.yaml:26:13")
    assert rules["claude"] is None


def test_inheritance_is_by_key(small):
    policy = load(small)
    values = ["deadline", "retry.max_attempts", "retry.backoff.base", "retry.backoff.cap", "breaker.open_for", "hedge"]
    got = {
        model: [policy.for_model(model).value(path) for path in values]
        for model in ("other", "openai/a-mini", "openai/a")
    }
    assert got["other"][:-1] == [60, 4, 1, 10, 15]
    assert got["openai/a-mini"] == [15, 4, 0.1, 10, 15, None]
    assert got["openai/a"] == [5, 4, 0.1, 10, 5, None]


def test_each_value_knows_where_it_is_from(small):
    policy = load(small, POLICIES__FAST__RETRY__MAX_ATTEMPTS="2")
    effective = policy.for_model("openai/gpt-4o", deadline=3)
    assert {
        path: effective.origin(path).replace(f"{small.parent}/", "")
        for path in (
            "deadline", "retry.max_attempts", "retry.backoff.base", "retry.backoff.cap", "retry.server_delay.max",
            "breaker.open_for", "limit.requests", "limit.max_wait", "cache.ttl",
        )
    } == {
        "deadline": "code",
        "retry.max_attempts": "env OVERCOAT_POLICIES__FAST__RETRY__MAX_ATTEMPTS",
        "retry.backoff.base": "small.yaml:13:29",
        "retry.backoff.cap": "small.yaml:7:32",
        "retry.server_delay.max": "default",
        "breaker.open_for": "small.yaml:21:21",
        "limit.requests": "small.yaml:23:21",
        "limit.max_wait": "default",
        "cache.ttl": "default",
    }  # fmt: skip


def test_a_path_of_nothing_is_refused(small):
    effective = load(small).for_model("x")
    with pytest.raises(KeyError, match=r"a policy has no 'retry.attempts', did you mean 'retry.max_attempts'"):
        effective.origin("retry.attempts")
    with pytest.raises(KeyError, match="a policy has no 'dedline', did you mean 'deadline'"):
        effective.value("dedline")


def test_a_file_without_policies_has_a_default(write):
    assert load(write("cache: {ttl: 5m}\n")).for_model("x").value("cache.ttl") == 300


def test_no_rule_and_no_default(write):
    policy = load(write("policies: {fast: {}}\nmodels: [{match: 'openai/*', policy: fast}]\n"))
    with pytest.raises(PolicyError, match="models: no rule matches 'claude', and there is no policy 'default'"):
        policy.for_model("claude")


def test_a_long_line_of_heirs_is_no_deep_recursion(write):
    heirs = "".join(f"  p{n}: {{extends: p{n - 1}}}\n" for n in range(1, 1500))
    policy = load(write(f"policies:\n  p0: {{deadline: 5s}}\n{heirs}models: [{{match: '*', policy: p1499}}]\n"))
    assert policy.for_model("x").value("deadline") == 5


# Digest


def test_the_digest_is_of_what_holds(write):
    """Not of how it is written: units, order, names and inherited values make no difference."""
    one = load(write("policies:\n  default: {deadline: 60s, retry: {max_attempts: 3}}\n")).for_model("x")
    other = load(write("policies:\n  a: {retry: {}}\n  default: {extends: a, deadline: 1m}\n")).for_model("y")
    assert one.digest == other.digest
    assert len(one.digest) == 12
    assert int(one.digest, 16) >= 0


def test_the_digest_changes_with_every_value(small):
    policy = load(small)
    digests = [
        policy.for_model("x", **overrides).digest
        for overrides in (
            {},
            {"deadline": 59},
            {"hedge": {"after": 4}},
            {"breaker": None},
            {"cache": {}},
            {"trace": None},
        )
    ]
    assert len(set(digests)) == len(digests)


def test_what_only_code_can_give_is_not_in_the_digest(small):
    policy = load(small)
    assert policy.for_model("x", retry={"random": lambda: 0.5}).digest == policy.for_model("x").digest


# The environment


def test_the_environment_comes_before_inheritance(small):
    policy = load(small, POLICIES__DEFAULT__RETRY__MAX_ATTEMPTS="2", POLICIES__FASTEST__EXTENDS="default")
    assert policy.for_model("openai/gpt-4o").value("retry.max_attempts") == 2
    assert policy.for_model("openai/gpt-4o").value("hedge.after") == 5


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("POLICIES__DEFAULT__DEADLINE", "5s", "deadline", 5),
        ("policies__default__Deadline", "1m30s", "deadline", 90),
        ("POLICIES__DEFAULT__HEDGE", "none", "hedge", None),
        ("POLICIES__DEFAULT__HEDGE", "{max_extra: 2}", "hedge.max_extra", 2),
        ("POLICIES__DEFAULT__ATTEMPT_TIMEOUT", "5s", "attempt_timeout", 5),
        ("POLICIES__DEFAULT__RETRY__ERRORS__TIMEOUT__MAX_ATTEMPTS", "1", "retry.errors.timeout.max_attempts", 1),
        ("BREAKERS__USUAL__FAILURE_RATIO", "0.7", "breaker.failure_ratio", 0.7),
        ("CACHE__SAMPLED", "true", "cache.sampled", True),
        ("CACHE__NAMESPACE", '"7"', "cache.namespace", "7"),
        ("TRACE__COST_TIERS", "[0.1, 1]", "trace.cost_tiers", (0.1, 1.0)),
    ],
)
def test_a_variable_is_typed_as_the_file_is(variable, text, path, value, small):
    effective = load(small, **{variable: text}).for_model("x")
    assert effective.value(path) == value


def test_what_is_around_a_value_stays(small):
    """A variable for one value takes away neither its neighbours nor their places."""
    effective = load(small, POLICIES__DEFAULT__RETRY__BACKOFF__BASE="2s").for_model("x")
    assert (effective.value("retry.backoff.base"), effective.value("retry.backoff.cap")) == (2, 10)
    assert effective.origin("retry.backoff.cap").endswith("small.yaml:7:32")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("POLICES__FAST__DEADLINE", "1s", "nothing of this name, did you mean OVERCOAT_POLICIES__FAST__DEADLINE?"),
        ("POLICIES__FAZT__DEADLINE", "1s", "nothing of this name, did you mean OVERCOAT_POLICIES__FAST__DEADLINE?"),
        ("POLICIES__FAST__DEDLINE", "1s", "nothing of this name, did you mean OVERCOAT_POLICIES__FAST__DEADLINE?"),
        ("CONFG", "x", "nothing of this name, did you mean OVERCOAT_CONFIG?"),
        ("ENABLE", "false", "nothing of this name, did you mean OVERCOAT_ENABLED?"),
        ("LIMITS__LARGE__REQUESTS", "1", "nothing of this name; expected one of small"),
        ("POLICIES__FAST__DEADLINE__MAX", "1s", "nothing of this name"),
        ("POLICIES", "{}", "it needs a name and a setting, too"),
        ("MODELS", "[]", "models is a list, which only the file has"),
        ("ENFORCE__MAX__DEADLINE", "1h", "enforce is what the environment must obey"),
        ("VERSION", "2", "version says what the file is"),
        ("POLICIES__FAST__DEADLINE", "5", 'a duration needs a unit; did you mean "5s"?'),
        ("POLICIES__FAST__DEADLINE", "1:30", "a duration has units, such as 1m30s"),
        ("POLICIES__FAST__RETRY__MAX_ATTEMPTS", "many", "expected a whole number, not 'many'"),
        ("POLICIES__FAST__RETRY__MAX_ATTEMPTS", "11", "11 attempts are more than 10"),
        ("POLICIES__FAST__BREAKER", "usul", "there is no 'usul' in breakers, did you mean 'usual'?"),
        ("CACHE__SAMPLED", "yes", "yes is a truth value to readers of YAML 1.1"),
        ("CACHE__TTL", "", "it is empty"),
        ("CACHE__TTL", "[1s", "expected ',' or ']'"),
        ("ENABLED", "0", "expected true or false, not '0'"),
    ],
)
def test_a_variable_of_nothing_is_a_mistake(variable, text, message, small):
    """A misspelt one would otherwise have no effect, and nobody would know."""
    (line,) = refused(small, **{variable: text})
    assert line.startswith(f"env OVERCOAT_{variable}: ")
    assert message in line


def test_two_variables_of_the_same_value(small):
    lines = refused(small, CACHE__TTL="1s", Cache__Ttl="2s")
    assert lines == ["env OVERCOAT_Cache__Ttl: cache.ttl: the same as OVERCOAT_CACHE__TTL"]


def test_other_variables_are_no_business_of_ours(small):
    assert Policy.load(small, environment={"OVERCOATS": "2", "PATH": "/bin"}).for_model("x").name == "default"


def test_the_file_that_the_environment_names(small, monkeypatch):
    monkeypatch.setenv("OVERCOAT_CONFIG", str(small))
    assert Policy.load().path == str(small)


def test_a_file_that_is_named_comes_before_that_of_the_environment(small):
    assert load(small, CONFIG="missing.yaml").path == str(small)


def test_check_takes_the_environment_into_account(small, monkeypatch, capsys):
    monkeypatch.setenv("OVERCOAT_CACHE__TTL", "5")
    assert check(small) == 1
    assert "env OVERCOAT_CACHE__TTL: cache.ttl: a duration needs a unit" in capsys.readouterr().out


# Code


def test_a_mapping_changes_what_is_in_it(small):
    effective = load(small).for_model("x", retry={"max_attempts": 2, "backoff": {"base": 0}})
    assert effective.value("retry.max_attempts") == 2
    assert (effective.value("retry.backoff.base"), effective.value("retry.backoff.cap")) == (0, 10)


def test_a_layer_replaces_the_whole(small):
    effective = load(small).for_model("x", retry=Retry(max_attempts=2, errors={}))
    assert effective.value("retry.backoff") is None
    assert effective.value("retry.max_attempts") == 2


@pytest.mark.parametrize("given", [lambda budget: Retry(budget=budget), lambda budget: {"budget": budget}])
def test_a_budget_of_a_layer_is_the_budget(given, small):
    budget = RetryBudget(ratio=0.5)
    effective = load(small).for_model("x", retry=given(budget))
    assert effective.value("budget.ratio") == 0.5
    (retry,) = [layer for layer in effective.layers() if isinstance(layer, Retry)]
    assert retry.budget == budget


def test_code_can_name_what_the_file_has(small):
    assert load(small).for_model("x", breaker="quick").value("breaker.open_for") == 5


@pytest.mark.parametrize("none", [None, "none"])
def test_none_takes_a_layer_out(none, small):
    effective = load(small).for_model("x", hedge=none, breaker=none, deadline=none)
    assert [effective.value(path) for path in ("hedge", "breaker", "deadline")] == [None] * 3
    assert not [layer for layer in effective.layers() if isinstance(layer, (Hedge, Breaker))]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"retrry": {}}, "code: retrry: no layer, did you mean 'retry'?"),
        ({"retry": {"max_attempt": 2}}, "code: retry.max_attempt: unknown key, did you mean 'max_attempts'?"),
        ({"retry": {"max_attempts": 0}}, "code: retry.max_attempts: expected a whole number of at least 1"),
        ({"retry": 3}, "code: retry: expected a mapping, not 3"),
        ({"deadline": "5"}, "code: deadline: '5' is no duration"),
        ({"deadline": -1}, "code: deadline: -1 must be 0 or more"),
        ({"breaker": "quik"}, "code: breaker: there is no 'quik' in breakers, did you mean 'quick'?"),
        ({"budget": "shared"}, "code: budget: there is no 'shared' in budgets"),
        ({"retry": {"budget": 3}}, "code: budget: expected a mapping, not 3"),
        ({"meter": {"price": 1}}, "code: meter.price: unknown key, did you mean 'prices'?"),
        ({"hedge": {"max_extra": 0}}, "code: hedge.max_extra: expected a whole number of at least 1"),
    ],
)
def test_overrides_that_make_no_sense(overrides, message, small):
    with pytest.raises(PolicyError) as caught:
        load(small).for_model("x", **overrides)
    assert str(caught.value).startswith(message)


def test_times_can_be_layers(small):
    effective = load(small).for_model("x", deadline=Deadline(7), attempt_timeout=Timeout("2s"))
    assert (effective.value("deadline"), effective.value("attempt_timeout")) == (7, 2)


def test_lists_can_be_tuples(small):
    assert load(small).for_model("x", trace={"cost_tiers": (0.1, 1)}).value("trace.cost_tiers") == (0.1, 1)


def test_every_key_can_be_overridden():
    assert set(Overrides.__annotations__) == {*keys_of(Effective), "meter"}


def test_fallbacks_replace_the_files():
    effective = load(PRODUCTION).for_model("openai/gpt-4o", fallbacks=[{"to": ["mistral/large"]}])
    assert [rule.at(("to",)) for rule in effective.value("fallbacks")] == [("mistral/large",)]
    assert load(PRODUCTION).for_model("openai/gpt-4o", fallbacks=[]).value("fallbacks") == ()


def test_where_the_file_has_nothing_to_name(write):
    with pytest.raises(PolicyError, match="code: breaker: there is no 'standard' in breakers"):
        load(write("")).for_model("x", breaker="standard")


# Enforcement


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"deadline": "3m"}, "deadline: 3m is more than the 2m of enforce.max (FILE)"),
        ({"deadline": None}, "deadline: there is none, and enforce.max (FILE) asks for at most 2m"),
        ({"retry": {"max_attempts": 7}}, "retry.max_attempts: 7 is more than the 6 of enforce.max (FILE)"),
        (
            {"retry": {"errors": {"timeout": {"max_attempts": 7}}}},
            "retry.errors.timeout.max_attempts: 7 is more than the 6 of enforce.max (FILE)",
        ),
        ({"breaker": {"open_for": 1}}, "breaker.open_for: 1s is less than the 5s of enforce.min (FILE)"),
        (
            {"retry": {"server_delay": {"max": 60}}},
            "retry.server_delay.max: locked at 30s by enforce.locked (FILE), but given as 1m",
        ),
        (
            {"limit": {"requests": 501}},
            "limit.requests: locked at 500 by enforce.locked (FILE), but given as 501",
        ),
        ({"breaker": None}, "breaker: required by enforce.require (FILE), and not there"),
        ({"cache": {"sampled": True}}, "cache.sampled: true is forbidden by enforce.forbid (FILE)"),
    ],
)
def test_code_cannot_loosen_what_is_enforced(overrides, message, tmp_path):
    """Both values and both places are named; the lines of the file are left out here."""
    with pytest.raises(PolicyError) as caught:
        load(PRODUCTION).for_model("openai/gpt-4o", **overrides)
    assert f"code: {message}" in re.sub(r"\(.*/production.yaml:\d+:\d+\)", "(FILE)", str(caught.value)).splitlines()


@pytest.mark.parametrize(
    "overrides",
    [
        {"deadline": 1},
        {"retry": {"max_attempts": 1, "errors": {}}},
        {"breaker": {"open_for": 60}},
        {"retry": {"server_delay": {"jitter": 1}}},
        {"retry": {"server_delay": {"max": 30}}, "limit": {"requests": 500}},
        {"cache": None, "hedge": None},
    ],
)
def test_code_may_tighten(overrides):
    load(PRODUCTION).for_model("openai/gpt-4o", **overrides)


def test_the_environment_cannot_loosen_what_is_enforced():
    lines = refused(
        PRODUCTION,
        POLICIES__INTERACTIVE__DEADLINE="5m",
        POLICIES__DEFAULT__RETRY__SERVER_DELAY__MAX="60s",
        LIMITS__OPENAI_TIER_1__REQUESTS="501",
        POLICIES__DEFAULT__BREAKER="none",
        CACHE__SAMPLED="true",
    )
    assert [line.split(": ")[0] for line in lines] == [
        "env OVERCOAT_CACHE__SAMPLED",
        "env OVERCOAT_LIMITS__OPENAI_TIER_1__REQUESTS",
        "env OVERCOAT_POLICIES__DEFAULT__BREAKER",
        "env OVERCOAT_POLICIES__DEFAULT__RETRY__SERVER_DELAY__MAX",
        "env OVERCOAT_POLICIES__INTERACTIVE__DEADLINE",
    ]
    assert all("enforce." in line and "production.yaml:" in line for line in lines)


def test_the_environment_may_tighten():
    policy = load(PRODUCTION, POLICIES__INTERACTIVE__DEADLINE="10s", POLICIES__DEFAULT__RETRY__MAX_ATTEMPTS="1")
    assert policy.for_model("openai/gpt-4o-mini").value("deadline") == 10


def test_a_lock_holds_against_another_name(write):
    """Neither an other breaker nor an other base is a way around a locked value."""
    path = write(
        "policies:\n  a: {breaker: x}\n  b: {breaker: y}\n  default: {extends: a}\n"
        "breakers:\n  x: {window: 60s}\n  y: {window: 90s}\nenforce: {locked: [breaker.window]}\n"
    )
    for name, value in (("POLICIES__DEFAULT__BREAKER", "y"), ("POLICIES__DEFAULT__EXTENDS", "b")):
        assert any("breaker.window: locked at 1m" in line or "breakers.y.window: locked at 1m" in line
                   for line in refused(path, **{name: value}))  # fmt: skip


def test_a_section_can_be_locked(small):
    small.write_text(SMALL + "enforce: {locked: [retry.backoff]}\n")
    backoff = {"base": "2s"}
    with pytest.raises(PolicyError) as caught:
        load(small).for_model("other", retry={"backoff": backoff, "errors": {"timeout": {"backoff": backoff}}})
    rule = "by enforce.locked (FILE:27:20), but given as"
    assert str(caught.value).replace(str(small), "FILE").splitlines() == [
        f"code: retry.{name}: locked at {was} {rule} {{base: 2s, cap: {cap}, kind: 'full_jitter'}}"
        for name, was, cap in (
            ("backoff", "{base: 1s, cap: 10s, kind: 'full_jitter'}", "10s"),
            ("errors.timeout.backoff", "none", "20s"),
        )
    ]


def test_a_lock_on_what_the_file_itself_has_wrong(write):
    """What the environment mends is not what the file says."""
    path = write("policies: {default: {breaker: usul}}\nbreakers: {usual: {}}\nenforce: {locked: [breaker]}\n")
    assert refused(path) == [
        "policy.yaml:2:31: policies.default.breaker: there is no 'usul' in breakers, did you mean 'usual'?"
    ]
    (line,) = refused(path, POLICIES__DEFAULT__BREAKER="usual")
    assert "locked at none" in line


def test_a_ceiling_holds_for_what_stays_unsaid(write):
    """The backoff that suits an overloaded provider waits up to a minute, unless the policy says otherwise."""
    path = write("policies: {default: {retry: {}}}\nenforce: {max: {retry: {backoff: {cap: 30s}}}}\n")
    (line,) = refused(path)
    assert "retry.errors.overloaded.backoff.cap: 1m, the default, is more than the 30s of enforce.max" in line
    load(write("policies: {default: {retry: {backoff: {cap: 30s}}}}\nenforce: {max: {retry: {backoff: {cap: 30s}}}}\n"))


def test_what_is_beyond_a_ceiling_is_said_once(write):
    """And not for each class of errors, which has it from there."""
    (line,) = refused(
        write("policies: {default: {retry: {backoff: {cap: 2m}}}}\nenforce: {max: {retry: {backoff: {cap: 30s}}}}\n")
    )
    assert line.endswith("retry.backoff.cap: 2m is more than the 30s of enforce.max (policy.yaml:3:40)")


def test_a_ceiling_is_no_mistake_where_the_layer_is_missing(write):
    load(write("policies: {default: {}}\nenforce: {max: {retry: {max_attempts: 5}, limit: {requests: 5}}}\n"))


def test_a_floor_is_met_by_none(write):
    load(write("policies: {default: {}}\nenforce: {min: {deadline: 5s}}\n"))


def test_rules_are_held_to_it_by_their_own_limits(write):
    path = write(
        "policies: {default: {}}\nlimits: {a: {requests: 900}}\n"
        "models: [{match: 'a*', limit: a}, {match: '*'}]\nenforce: {max: {limit: {requests: 500}}}\n"
    )
    assert refused(path) == [
        "policy.yaml:3:24: limits.a.requests: 900 is more than the 500 of enforce.max (policy.yaml:5:35)"
    ]


def test_the_switch_can_be_locked(write):
    path = write("enforce: {locked: [enabled]}\n")
    assert refused(path, ENABLED="false") == ["env OVERCOAT_ENABLED: enabled: locked by enforce.locked"]
    assert load(path, ENABLED="true").enabled


@pytest.mark.parametrize("content", ["spans", "events", "spans and events", "environment"])
def test_the_capture_of_contents_can_be_forbidden(content, write):
    """Then the file says that there is none, and nobody can say otherwise, nor leave it to OpenTelemetry's variable."""
    small = "enforce: {forbid: [trace.content]}\n"
    assert refused(write(small)) == [
        "policy.yaml:2:10: trace.content: 'environment', the default, is forbidden by enforce.forbid (policy.yaml:2:20)"
    ]
    path = write(f"trace: {{content: none}}\n{small}")
    said = f"trace.content: '{content}' is forbidden by enforce.forbid"
    assert refused(path, TRACE__CONTENT=content)[0].startswith(f"env OVERCOAT_TRACE__CONTENT: {said}")
    for trace in ({"content": content}, Trace(content=content)):
        with pytest.raises(PolicyError, match=f"code: {said}"):
            load(path).for_model("m", trace=trace)
    assert load(path).for_model("m", trace={"attempts": "always"}).value("trace.content") == "none"


@given(
    floor=st.integers(1, 10),
    ceiling=st.integers(1, 10),
    by_file=st.integers(1, 10),
    by_code=st.integers(1, 10) | st.none(),
)
def test_what_is_effective_lies_within_what_is_enforced(floor, ceiling, by_file, by_code, tmp_path_factory):
    """Or there is no policy at all; and nothing within is refused."""
    path = tmp_path_factory.getbasetemp() / "bounds.yaml"
    path.write_text(
        f"version: 1\npolicies: {{default: {{retry: {{max_attempts: {by_file}}}}}}}\n"
        f"enforce: {{min: {{retry: {{max_attempts: {floor}}}}}, max: {{retry: {{max_attempts: {ceiling}}}}}}}\n"
    )
    overrides = {} if by_code is None else {"retry": {"max_attempts": by_code}}
    try:
        effective = load(path).for_model("x", **overrides).value("retry.max_attempts")
    except PolicyError:
        effective = None
    within = all(floor <= value <= ceiling for value in (by_file, by_code) if value is not None)
    assert effective == ((by_file if by_code is None else by_code) if within else None)
