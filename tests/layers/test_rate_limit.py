"""`RateLimit`: who passes, who waits and for how long, who is refused, and what is counted."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Backoff,
    CircuitOpen,
    Deadline,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    RateLimited,
    Retry,
    Timeout,
    capture,
    stack,
)
from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.errors import Kind, OvercoatError
from overcoat.layers.rate_limit import RateLimit
from overcoat.shared import forget
from overcoat.testing import Answer, ScriptedClient, run


class Limited(OvercoatError):
    """A provider's own refusal, with its delay."""

    kind = Kind.RATE_LIMITED

    def __init__(self, retry_after):
        super().__init__("slow down")
        self.retry_after = retry_after


def call(client, content="hello", options=None):
    return client.call([{"role": "user", "content": content}], options, LLMEvent([], "test"))


async def timed(awaitable):
    """Return the answer, or the error, and when it came."""
    (answer,) = await asyncio.gather(awaitable, return_exceptions=True)
    return answer, asyncio.get_running_loop().time()


def limiter_of(client):
    return next(bound.function.limiter for bound in client.bound if isinstance(bound.layer, RateLimit))


def left(client):
    """What is under way and who waits, inside the limiter."""
    limiter = limiter_of(client)
    return limiter._quota.running, limiter._quota.unsettled, len(limiter._queue)


class TestRequests:
    def test_what_fits_passes_at_once_and_leaves_no_trace(self):
        client = stack(ScriptedClient("hi"), RateLimit(requests=3))
        with capture() as calls:
            assert run(self.many(client, 3)) == [("hi", 0)] * 3
        assert [wait for each in calls for wait in each.inferences[0].waits] == []
        assert left(client) == (0, 0, 0)

    async def many(self, client, count):
        return await asyncio.gather(*[timed(call(client)) for _ in range(count)])

    def test_the_others_wait_in_order_until_there_is_room(self):
        client = stack(ScriptedClient("hi"), RateLimit(requests=2, window="10s", max_wait="1m"))

        async def main():
            started = asyncio.create_task(call(client))
            await asyncio.sleep(4)
            await started
            return await self.many(client, 5)

        with capture() as calls:
            assert run(main()) == [("hi", 4), ("hi", 10), ("hi", 14), ("hi", 20), ("hi", 24)]
        waits = [wait for each in calls for wait in each.inferences[0].waits]
        assert [(wait.kind, wait.source, wait.asked, wait.before, wait.duration) for wait in waits] == [
            ("rate_limit", "limiter", duration, 1, duration) for duration in (6, 10, 16, 20)
        ]
        assert [each.attempts[0].waited for each in calls] == [0, 0, 6, 10, 16, 20]

    def test_too_long_a_wait_is_refused_at_once(self):
        """Also where it is the queue that makes it too long."""
        inner = ScriptedClient("hi")
        client = stack(inner, RateLimit(requests=2, window="10s", max_wait="15s"))
        with capture() as calls:
            answers = run(self.many(client, 6))
        assert [(type(answer).__name__, when) for answer, when in answers] == [
            *[("str", 0)] * 2, *[("str", 10)] * 2, *[("RateLimited", 0)] * 2
        ]  # fmt: skip
        assert answers[-1][0].retry_after == 20
        assert len(inner.calls) == 4
        assert [(each.outcome, len(each.inferences[0].waits)) for each in calls[2:4]] == [("refused", 0)] * 2
        assert left(client) == (0, 0, 0)

    def test_a_wait_beyond_the_deadline_is_refused_at_once(self):
        client = stack(ScriptedClient("hi"), Deadline("5s"), RateLimit(requests=1, window="10s", max_wait="1m"))
        (_, (error, when)) = run(self.many(client, 2))
        assert (type(error), error.retry_after, when) == (RateLimited, 10, 0)

    def test_who_never_waits_is_refused_at_once(self):
        client = stack(ScriptedClient(Answer("hi", delay=1)), RateLimit(concurrency=1, max_wait=0))
        with capture() as calls:
            (_, (error, when)) = run(self.many(client, 2))
        assert (type(error), error.retry_after, when) == (RateLimited, None, 0)
        assert calls[0].inferences[0].waits == []

    def test_refusals_are_not_retried(self):
        client = stack(ScriptedClient("hi"), Retry(), RateLimit(requests=1))
        (_, (error, when)) = run(self.many(client, 2))
        assert (type(error), when) == (RateLimited, 0)


class TestConcurrency:
    def test_a_slot_is_free_when_an_attempt_ends(self):
        inner = ScriptedClient(Answer("hi", delay=3))
        client = stack(inner, RateLimit(concurrency=2, max_wait="1m"))

        async def main():
            return await asyncio.gather(*[timed(call(client)) for _ in range(5)])

        with capture() as calls:
            assert [when for _, when in run(main())] == [3, 3, 6, 6, 9]
        assert inner.most_in_flight == 2
        assert {wait.asked for each in calls for wait in each.inferences[0].waits} == {None}

    def test_who_has_waited_too_long_is_refused(self):
        client = stack(ScriptedClient(Answer("hi", delay=8)), RateLimit(concurrency=1, max_wait="5s"))

        async def main():
            return await asyncio.gather(timed(call(client)), timed(call(client)), timed(call(client)))

        with capture() as calls:
            (_, (second, when), (third, _)) = run(main())
        assert (type(second), type(third), when) == (RateLimited, RateLimited, 5)
        assert [wait.duration for wait in calls[0].inferences[0].waits] == [5]
        assert left(client) == (0, 0, 0)

    def test_a_backoff_holds_no_slot(self):
        client = stack(
            ScriptedClient(LLMStatusError("down", 500), Answer("hi", delay=1)),
            Retry(backoff=Backoff(base=20), random=lambda: 0.5),
            RateLimit(concurrency=1, max_wait="1m"),
        )

        async def main():
            return await asyncio.gather(timed(call(client)), timed(call(client)))

        assert run(main()) == [("hi", 11), ("hi", 1)]

    def test_the_attempt_s_own_time_begins_after_the_queue(self):
        client = stack(ScriptedClient(Answer("hi", delay=4)), RateLimit(concurrency=1, max_wait="1m"), Timeout("5s"))

        async def main():
            return await asyncio.gather(timed(call(client)), timed(call(client)), timed(call(client)))

        assert run(main()) == [("hi", 4), ("hi", 8), ("hi", 12)]

    def test_each_attempt_takes_its_own(self):
        client = stack(
            ScriptedClient(LLMStatusError("down", 500), "hi"),
            Retry(backoff=Backoff(base=0)),
            RateLimit(requests=1, window="10s", max_wait="1m"),
        )
        with capture() as calls:
            assert run(timed(call(client))) == ("hi", 10)
        assert [(wait.kind, wait.before, wait.duration) for wait in calls[0].inferences[0].waits] == [
            ("backoff", 2, 0),
            ("rate_limit", 2, 10),
        ]


class TestTokens:
    """30 bytes are taken for 10 tokens."""

    TEXT = "x" * 30

    def room(self, client, tokens):
        """Whether exactly so many tokens are left."""
        quota = limiter_of(client)._quota
        return quota.ready_at(0.0, tokens) == 0.0 and (tokens == 100 or quota.ready_at(0.0, tokens + 1) > 0.0)

    def after(self, *steps, content=TEXT, options=None, layers=()):
        """A limit of 100 tokens, after one call."""
        client = stack(ScriptedClient(*steps), RateLimit(tokens=100), *layers)
        run(timed(call(client, content, options)))
        assert left(client) == (0, 0, 0)
        return client

    def test_the_estimate_stays_where_the_client_does_not_say(self):
        assert self.room(self.after("hi"), 90)

    @pytest.mark.parametrize("options", [LiteLLMOptions(max_tokens=50), {"max_tokens": 50}])
    def test_what_the_answer_may_have_is_a_part_of_it(self, options):
        assert self.room(self.after("hi", options=options), 40)

    @pytest.mark.parametrize(
        "options", [None, LiteLLMOptions(), {}, {"max_tokens": None}, {"max_tokens": "50"}, {"max_tokens": -5}]
    )
    def test_what_is_not_given_is_no_part_of_it(self, options):
        assert self.room(self.after("hi", options=options), 90)

    @pytest.mark.parametrize(
        ("content", "tokens"),
        [
            ("", 0),
            (None, 0),
            ("é" * 15, 10),
            ([{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": "data:" + "A" * 999}}], 10),
            ([TEXT, None, 7], 10),  # what a client makes of that is its own business
        ],
    )
    def test_contents(self, content, tokens):
        assert self.room(self.after("hi", content=content), 100 - tokens)

    @pytest.mark.parametrize(
        ("answer", "used"),
        [
            (Answer("hi", prompt_tokens=5, completion_tokens=2), 7),
            (Answer("hi", prompt_tokens=50, completion_tokens=20), 70),
            (Answer("hi", prompt_tokens=5), 5),
            (Answer("hi", prompt_tokens=5, completion_tokens=2, total_tokens=None), 7),
        ],
    )
    def test_what_was_used_takes_its_place(self, answer, used):
        assert self.room(self.after(answer, options={"max_tokens": 50}), 100 - used)

    def test_a_failure_gives_them_back(self):
        assert self.room(self.after(LLMStatusError("down", 500), options={"max_tokens": 50}), 100)

    def test_a_timeout_keeps_what_was_sent(self):
        """The provider has read it."""
        client = self.after(Answer("late", delay=9), options={"max_tokens": 50}, layers=[Timeout("5s")])
        assert self.room(client, 90)

    @pytest.mark.parametrize("turns", [1, 2])
    def test_a_cancellation_keeps_what_was_sent(self, turns):
        client = stack(ScriptedClient(Answer("late", delay=9)), RateLimit(tokens=100))

        async def main():
            task = asyncio.create_task(call(client, self.TEXT, {"max_tokens": 50}))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

        run(main())
        assert self.room(client, 90)
        assert left(client) == (0, 0, 0)

    def test_what_was_not_sent_is_given_back_with_its_request(self):
        async def refuse(request, inner):
            raise CircuitOpen("inside")

        client = stack(ScriptedClient("hi"), RateLimit(requests=1, tokens=10), refuse)
        errors = [run(timed(call(client, self.TEXT)))[0] for _ in range(3)]
        assert {type(error) for error in errors} == {CircuitOpen}

    def test_who_waits_gets_what_was_not_sent(self):
        async def refuse(request, inner):
            await asyncio.sleep(2)
            raise CircuitOpen("inside")

        client = stack(ScriptedClient("hi"), RateLimit(concurrency=1, max_wait="1m"), refuse)

        async def main():
            return await asyncio.gather(timed(call(client)), timed(call(client)))

        assert [when for _, when in run(main())] == [2, 4]

    def test_a_later_attempt_that_was_not_sent_is_not_taken_for_an_earlier_one(self):
        async def refuse_the_second(request, inner):
            if request.inference.attempts:
                raise CircuitOpen("inside")
            return await inner(request)

        client = stack(
            ScriptedClient(LLMStatusError("down", 500)),
            Retry(backoff=Backoff(base=0)),
            RateLimit(requests=2),
            refuse_the_second,
        )
        run(timed(call(client)))
        assert limiter_of(client)._quota._granted.count == 1

    def test_it_also_counts_where_it_stands_inside_the_attempt(self):
        client = stack(ScriptedClient("hi"), Timeout("5s"), RateLimit(requests=1), order="as given")

        async def main():
            return await timed(call(client)), await timed(call(client))

        (_, (error, _)) = run(main())
        assert type(error) is RateLimited

    def test_the_queue_goes_on_when_a_correction_makes_room(self):
        client = stack(
            ScriptedClient(Answer("hi", prompt_tokens=1, completion_tokens=1, delay=2)),
            RateLimit(tokens=100, max_wait="1m"),
        )

        async def main():
            return await asyncio.gather(*[timed(call(client, "x" * 240)) for _ in range(3)])

        assert run(main()) == [("hi", 2), ("hi", 4), ("hi", 6)]


class TestLearning:
    def test_a_provider_that_limits_us_is_left_alone(self):
        client = stack(ScriptedClient(Limited(4), "hi"), RateLimit(requests=100, max_wait="5s"))

        async def main():
            await timed(call(client))
            return await asyncio.gather(timed(call(client)), timed(call(client)))

        with capture() as calls:
            assert run(main()) == [("hi", 4), ("hi", 4)]
        assert [wait.source for each in calls for wait in each.inferences[0].waits] == ["server", "server"]

    def test_those_who_wait_already_wait_longer(self):
        client = stack(
            ScriptedClient(Answer("hi", delay=1), Limited(7), "hi"), RateLimit(requests=2, window="5s", max_wait="1m")
        )

        async def main():
            return await asyncio.gather(*[timed(call(client)) for _ in range(4)])

        (_, (error, _), *rest) = run(main())
        assert type(error) is Limited
        assert rest == [("hi", 5), ("hi", 5)]

    def test_not_for_longer_than_a_window(self):
        """A bogus header must not stop a process for days."""
        client = stack(ScriptedClient(Limited(1e9), "hi"), RateLimit(requests=100, window="20s"))

        async def main():
            await timed(call(client))
            return await timed(call(client))

        error, _ = run(main())
        assert (type(error), error.retry_after) == (RateLimited, 20)

    @pytest.mark.parametrize("error", [LLMStatusError("limit", 429), LLMStatusError("down", 500), Limited(0)])
    def test_nothing_is_learnt_from_what_does_not_say(self, error):
        client = stack(ScriptedClient(error, "hi"), RateLimit(requests=100))

        async def main():
            await timed(call(client))
            return await timed(call(client))

        assert run(main()) == ("hi", 0)


class TestServersWord:
    """What answers and refusals say is left of the provider's own limits."""

    def headers(self, remaining, reset):
        return {"x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": reset}

    def test_no_more_than_is_left_until_the_reset(self):
        told = Answer("hi", rate_limit_headers=self.headers("2", "8s"))
        client = stack(ScriptedClient(told, "hi"), RateLimit(concurrency=9, max_wait="1m"))

        async def main():
            await call(client)
            return await asyncio.gather(*[timed(call(client)) for _ in range(4)])

        with capture() as calls:
            assert [when for _, when in run(main())] == [0, 0, 8, 8]
        assert calls[0].attempts[0].quota == ProviderQuota(2, 8.0)
        waits = [wait for each in calls for wait in each.inferences[0].waits]
        assert [(wait.kind, wait.source, wait.asked) for wait in waits] == [("rate_limit", "server", 8)] * 2

    def test_too_long_a_wait_is_refused_at_once(self):
        told = Answer("hi", rate_limit_headers=self.headers("0", "30s"))
        client = stack(ScriptedClient(told), RateLimit(concurrency=9, max_wait="5s"))

        async def main():
            await call(client)
            return await timed(call(client))

        error, when = run(main())
        assert (type(error), error.retry_after, when) == (RateLimited, 30, 0)

    def test_a_newer_answer_lets_those_who_wait_go_on(self):
        """The provider refills while we wait, as OpenAI's does."""
        slow = Answer("hi", delay=3, rate_limit_headers=self.headers("9", "1s"))
        client = stack(
            ScriptedClient(Answer("hi", rate_limit_headers=self.headers("1", "50s")), slow, "hi"),
            RateLimit(concurrency=9, max_wait="1m"),
        )

        async def main():
            await call(client)
            return await asyncio.gather(*[timed(call(client)) for _ in range(3)])

        assert [when for _, when in run(main())] == [3, 3, 3]

    def test_a_failure_that_says_so_itself(self):
        """As one of our own classes would not: whatever has a response with headers."""

        class Response:
            status_code = 500
            headers: ClassVar[dict[str, str]] = {"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "6s"}

        class Broken(Exception):
            response = Response()

        client = stack(ScriptedClient(Broken("down"), "hi"), RateLimit(concurrency=9, max_wait="1m"))

        async def main():
            await timed(call(client))
            return await timed(call(client))

        with capture() as calls:
            assert run(main()) == ("hi", 6)
        assert calls[0].attempts[0].failure.quota == ProviderQuota(tokens_remaining=0, tokens_reset=6.0)
        assert calls[1].inferences[0].waits[0].source == "server"

    @pytest.mark.parametrize(
        "headers",
        [
            "x-ratelimit-remaining-requests: 0",
            ["x-ratelimit-remaining-requests"],
            {"x-ratelimit-remaining-requests": 0, "x-ratelimit-reset-requests": 9},
            {1: "2", None: None},
            7,
        ],
    )
    def test_what_are_no_headers_say_nothing(self, headers):
        client = stack(ScriptedClient(Answer("hi", rate_limit_headers=headers)), RateLimit(concurrency=9))

        async def main():
            return [await timed(call(client)) for _ in range(2)]

        assert run(main()) == [("hi", 0)] * 2

    def test_an_event_that_is_used_again_says_nothing_of_its_last_time(self):
        event = LLMEvent([], "test")
        event.rate_limit_headers = self.headers("0", "30s")
        client = stack(ScriptedClient("hi"), RateLimit(concurrency=9))
        with capture() as calls:
            run(client.call([{"role": "user", "content": "q"}], None, event))
        assert calls[0].attempts[0].quota is None


class TestQueue:
    @pytest.mark.parametrize("turns", range(12))
    def test_a_cancelled_one_leaves_no_trace(self, turns):
        """Whenever it is cancelled, also in the turn of the loop in which it is its turn."""
        client = stack(ScriptedClient(Answer("hi", delay=1)), RateLimit(concurrency=1, max_wait="1m"))

        async def main():
            tasks = [asyncio.create_task(timed(call(client))) for _ in range(3)]
            await asyncio.sleep(0.5)
            victim = asyncio.create_task(call(client))
            last = asyncio.create_task(timed(call(client)))
            await asyncio.gather(*tasks)
            for _ in range(turns):
                await asyncio.sleep(0)
            victim.cancel()
            await asyncio.wait([victim])
            return victim, await last

        victim, (answer, when) = run(main())
        assert victim.cancelled()
        assert answer == "hi"
        assert when in (4, 5)
        assert left(client) == (0, 0, 0)

    def test_a_thousand_cancelled_at_once(self):
        client = stack(
            ScriptedClient(Answer("hi", delay=1)),
            RateLimit(requests=1, tokens=9, concurrency=1, max_wait="1d", window="1s"),
        )

        async def main():
            tasks = [asyncio.create_task(call(client)) for _ in range(1000)]
            await asyncio.sleep(0.5)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert left(client) == (0, 0, 0)
            return await timed(call(client))

        assert run(main()) == ("hi", 2)

    def test_one_that_is_thrown_away_lets_the_next_one_pass(self):
        client = stack(ScriptedClient(Answer("hi", delay=1)), RateLimit(concurrency=1, max_wait="1m"))

        async def main():
            running = asyncio.create_task(call(client))
            await asyncio.sleep(0)
            waiting = call(client)
            waiting.send(None)
            last = asyncio.create_task(timed(call(client)))
            await asyncio.sleep(0)
            waiting.close()
            await running
            return await last

        assert run(main()) == ("hi", 2)
        assert left(client) == (0, 0, 0)

    def test_ten_thousand_keep_their_order_in_linear_time(self):
        """Each is granted in turn, and a queue four times as long takes about four times as long."""

        def drain(count):
            forget()
            inner = ScriptedClient(Answer("hi", delay=0.25))
            client = stack(inner, RateLimit(requests=100, tokens=10**6, concurrency=50, window="1s", max_wait="1d"))

            async def main():
                await asyncio.gather(*[call(client, str(number)) for number in range(count)])

            began = time.process_time()
            run(main())
            assert [int(each.conversation[0]["content"]) for each in inner.calls] == list(range(count))
            return time.process_time() - began

        drain(100)
        fewer, more = drain(2_500), drain(10_000)
        assert more < 10 * fewer
        assert more < 30

    def test_a_loop_that_was_closed_holds_up_nobody(self):
        client = stack(ScriptedClient(Answer("hi", delay=1)), RateLimit(concurrency=1, max_wait="1m"))
        abandoned = []

        async def main():
            for _ in range(2):
                abandoned.append(call(client))
                abandoned[-1].send(None)

        run(main())
        assert left(client) == (1, 0, 1)

        async def later():
            waiting = asyncio.create_task(timed(call(client)))
            await asyncio.sleep(0)
            abandoned[0].close()  # gives back what it has, to one who is not there any more
            return await waiting

        assert run(later()) == ("hi", 1)
        abandoned.clear()
        gc.collect()
        assert left(client) == (0, 0, 0)

    def test_two_loops_share_one_quota(self):
        """In two threads, each with a loop of its own; slots go back and forth between them."""
        running, most, order = 0, 0, threading.Lock()

        async def answer(conversation, options):
            nonlocal running, most
            with order:
                running += 1
                most = max(most, running)
            await asyncio.sleep(0)
            with order:
                running -= 1
            return "hi"

        answers = []

        def work():
            client = stack(ScriptedClient(answer), RateLimit(concurrency=3, max_wait="1m"))

            async def main():
                answers.extend(await asyncio.gather(*[call(client) for _ in range(200)]))

            asyncio.run(main())

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == ["hi"] * 400
        assert 1 <= most <= 3
        assert left(stack(ScriptedClient("hi"), RateLimit(concurrency=3))) == (0, 0, 0)


@given(
    arrivals=st.lists(
        st.tuples(
            st.sampled_from([0, 0, 0.1, 1, 4]),  # after the one before
            st.sampled_from([0, 0.5, 3]),  # how long the provider takes
            st.sampled_from(["ok", "ok", "fails", "limits"]),
            st.none() | st.sampled_from([0, 0.3, 2, 5]),  # when it is cancelled
            st.integers(0, 30),  # bytes
        ),
        max_size=25,
    ),
    requests=st.integers(1, 6),
    tokens=st.integers(1, 20),
    concurrency=st.integers(1, 3),
    max_wait=st.sampled_from([0, 2, 30]),
)
def test_limits_hold_and_nothing_is_left(arrivals, requests, tokens, concurrency, max_wait):
    """Whoever comes, fails and goes when: no limit is exceeded, the order is that of arrival, and each call ends."""
    forget()
    window, began, running = 10.0, [], 0
    clock = asyncio.get_running_loop

    async def provider(conversation, options):
        nonlocal running
        number, takes, end = options["script"]
        began.append((clock().time(), number))
        running += 1
        assert running <= concurrency
        try:
            await asyncio.sleep(takes)
        finally:
            running -= 1
        return {"ok": "hi", "fails": LLMStatusError("down", 500), "limits": Limited(3)}[end]

    client = stack(
        ScriptedClient(provider),
        RateLimit(requests=requests, tokens=tokens, concurrency=concurrency, window=window, max_wait=max_wait),
    )

    async def main():
        tasks = []
        for number, (pause, takes, end, cancelled, size) in enumerate(arrivals):
            await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(call(client, "x" * size, {"script": (number, takes, end)})))
            if cancelled is not None:
                clock().call_later(cancelled, tasks[-1].cancel)
        if tasks:
            await asyncio.wait(tasks)
        assert len(asyncio.all_tasks()) == 1

    with capture() as calls:
        run(main())
    times = [at for at, _ in began]
    assert all(later >= earlier + window for earlier, later in zip(times, times[requests:], strict=False))
    assert all(earlier < later for (_, earlier), (_, later) in pairwise(began))
    assert left(client) == (0, 0, 0)
    waits = [wait for each in calls for inference in each.inferences for wait in inference.waits]
    assert all(wait.ended is not None and wait.duration <= max_wait + 1e-9 for wait in waits)


class TestSharing:
    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ({"model": "openai/gpt-4o"}, {"model": "openai/gpt-5"}, True),
            ({"model": "openai/gpt-4o", "per": "model"}, {"model": "openai/gpt-5", "per": "model"}, False),
            ({"model": "openai/gpt-4o"}, {"model": "groq/gpt-4o"}, False),
            ({"model": "openai/gpt-4o", "window": "1m"}, {"model": "openai/gpt-4o", "window": 60}, True),
            ({"model": "openai/gpt-4o", "max_wait": "1s"}, {"model": "openai/gpt-4o", "max_wait": "2s"}, True),
            ({"model": "openai/gpt-4o", "requests": 1}, {"model": "openai/gpt-4o", "requests": 2}, False),
        ],
    )
    def test_who_shares(self, one, other, same):
        """Patience is the caller's own; the limits are what is shared."""
        clients = [
            stack(ScriptedClient("hi", model_name=each.pop("model")), RateLimit(**{"requests": 1} | each))
            for each in (dict(one), dict(other))
        ]
        assert run(timed(call(clients[0])))[0] == "hi"
        assert (type(run(timed(call(clients[1])))[0]) is RateLimited) == same


@pytest.mark.parametrize("name", ["requests", "tokens", "concurrency"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3"])
def test_bad_limits(name, value):
    with pytest.raises(
        ValueError, match=rf"^RateLimit\({name}={value!r}\): expected a whole number of at least 1, or None"
    ):
        RateLimit(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "at least one of requests, tokens and concurrency"),
        ({"window": "1m"}, "at least one of requests, tokens and concurrency"),
        ({"window": "5", "requests": 1}, "with its unit"),
        ({"window": 0, "requests": 1}, "must be more than 0"),
        ({"max_wait": "5", "requests": 1}, "with its unit"),
        ({"max_wait": -1, "requests": 1}, "must be 0 or more"),
        ({"per": "tenant", "requests": 1}, '"model" or "provider"'),
    ],
)
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=rf"^RateLimit\(.*{message}"):
        RateLimit(**settings)
