"""`Retry`: what is retried, when, how often, and what the caller is told."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import dataclass

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Backoff,
    CircuitOpen,
    Deadline,
    Hedge,
    LLMConnectionError,
    LLMError,
    LLMEvent,
    LLMResponseError,
    LLMStatusError,
    OnError,
    Retry,
    ServerDelay,
    Timeout,
    capture,
    stack,
)
from overcoat.layers.retry import RetryBudget
from overcoat.shared import forget
from overcoat.testing import Answer, ScriptedClient, run

CONVERSATION = [{"role": "user", "content": "hello"}]


class Told(LLMStatusError):
    """A failure with the server's own delay, as an SDK's error carries it."""

    def __init__(self, delay: float, status: int = 429) -> None:
        super().__init__("slow down", status)
        self.response = _Response(status, {"retry-after": str(delay)})


class _Response:
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code = status_code
        self.headers = headers


Told.__module__ = "openai"  # classify() trusts the responses of SDKs that it knows


def ask(client: ScriptedClient, *layers: object) -> tuple[str | Exception, float]:
    """Return the answer or the error, and the seconds that it took."""

    async def main() -> tuple[str | Exception, float]:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            answer: str | Exception = await stack(client, *layers).call(CONVERSATION, None, LLMEvent([], "test"))
        except (LLMError, TimeoutError) as error:
            answer = error
        return answer, clock() - started

    return run(main())


def test_success_is_not_retried():
    client = ScriptedClient("hi")
    assert ask(client, Retry()) == ("hi", 0)
    assert len(client.calls) == 1


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_failures_that_pass_are_overcome(failures):
    client = ScriptedClient(*[LLMStatusError("down", 500)] * failures, "hi")
    assert ask(client, Retry(max_attempts=4))[0] == "hi"
    assert len(client.calls) == failures + 1


def test_the_last_error_is_raised_as_it_is():
    """Its type unchanged, with a note for people and the attempts for programs."""
    errors = [LLMStatusError("first", 500), LLMStatusError("second", 502), LLMStatusError("third", 500)]
    error, _ = ask(ScriptedClient(*errors), Retry(max_attempts=3))
    assert error is errors[2]
    assert error.__notes__ == ["overcoat: gave up after 3 attempts (server_error; no attempts left)"]
    assert [attempt.error_type for attempt in error.attempts] == ["server_error"] * 3
    assert type(pickle.loads(pickle.dumps(error))) is LLMStatusError  # noqa: S301 - our own bytes


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_what_cannot_succeed_is_not_retried(status):
    client = ScriptedClient(LLMStatusError("no", status))
    error, waited = ask(client, Retry(max_attempts=5))
    assert (len(client.calls), waited) == (1, 0)
    assert "never retried" in error.__notes__[0]


@pytest.mark.parametrize("bug", [ValueError("bug"), KeyError("bug"), ZeroDivisionError()])
def test_bugs_are_not_retried(bug):
    client = ScriptedClient(bug)
    with pytest.raises(type(bug)):
        ask(client, Retry(max_attempts=5))
    assert len(client.calls) == 1


def test_our_own_refusals_are_not_retried_and_not_annotated_when_nothing_was_sent():
    async def refuse(request, inner):
        raise CircuitOpen("openai", 5.0)

    with pytest.raises(CircuitOpen) as caught:
        ask(ScriptedClient("hi"), Retry(max_attempts=5), refuse)
    assert not hasattr(caught.value, "attempts")


@dataclass(frozen=True)
class Frozen(LLMStatusError):
    """A failure whose attributes cannot be set, its notes included."""

    status_code: int


class Counting(LLMStatusError):
    """A failure that has attempts of its own."""

    @property
    def attempts(self):
        return "its own"


@pytest.mark.parametrize("error", [Frozen(503), Counting("down", 503)])
def test_an_error_that_takes_no_attributes_is_raised_all_the_same(error):
    caught, _ = ask(ScriptedClient(error), Retry(max_attempts=2, backoff=Backoff(base=0)))
    assert caught is error
    assert caught.__notes__ == ["overcoat: gave up after 2 attempts (overloaded; no attempts left)"]
    assert caught.attempts == "its own" if isinstance(error, Counting) else len(caught.attempts) == 2


def test_notes_of_others_stay():
    error = LLMStatusError("down", 400)
    error.add_note("theirs")
    ask(ScriptedClient(error), Retry())
    assert error.__notes__[0] == "theirs"
    assert len(error.__notes__) == 2


def test_settings_that_went_through_a_pickle_draw_their_own_jitter():
    """Else all workers that are handed the same settings would come back at the same moments."""
    settings = Retry(max_attempts=4, budget=RetryBudget())
    copies = [pickle.loads(pickle.dumps(settings)) for _ in range(2)]  # noqa: S301 - our own
    assert copies == [settings, settings]
    assert copies[0].random() != copies[1].random()


def test_a_later_failure_that_cannot_pass_ends_it():
    client = ScriptedClient(LLMStatusError("down", 500), LLMStatusError("no", 401), "never")
    error, _ = ask(client, Retry(max_attempts=5))
    assert (error.status_code, len(client.calls)) == (401, 2)
    assert error.__notes__ == ["overcoat: gave up after 2 attempts (auth; never retried)"]


class TestWaiting:
    def test_full_jitter_doubles_its_ceiling(self):
        client = ScriptedClient(*[LLMStatusError("down", 500)] * 4, "hi")
        _, waited = ask(client, Retry(max_attempts=5, backoff=Backoff(base="1s", cap="5s"), random=lambda: 0.5))
        assert waited == 0.5 * (1 + 2 + 4 + 5)

    def test_the_server_s_delay_is_a_floor(self):
        """Jitter is added to it, never taken from it."""
        client = ScriptedClient(Told(10), "hi")
        policy = Retry(server_delay=ServerDelay(jitter="2s"), random=lambda: 0.5)
        assert ask(client, policy) == ("hi", 11)

    def test_a_longer_backoff_of_our_own_wins(self):
        client = ScriptedClient(Told(1), "hi")
        policy = Retry(backoff=Backoff(base="8s"), server_delay=ServerDelay(jitter=0), random=lambda: 0.5)
        assert ask(client, policy) == ("hi", 4)

    def test_a_server_s_delay_that_is_too_long_ends_it_at_once(self):
        client = ScriptedClient(Told(31), "never")
        error, waited = ask(client, Retry(server_delay=ServerDelay(max="30s")))
        assert (len(client.calls), waited) == (1, 0)
        assert error.__notes__ == [
            "overcoat: gave up after 1 attempt (rate_limited; longer than server_delay.max, the server asked for 31 s)"
        ]

    def test_a_wait_beyond_the_deadline_ends_it_at_once(self):
        """With the provider's own error, which says more than that time ran out."""
        client = ScriptedClient(Told(6), "never")
        error, waited = ask(client, Deadline("5s"), Retry())
        assert isinstance(error, Told)
        assert (len(client.calls), waited) == (1, 0)
        assert "after the deadline" in error.__notes__[0]

    def test_waits_are_recorded(self):
        client = ScriptedClient(Told(2), LLMConnectionError(), "hi")
        with capture() as calls:
            ask(client, Retry(backoff=Backoff(base="1s"), server_delay=ServerDelay(jitter=0), random=lambda: 0.5))
        (inference,) = calls[0].inferences
        assert [(wait.source, wait.asked, wait.before, wait.duration) for wait in inference.waits] == [
            ("server", 2.0, 2, 2.0),
            ("policy", 1.0, 3, 1.0),
        ]
        assert [attempt.waited for attempt in inference.attempts] == [0, 2, 1]

    def test_a_wait_that_is_cancelled_is_recorded(self):
        client = ScriptedClient(Told(20))

        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3):
                    await stack(client, Retry()).call(CONVERSATION, None, LLMEvent([], "test"))

        with capture() as calls:
            run(main())
        assert [wait.duration for wait in calls[0].inferences[0].waits] == [3]
        assert calls[0].outcome == "cancelled"


class TestByClass:
    def test_two_attempts_after_a_timeout(self):
        """A third would be a third bill, perhaps."""
        client = ScriptedClient(Answer("late", delay=60))
        error, waited = ask(client, Retry(max_attempts=9, backoff=Backoff(base=0)), Timeout("5s"))
        assert isinstance(error, TimeoutError)
        assert (len(client.calls), waited) == (2, 10)

    def test_two_attempts_after_bad_output_without_a_wait(self):
        client = ScriptedClient(LLMResponseError())
        _, waited = ask(client, Retry(max_attempts=9))
        assert (len(client.calls), waited) == (2, 0)

    def test_a_class_of_its_own(self):
        client = ScriptedClient(LLMStatusError("down", 500), LLMStatusError("limit", 429), "hi")
        policy = Retry(
            max_attempts=2,
            backoff=Backoff(base=0),
            errors={"rate_limited": OnError(backoff=Backoff(base="6s")), "server_error": OnError(max_attempts=2)},
            random=lambda: 0.5,
        )
        error, _ = ask(client, policy)
        assert (error.status_code, len(client.calls)) == (429, 2)

    def test_a_backoff_that_is_given_holds_for_every_class(self):
        client = ScriptedClient(LLMStatusError("busy", 503), LLMResponseError(), "hi")
        _, waited = ask(client, Retry(max_attempts=3, backoff=Backoff(base="8s"), random=lambda: 0.5))
        assert waited == 4
        assert len(client.calls) == 2, "two attempts at the most after bad output, all the same"

    def test_without_one_each_class_has_what_suits_it(self):
        client = ScriptedClient(LLMStatusError("busy", 503), LLMStatusError("down", 500), "hi")
        assert ask(client, Retry(random=lambda: 0.5))[1] == 0.5 * 2 + 0.5 * 1

    def test_a_class_may_have_more_attempts_than_the_policy(self):
        client = ScriptedClient(*[LLMStatusError("limit", 429)] * 4, "hi")
        assert ask(client, Retry(max_attempts=2, errors={"rate_limited": OnError(max_attempts=6)}))[0] == "hi"

    def test_the_built_in_rules_stay_where_nothing_is_said(self):
        client = ScriptedClient(LLMResponseError())
        ask(client, Retry(max_attempts=9, errors={"rate_limited": OnError(max_attempts=5)}))
        assert len(client.calls) == 2


class TestBudget:
    def outage(self, *budgets, calls, model="openai/gpt-4o", pause=0.0):
        """Make so many calls to a provider that always fails, each through the next of *budgets*; return the errors."""
        client = ScriptedClient(lambda conversation, options: LLMStatusError("down", 500), model_name=model)

        async def main():
            errors = []
            for number in range(calls):
                layer = Retry(max_attempts=4, backoff=Backoff(base=0), budget=budgets[number % len(budgets)])
                stacked = stack(client, layer)  # anew each time: what is shared is not the stack's
                errors += await asyncio.gather(
                    stacked.call(CONVERSATION, None, LLMEvent([], "test")), return_exceptions=True
                )
                await asyncio.sleep(pause)
            return errors

        return run(main())

    def retries(self, errors):
        return sum(len(error.attempts) - 1 for error in errors)

    def test_an_outage_does_not_multiply(self):
        """A hundred calls make a fifth more requests and the reserve, not four times as many."""
        errors = self.outage(RetryBudget(ratio=0.2, min_per_second=1, window="10s"), calls=100)
        assert self.retries(errors) == 20 + 10

    def test_the_caller_gets_the_error_itself_and_the_reason(self):
        with capture() as calls:
            (error,) = self.outage(RetryBudget(ratio=1, min_per_second=0), calls=1)[:1]
        assert error.__notes__ == ["overcoat: gave up after 2 attempts (server_error; the retry budget is spent)"]
        assert isinstance(error, LLMStatusError)
        assert calls[0].inferences[0].gave_up == "budget"

    def test_the_reserve_comes_back(self):
        errors = self.outage(RetryBudget(ratio=0, min_per_second=0.1, window="10s"), calls=6, pause=4)
        assert [len(error.attempts) - 1 for error in errors] == [1, 0, 0, 1, 0, 0]

    def test_nothing_is_withdrawn_for_a_retry_that_is_not_made(self):
        """Because it is the last attempt, may not be, or comes too late."""
        budget = RetryBudget(ratio=0, min_per_second=0.1)
        for error, layers in (
            (LLMStatusError("no", 401), [Retry(budget=budget)]),
            (LLMStatusError("down", 500), [Retry(max_attempts=1, budget=budget)]),
            (Told(31), [Retry(server_delay=ServerDelay(max="30s"), budget=budget)]),
            (Told(6), [Deadline("5s"), Retry(budget=budget)]),
        ):
            client = ScriptedClient(error)
            ask(client, *layers)
            assert len(client.calls) == 1
        client = ScriptedClient(LLMStatusError("down", 500), "hi")
        assert ask(client, Retry(budget=budget))[0] == "hi"

    def test_success_deposits_too(self):
        policy = Retry(max_attempts=9, backoff=Backoff(base=0), budget=RetryBudget(ratio=0.5, min_per_second=0))
        client = ScriptedClient(*["hi"] * 7, LLMStatusError("down", 500))
        for _ in range(8):
            ask(client, policy)
        assert len(client.calls) == 8 + 4

    def test_a_hedge_deposits_nothing(self):
        """It is one more of the same first attempt, or hedging would pay for retries where a provider is slow."""
        policy = Retry(max_attempts=9, backoff=Backoff(base=0), budget=RetryBudget(ratio=1, min_per_second=0))
        client = ScriptedClient(Answer("late", delay=99), *[LLMStatusError("down", 500)] * 9)
        answer, _ = ask(client, Hedge(after=1, max_extra=3), policy)
        assert answer == "late"
        assert len(client.calls) == 1 + 3 + 1  # the first, its hedges, and the only retry that there is

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ({}, {}, True),
            ({"window": "10s"}, {"window": 10}, True),
            ({}, {"min_per_second": 0.3}, False),
            ({"per": "model"}, {"per": "model"}, False),
            ({}, {"per": "model"}, False),
        ],
    )
    def test_who_shares(self, one, other, same):
        """All models of a provider do, unless it is said to be kept per model."""
        first, second = ({"ratio": 0, "min_per_second": 0.2} | each for each in (one, other))
        self.outage(RetryBudget(**first), calls=9)
        errors = self.outage(RetryBudget(**second), calls=9, model="openai/gpt-5")
        assert (self.retries(errors) == 0) == same

    def test_without_one_there_is_no_limit(self):
        assert self.retries(self.outage(None, calls=100)) == 300


@given(
    outcomes=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.01, 0.1])), min_size=1, max_size=40),
    ratio=st.sampled_from([0, 0.2, 1]),
    reserve=st.integers(0, 3),
)
def test_retries_never_exceed_their_budget(outcomes, ratio, reserve):
    """However calls, their failures and their waits interleave, at no moment were there more than were allowed."""
    forget()
    budget = RetryBudget(ratio=ratio, min_per_second=reserve / 10, window="10s")

    def answer(conversation, options):
        return "hi" if options["succeeds"] else LLMStatusError("down", 500)

    client = stack(ScriptedClient(answer), Retry(max_attempts=3, backoff=Backoff(base="1s"), budget=budget))

    async def main():
        tasks = []
        for succeeds, pause in outcomes:
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(client.call(CONVERSATION, {"succeeds": succeeds}, LLMEvent([], "test"))))
        await asyncio.gather(*tasks, return_exceptions=True)

    with capture() as calls:
        run(main())
    attempts = [attempt for call in calls for attempt in call.attempts]
    for moment in {attempt.started for attempt in attempts}:
        before = [attempt.number for attempt in attempts if attempt.started <= moment]
        assert len(before) - before.count(1) <= ratio * before.count(1) + reserve + 1e-9


class TestBadInput:
    @pytest.mark.parametrize("value", [0, -1, 2.0, True, None, "3"])
    def test_attempts(self, value):
        with pytest.raises(ValueError, match=r"Retry\(max_attempts=.*whole number of at least 1"):
            Retry(max_attempts=value)

    def test_attempts_of_a_class(self):
        with pytest.raises(ValueError, match=r"OnError\(max_attempts=0\)"):
            OnError(max_attempts=0)

    def test_an_unknown_class(self):
        with pytest.raises(ValueError, match=r"'rate_limit'.*rate_limited"):
            Retry(errors={"rate_limit": OnError()})

    @pytest.mark.parametrize("name", ["ratio", "min_per_second"])
    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, None, "1"])
    def test_a_budget_s_numbers(self, name, value):
        with pytest.raises(ValueError, match=rf"RetryBudget\({name}=.*finite number of at least 0"):
            RetryBudget(**{name: value})

    @pytest.mark.parametrize(
        ("settings", "message"),
        [({"window": 0}, "more than 0"), ({"window": "5"}, "its unit"), ({"per": "tenant"}, '"model" or "provider"')],
    )
    def test_a_budget_s_other_settings(self, settings, message):
        with pytest.raises(ValueError, match=rf"RetryBudget\(.*{message}"):
            RetryBudget(**settings)

    @pytest.mark.parametrize(
        "make", [lambda: Backoff(base=-1), lambda: Backoff(cap="5"), lambda: ServerDelay(max="-1s")]
    )
    def test_durations(self, make):
        with pytest.raises(ValueError, match=r"(Backoff|ServerDelay)\((base|cap|max)=\.\.\.\): "):
            make()


KINDS = {
    "server_error": LLMStatusError("down", 500),
    "overloaded": LLMStatusError("busy", 503),
    "connection": LLMConnectionError(),
    "bad_output": LLMResponseError(),
    "auth": LLMStatusError("no", 401),
}


@given(script=st.lists(st.sampled_from([*KINDS, "ok"]), min_size=1, max_size=8), most=st.integers(1, 6))
def test_the_bare_first_attempt_behaves_like_plain_tenacity(script, most):
    """The same requests at the same times and the same end as tenacity around the whole."""
    always = {kind: OnError(max_attempts=most, backoff=Backoff(base=1.0)) for kind in KINDS}
    steps = ["hi" if kind == "ok" else KINDS[kind] for kind in script]
    ours, plain = ScriptedClient(*steps), ScriptedClient(*steps)
    mine = ask(ours, Retry(max_attempts=most, backoff=Backoff(base=1.0), errors=always, random=lambda: 0.25))

    async def main():
        clock = asyncio.get_running_loop().time
        started = clock()
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(most),
            wait=lambda state: 0.25 * min(20.0, 2 ** (state.attempt_number - 1)),
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "status_code", 0) != 401),
            reraise=True,
        )
        try:
            answer = await retrying(plain.call, CONVERSATION, None, LLMEvent([], "test"))
        except LLMError as error:
            answer = error
        return answer, clock() - started

    assert mine == run(main())
    assert len(ours.calls) == len(plain.calls) <= most
