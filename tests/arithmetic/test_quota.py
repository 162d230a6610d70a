"""Holds the quota to its limits within any stretch of time, and its predictions to what then happens."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.arithmetic.provider_quota import ProviderQuota
from overcoat.arithmetic.quota import Grant, Limits, Quota
from overcoat.arithmetic.window import SLICES

WINDOW = 60.0
APART = 1.01 * WINDOW / SLICES  # so that each has a slice of its own, whatever is rounded

pauses = st.floats(0, 30) | st.sampled_from([0, 0, 0.1, 0.6, 1, WINDOW])


def quota(requests=None, tokens=None, concurrency=None):
    return Quota(Limits(requests, tokens, WINDOW, concurrency))


@given(st.lists(pauses, max_size=80), st.integers(1, 9))
def test_requests_never_exceed_the_limit_in_any_window(pauses, limit):
    """Whenever they arrive: from any that passed, the limit-th after it is a window later at the earliest."""
    limited = quota(requests=limit)
    passed = [now for now in accumulate(pauses) if limited.take(now, 0) is not None]
    assert all(later >= earlier + WINDOW for earlier, later in zip(passed, passed[limit:], strict=False))
    assert len(passed) >= min(limit, len(pauses))


@given(st.lists(st.tuples(pauses, st.integers(0, 50), st.integers(0, 80)), max_size=60), st.integers(1, 100))
def test_tokens_never_exceed_the_limit_when_one_passes(attempts, limit):
    """Counted as they are known by then: what was used by those that have ended."""
    limited, now, granted = quota(tokens=limit), 0.0, []
    for pause, estimate, used in attempts:
        now += pause
        grant = limited.take(now, estimate)
        if grant is None:
            continue
        recent = sum(tokens for at, tokens in granted if at + WINDOW > now)
        assert recent + min(estimate, limit) <= limit
        limited.settle(grant, used)
        granted.append((now, used))


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_concurrency_is_never_exceeded(starts, limit):
    limited, running = quota(concurrency=limit), []
    for start in starts:
        if start and (grant := limited.take(0.0, 0)) is not None:
            running.append(grant)
        elif running:
            limited.settle(running.pop(), 0)
        assert len(running) <= limit
    if len(running) < limit:
        assert limited.take(0.0, 0) is not None


@given(st.lists(pauses, min_size=1, max_size=40), st.integers(1, 9), st.floats(0, 20))
def test_one_can_pass_exactly_when_it_is_said(pauses, limit, pause):
    limited, now, grant = quota(requests=limit, tokens=5 * limit), 0.0, None
    for step in pauses:
        now += step
        grant = limited.take(now, 3) or grant
    limited.learn(grant, now, pause, None)
    ready = limited.ready_at(now, 3)
    assert now <= ready <= now + pause + WINDOW
    if (early := now + (ready - now) * 0.999) < ready:
        assert limited.take(early, 3) is None
    assert limited.take(ready, 3) is not None


@given(st.lists(pauses, max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_the_place_in_a_queue_says_when(pauses, limit, queued):
    """In a queue of requests nothing is left to chance, so that the last one's moment is known when it comes.

    But for the hundredth of a window by which each round may be late, since what comes that close leaves together.
    """
    limited, now = quota(requests=limit), 0.0
    for pause in pauses:
        now += pause + APART
        limited.take(now, 0)
    foretold = limited.foreseen_at(now, queued - 1, 0).at
    for _ in range(queued):
        now = limited.ready_at(now, 0)
        assert limited.take(now, 0) is not None
    assert foretold == pytest.approx(now, abs=(1 + queued / limit) * APART)


@given(
    st.lists(st.tuples(pauses, st.integers(0, 30)), max_size=30),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30),
    st.integers(0, 30),
)
def test_none_passes_before_it_was_foreseen(earlier, queue, tokens):
    """Whatever those that are under way or ahead turn out to use."""
    limited, now, under_way = quota(requests=7, tokens=20), 0.0, []
    for number, (pause, used) in enumerate(earlier):
        now += pause
        if (grant := limited.take(now, used)) is not None:
            if number % 3:
                limited.settle(grant, used)
            else:
                under_way.append(grant)
    foreseen = limited.foreseen_at(now, len(queue), tokens).at
    for grant in under_way:
        limited.settle(grant, 0)
    for estimate, used in queue:
        now = limited.ready_at(now, estimate)
        limited.settle(limited.take(now, estimate), used)
    assert foreseen <= limited.ready_at(now, tokens)


def test_over_many_windows_all_of_it_can_be_used():
    limited, now, passed = quota(requests=500), 0.0, 0
    while now < 100 * WINDOW:
        if limited.take(now, 0) is None:
            now = limited.ready_at(now, 0)
        else:
            passed += 1
            now += 0.01  # not all at once, so that slices matter
    assert passed >= 0.99 * 500 * 100


@given(st.lists(st.tuples(pauses, st.integers(0, 9), st.booleans()), max_size=40))
def test_what_is_given_back_was_never_taken(steps):
    """The quota that gave some back grants what one grants that never had them."""
    one, other, now = quota(requests=5, tokens=20), quota(requests=5, tokens=20), 0.0
    for pause, tokens, sent in steps:
        now += pause + APART  # where slices are shared, what was given back may hold others for a hundredth
        grant = one.take(now, tokens)
        if not sent:
            if grant is not None:
                one.give_back(grant)
            continue
        assert (grant is None) == (other.take(now, tokens) is None)
    assert one.ready_at(now, 1) == other.ready_at(now, 1)


def test_more_than_there_ever_is_takes_all():
    """An estimate is rough, and to refuse for ever what the provider might take would be worse."""
    limited = quota(tokens=100)
    grant = limited.take(0.0, 1000)
    assert grant is not None
    assert grant.tokens == 100
    assert limited.take(0.0, 1) is None
    limited.settle(grant, 40)
    assert limited.take(0.0, 60) is not None


def test_a_correction_after_the_window_changes_nothing():
    limited = quota(tokens=100)
    grant = limited.take(0.0, 100)
    assert limited.take(WINDOW, 100) is not None
    limited.settle(grant, 5000)
    assert limited.take(2 * WINDOW, 100) is not None


def test_a_pause_is_never_shortened():
    limited = quota(requests=5)
    grant = limited.take(0.0, 0)
    limited.learn(grant, 0.0, 9.0, None)
    limited.learn(grant, 0.0, 3.0, None)
    assert limited.take(8.9, 0) is None
    assert limited.ready_at(0.0, 0) == 9.0
    assert limited.take(9.0, 0) is not None


def requests(remaining, reset):
    return ProviderQuota(requests_remaining=remaining, requests_reset=reset)


def tokens(remaining, reset):
    return ProviderQuota(tokens_remaining=remaining, tokens_reset=reset)


class TestServersWord:
    def test_no_more_than_what_is_left_until_the_reset(self):
        limited = quota(concurrency=99)
        limited.learn(limited.take(0.0, 0), 1.0, None, requests(2, 5.0))
        assert [limited.take(1.0, 0) is not None for _ in range(3)] == [True, True, False]
        assert limited.foreseen_at(1.0, 0, 0) == (6.0, True)
        assert limited.take(5.9, 0) is None
        assert [limited.take(6.0, 0) is not None for _ in range(9)] == [True] * 9

    def test_those_ahead_use_it_up(self):
        limited = quota(concurrency=99)
        limited.learn(limited.take(0.0, 0), 0.0, None, requests(2, 5.0))
        assert [limited.foreseen_at(0.0, ahead, 0).at for ahead in range(4)] == [0, 0, 5, 5]

    def test_tokens(self):
        limited = quota(concurrency=99)
        limited.learn(limited.take(0.0, 7), 0.0, None, tokens(100, 5.0))
        assert limited.take(0.0, 60) is not None
        assert limited.take(0.0, 41) is None
        assert limited.take(0.0, 40) is not None
        assert limited.take(0.0, 0) is None, "none left is none, also for those whose tokens are not counted"
        assert limited.take(5.0, 1000) is not None

    def test_what_was_sent_after_it_is_not_in_its_count(self):
        """What came between the request and its answer, the server may not have seen when it spoke."""
        limited = quota(concurrency=99)
        first = limited.take(0.0, 10)
        for _ in range(3):
            limited.take(0.0, 10)
        limited.learn(first, 1.0, None, ProviderQuota(5, 9.0, 50, 9.0))
        assert [limited.take(1.0, 10) is not None for _ in range(3)] == [True, True, False]

    @pytest.mark.parametrize("late", [False, True])
    def test_the_answer_to_the_later_request_holds_whichever_comes_first(self, late):
        limited = quota(concurrency=99)
        earlier, later = limited.take(0.0, 0), limited.take(0.0, 0)
        answers = [(earlier, requests(0, 50.0)), (later, requests(3, 2.0))]
        for grant, said in reversed(answers) if late else answers:
            limited.learn(grant, 1.0, None, said)
        assert [limited.take(1.0, 0) is not None for _ in range(4)] == [True, True, True, False]
        assert limited.take(3.0, 0) is not None

    def test_it_can_only_tighten(self):
        limited = quota(requests=2, tokens=20)
        limited.learn(limited.take(0.0, 0), 0.0, None, ProviderQuota(10**60, 9.0, 10**60, 9.0))
        assert limited.take(0.0, 21) is not None
        assert limited.take(0.0, 0) is None
        assert limited.foreseen_at(0.0, 0, 0) == (WINDOW, False)

    @pytest.mark.parametrize("said", [requests(0, 1e12), tokens(0, 1e12)])
    def test_not_for_longer_than_a_window(self, said):
        limited = quota(concurrency=99)
        limited.learn(limited.take(0.0, 0), 0.0, None, said)
        assert limited.foreseen_at(0.0, 0, 1) == (WINDOW, True)

    @pytest.mark.parametrize("said", [ProviderQuota(requests_remaining=0), ProviderQuota(tokens_reset=9.0)])
    def test_half_a_word_is_none(self, said):
        limited = quota(concurrency=99)
        limited.learn(limited.take(0.0, 0), 0.0, None, said)
        assert limited.take(0.0, 0) is not None


words = st.builds(
    ProviderQuota,
    st.none() | st.integers(0, 9),
    st.none() | st.sampled_from([0.0, 0.5, 7.0, 1e9]),
    st.none() | st.integers(0, 90),
    st.none() | st.sampled_from([0.0, 0.5, 7.0, 1e9]),
)


@given(st.lists(st.tuples(pauses, st.integers(0, 30), st.none() | words, st.none() | st.floats(0, 90)), max_size=60))
def test_a_server_s_word_tightens_and_always_passes(steps):
    """Whatever it says: what passes would also pass without it, and after a window everything does that then would."""
    told, free, now = quota(requests=9, tokens=60), quota(requests=9, tokens=60), 0.0
    for pause, estimate, said, asked in steps:
        now += pause + APART
        grant = told.take(now, estimate)
        if grant is None:
            continue
        assert free.take(now, estimate) is not None
        told.learn(grant, now, asked, said)
        assert told.ready_at(now, 0) >= free.ready_at(now, 0)
    for each in (told, free):
        assert each.ready_at(now + WINDOW, 0) == now + WINDOW


actions = st.lists(
    st.tuples(pauses, st.sampled_from(["take", "settle", "give back", "learn"]), st.integers(0, 30), words), max_size=60
)


@given(actions, st.none() | st.integers(1, 5), st.none() | st.integers(1, 60), st.none() | st.integers(1, 3))
def test_written_down_at_every_step_it_is_the_same(actions, requests, limit, concurrency):
    """As it is kept where several processes share it: what is under way is counted outside."""
    limits = Limits(requests, limit, WINDOW, concurrency)
    local, written, now = Quota(limits), Quota(limits).dump(), 0.0
    under_way: list[tuple[Grant, Grant]] = []
    for pause, action, amount, said in actions:
        now += pause
        tokens = sum(theirs.tokens for _, theirs in under_way)
        loaded = Quota.load(limits, written, len(under_way), tokens)
        if action == "take":
            mine, theirs = local.take(now, amount), loaded.take(now, amount)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert (mine.tokens, mine.number, mine.spent) == (theirs.tokens, theirs.number, theirs.spent)
                under_way.append((mine, theirs))
        elif under_way and action == "learn":
            mine, theirs = under_way[amount % len(under_way)]
            local.learn(mine, now, float(amount), said)
            loaded.learn(theirs, now, float(amount), said)
        elif under_way:
            mine, theirs = under_way.pop(amount % len(under_way))
            loaded.running, loaded.unsettled = len(under_way), sum(each.tokens for _, each in under_way)
            if action == "settle":
                local.settle(mine, amount)
                loaded.correct(theirs, 0, amount - theirs.tokens)
            else:
                local.give_back(mine)
                loaded.correct(theirs, -1, -theirs.tokens)
        assert loaded.foreseen_at(now, amount % 3, amount) == local.foreseen_at(now, amount % 3, amount)
        assert (loaded.running, loaded.unsettled) == (local.running, local.unsettled)
        assert loaded.dump() == local.dump()
        written = loaded.dump()
