"""Holds the error tree to its drawing, and each error to what it promises: values, messages, pickle and copy."""

import asyncio
import builtins
import copy
import pickle
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import overcoat
from overcoat import errors
from overcoat.errors import (
    AnswerRejected,
    AttemptTimeout,
    BudgetExceeded,
    BudgetUnchecked,
    CircuitOpen,
    DeadlineExceeded,
    Kind,
    LedgerError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMStatusError,
    NotCached,
    OvercoatError,
    PolicyError,
    PromptTemplateError,
    RateLimited,
    Refused,
    RequestsExceeded,
    StackOrderError,
    StoreUnavailable,
    UnknownPrice,
    classify,
)

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)

EXAMPLES = [
    PolicyError("retry.max_attempts: 0 must be at least 1"),
    StackOrderError("Retry outside Cache repeats the lookup"),
    AttemptTimeout(8),
    AnswerRejected("no JSON"),
    LedgerError("the ledger costs.db cannot be opened"),
    StoreUnavailable("Redis at cache:6379 does not answer"),
    Refused("not now"),
    DeadlineExceeded(deadline=15, elapsed=15.25),
    CircuitOpen("openai/gpt-4o", retry_after=12.5),
    CircuitOpen("openai/gpt-4o"),
    RateLimited(retry_after=3.2),
    RateLimited(),
    BudgetExceeded("tenant:acme", Decimal(10), Decimal("9.87"), Decimal("0.20"), MIDNIGHT),
    BudgetExceeded("global", limit=Decimal(1), spent=Decimal(1), reserved=Decimal(0)),
    BudgetExceeded("global", 1000, 900, 50, needed=100),
    BudgetUnchecked("tenants", "no_tag", "the call has no tag 'tenant'"),
    NotCached("9f2c"),
    UnknownPrice("llama3"),
    RequestsExceeded(3),
    LLMError("no"),
    LLMConnectionError(),
    LLMConnectionError("no route"),
    LLMStatusError("overloaded", 529),
    LLMResponseError(),
    LLMResponseError("no choices"),
    PromptTemplateError("two system messages"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "through",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)),  # noqa: S301 - our own pickle
    ],
    ids=["copy", "deepcopy", *(f"pickle {p}" for p in range(6))],
)
def test_survives(error, through):
    """With all that it says and holds, notes and what others have hung on it included: workers send errors home."""
    error.__notes__ = ["gave up after 3 attempts"]
    error.attempts = [1, 2]

    survivor = through(error)

    assert type(survivor) is type(error)
    assert str(survivor) == str(error) != ""
    assert survivor.args == error.args
    assert vars(survivor) == vars(error)
    assert vars(survivor) is not vars(error)


def test_every_exported_error_has_an_example():
    exported = {getattr(errors, name) for name in errors.__all__}
    classes = {each for each in exported if isinstance(each, type) and issubclass(each, Exception)}
    assert classes == {type(example) for example in EXAMPLES} | {OvercoatError}


@pytest.mark.parametrize("cls", {type(example) for example in EXAMPLES} | {OvercoatError}, ids=lambda cls: cls.__name__)
def test_each_goes_by_the_name_that_people_import_it_by(cls):
    assert getattr(overcoat, cls.__name__) is cls
    assert f"{cls.__module__}.{cls.__qualname__}" == f"overcoat.{cls.__name__}"


def test_the_tree_is_as_drawn():
    """The drawing in the docstring is what people read, so each line of it must be true, and none may be missing."""
    drawn = re.findall(r"^    ([ │├└]*)(\w+)(?: +\((\w+)\))?", errors.__doc__, re.MULTILINE)
    parents = []
    for indent, name, also in drawn:
        depth = len(indent) // 2
        cls = Exception if name == "Exception" else getattr(errors, name)
        expected = parents[depth - 1 : depth] + ([getattr(builtins, also)] if also else [])
        assert set(expected) <= set(cls.__mro__), name
        parents[depth:] = [cls]
    assert {name for _, name, _ in drawn} - {"Exception"} == {type(example).__name__ for example in EXAMPLES} | {
        "OvercoatError"
    }


def test_none_of_ours_is_an_llm_error():
    """db-ally catches LLMError and calls again at once: a refusal that it could catch would be no refusal."""
    assert not issubclass(OvercoatError, LLMError)
    assert not issubclass(LLMError, OvercoatError)


@pytest.mark.parametrize("error", [AttemptTimeout(8), DeadlineExceeded(15, 16)])
def test_timeouts_are_caught_as_every_other_and_are_no_errors_of_the_system(error):
    """TimeoutError is an OSError, which takes a second argument for the reason of an errno."""
    assert isinstance(error, asyncio.TimeoutError)
    assert (error.errno, error.strerror) == (None, None)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AttemptTimeout(0.25), "no answer within 0.25 s"),
        (AnswerRejected("no JSON"), "the answer was rejected: no JSON"),
        (DeadlineExceeded(15, 15.254), "the deadline of 15 s is exceeded: 15.254 s have passed"),
        (CircuitOpen("openai/gpt-4o", 12.5), "the circuit of 'openai/gpt-4o' is open for 12.5 s more"),
        (CircuitOpen("openai/gpt-4o"), "the circuit of 'openai/gpt-4o' is open until an operator closes it"),
        (RateLimited(3.2), "our own rate limit leaves no slot in time; the next is free in 3.2 s"),
        (RateLimited(86400.00049), "our own rate limit leaves no slot in time; the next is free in 86400 s"),
        (RateLimited(), "our own rate limit leaves no slot in time"),
        (
            BudgetExceeded("tenant:acme", Decimal(10), Decimal("9.87"), Decimal("0.20"), MIDNIGHT),
            (
                "the budget of 'tenant:acme' leaves no room: $9.87 spent, $0.20 reserved of $10, "
                "resets at 2026-12-01T00:00:00+00:00"
            ),
        ),
        (
            BudgetExceeded("global", Decimal(1), Decimal(1), Decimal(0)),
            "the budget of 'global' leaves no room: $1 spent, $0 reserved of $1",
        ),
        (
            BudgetExceeded("global", 1000, 900, 50, needed=100),
            (
                "the budget of 'global' leaves no room: 900 tokens spent, 50 tokens reserved of 1000 tokens; "
                "the call may use 100 tokens"
            ),
        ),
        (
            BudgetUnchecked("tenants", "no_tag", "the call has no tag 'tenant'"),
            "the budget 'tenants' cannot be checked: the call has no tag 'tenant'",
        ),
        (
            UnknownPrice("llama3"),
            "the model 'llama3' has no price; declare one in a price table, Meter(prices=...)",
        ),
        (RequestsExceeded(3), "the 3 requests that may be made together are spent"),
        (NotCached("9f2c"), "there is no stored answer under '9f2c', and the policy allows no other"),
    ],
)
def test_messages_carry_the_values(error, message):
    assert str(error) == message


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (AttemptTimeout(8), {"timeout": 8}),
        (AnswerRejected("no JSON"), {"reason": "no JSON"}),
        (DeadlineExceeded(15, 15.2), {"deadline": 15, "elapsed": 15.2}),
        (CircuitOpen("gpt-4o", 12.5), {"key": "gpt-4o", "retry_after": 12.5}),
        (RateLimited(3.2), {"retry_after": 3.2}),
        (
            BudgetExceeded("global", Decimal(1), Decimal(2), Decimal(3), MIDNIGHT),
            {
                "scope": "global",
                "limit": Decimal(1),
                "spent": Decimal(2),
                "reserved": Decimal(3),
                "resets_at": MIDNIGHT,
                "needed": None,
            },
        ),
        (NotCached("9f2c"), {"key": "9f2c"}),
        (BudgetUnchecked("tenants", "no_tag", "..."), {"budget": "tenants", "reason": "no_tag"}),
        (UnknownPrice(None), {"model": None}),
        (RequestsExceeded(3), {"most": 3}),
        (LLMStatusError("overloaded", 529), {"message": "overloaded", "status_code": 529}),
        (LLMConnectionError(), {"message": "Connection error."}),
        (LLMResponseError(), {"message": "Data returned by API invalid for expected schema."}),
    ],
)
def test_attributes(error, attributes):
    assert vars(error) == attributes


@pytest.mark.parametrize(
    ("error", "kind", "retry_after"),
    [
        (AttemptTimeout(8), Kind.TIMEOUT, None),
        (AnswerRejected("no JSON"), Kind.BAD_OUTPUT, None),
        (DeadlineExceeded(15, 15.2), Kind.DEADLINE_EXCEEDED, None),
        (CircuitOpen("gpt-4o", 12.5), Kind.REFUSED, 12.5),
        (RateLimited(3.2), Kind.REFUSED, 3.2),
        (RateLimited(), Kind.REFUSED, None),
        (BudgetExceeded("global", Decimal(1), Decimal(1), Decimal(0)), Kind.REFUSED, None),
        (NotCached("9f2c"), Kind.REFUSED, None),
        (PolicyError("retry: ..."), Kind.UNKNOWN, None),
        (LLMConnectionError(), Kind.CONNECTION, None),
        (LLMStatusError("slow down", 429), Kind.RATE_LIMITED, None),
        (LLMResponseError(), Kind.BAD_OUTPUT, None),
        (LLMError("?"), Kind.UNKNOWN, None),
    ],
)
def test_each_is_classified(error, kind, retry_after):
    failure = classify(error)
    assert (failure.kind, failure.retry_after) == (kind, retry_after)
    assert failure.retryable is (kind in {"timeout", "connection", "rate_limited", "bad_output"})


def test_subclasses_with_constructors_of_their_own_survive_too():
    error = _Strict(needed=1)
    assert vars(copy.copy(error)) == vars(error) == {"needed": 1}


class _Strict(Refused):
    def __init__(self, *, needed):
        super().__init__("strict")
        self.needed = needed
