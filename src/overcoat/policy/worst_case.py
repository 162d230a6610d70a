"""How often, how long and how dearly the layers of a policy can make one call ask, and when its attempts begin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import groupby
from typing import Generic, Literal, NamedTuple, TypeVar

from overcoat.arithmetic.calendar import Ever
from overcoat.arithmetic.dollars import EXACT
from overcoat.arithmetic.durations import seconds
from overcoat.classification import Kind
from overcoat.layer import PlacedLayer
from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget
from overcoat.layers.hedge import Hedge
from overcoat.layers.rate_limit import RateLimit
from overcoat.layers.retry import Retry
from overcoat.layers.timeout import Timeout

L = TypeVar("L", bound=PlacedLayer)
N = TypeVar("N", int, float, Decimal)

RETRYABLE = tuple(kind for kind in Kind if kind.retryable)
Ending = Literal["attempts", "breaker_open", "budget", "deadline", "limit_reached", "non_retryable", "server_delay"]
"""Why there is no further attempt, as the record's `gave_up` has it."""


@dataclass(frozen=True, slots=True)
class Figure(Generic[N]):
    """A number, and how it comes about.

    Attributes:
        value: None where nothing bounds it, or where it is not known.
        formula: The arithmetic with its numbers, or why there is no number.
    """

    value: N | None
    formula: str


class Inner:
    """The layers that one model has for itself: those of an inference, and what hedges it.

    Args:
        layers: In any order; those of the call as a whole are passed over.
    """

    def __init__(self, layers: Sequence[PlacedLayer]) -> None:
        self.retry = _one(layers, Retry)
        self.hedge = _one(layers, Hedge)
        self.breaker = _one(layers, Breaker)
        self.budget = _one(layers, Budget)
        waits = self.budget is not None and self.budget.on_limit == "wait"
        self.room = seconds(self.budget.max_wait, "max_wait", zero=True) if self.budget is not None and waits else 0.0
        limit, timeout = _one(layers, RateLimit), _one(layers, Timeout)
        self.limited = limit is not None
        self.queue = 0.0 if limit is None else seconds(limit.max_wait, "max_wait", zero=True)
        self.timeout = None if timeout is None else seconds(timeout.after, "after")

    def ceilings(self) -> Iterator[Ceiling]:
        """Yield the limits, in dollars, that no inference gets past, whatever fails."""
        budget = self.budget
        if budget is None or budget.on_limit == "warn" or (budget.fail == "open" and budget.store is not None):
            return
        for rule in budget.rules:
            if isinstance(rule.amount, Decimal) and (rule.tag is None or budget.on_missing_tag == "block"):
                yield Ceiling(rule.name, rule.amount, rule.window.text)

    @property
    def may_retry(self) -> bool:
        """Whether there is ever a second attempt; a budget without deposits may have nothing to withdraw."""
        budget = self.retry.budget if self.retry is not None else None
        return self.retry is not None and (
            budget is None or budget.ratio > 0 or budget.min_per_second * seconds(budget.window, "window") >= 1
        )

    def attempts(self, kind: Kind) -> int:
        """Return how many attempts one inference makes at the most when all of them fail as *kind*."""
        return self.retry.on(kind)[0] if self.retry is not None and self.may_retry and kind.retryable else 1

    @property
    def most_attempts(self) -> int:
        """How many attempts one inference makes at the most, whatever they fail as."""
        return max(map(self.attempts, RETRYABLE))

    def wait(self, kind: Kind, failures: int, retry_after: float | None = None) -> Range:
        """Return the wait after so many *failures*, the last of which was of *kind*; its end is the jitter's limit."""
        assert self.retry is not None  # noqa: S101 - else there is no wait
        longest = self.retry.on(kind)[1].delay(failures, random=1.0)
        if retry_after is None:
            return Range(0.0, longest)
        floor = self.retry.server_delay.floor
        return Range(floor(0.0, retry_after, random=0.0), floor(longest, retry_after, random=1.0))

    def longest_waits(self) -> Iterator[float]:
        """Yield the longest wait before the second attempt, the third, and so on, whatever they fail as."""
        if self.retry is None:
            return
        most = seconds(self.retry.server_delay.max, "max", zero=True)
        for failures in range(1, self.most_attempts):
            kinds = [kind for kind in RETRYABLE if self.attempts(kind) > failures]
            yield max(self.wait(kind, failures, most).most or 0.0 for kind in kinds)


_SHORTEST = {"minute": 60, "hour": 3600, "day": 23 * 3600, "week": 167 * 3600, "month": 671 * 3600}
"""Seconds of the calendar's windows, where the clocks are put forward in one."""


class Ceiling(NamedTuple):
    """A limit on what is spent: so many `dollars` in each `window`, as it is written, or "ever"."""

    name: str
    dollars: Decimal
    window: str

    def within(self, time: float | None) -> Figure[Decimal]:
        """Return the most that it lets be spent in so many seconds, None being any number of them.

        A stretch of time may touch two days, however short it is; the last hour slides with it.
        """
        windows = 1
        if self.window != Ever.text:
            if time is None:
                return Figure(None, "")
            if self.window.startswith("calendar "):
                windows = int(time // _SHORTEST[self.window.split()[1]]) + 2
            else:
                windows = max(1, math.ceil(time / seconds(self.window, "window")))
        each = f" in each of {windows} windows" if windows > 1 else ""
        return Figure(EXACT.multiply(self.dollars, Decimal(windows)), f"{self.name}: {money(self.dollars)}{each}")


class Range(NamedTuple):
    """From the *least* to the *most* seconds; None where nothing bounds them."""

    least: float
    most: float | None


def _one(layers: Sequence[PlacedLayer], kind: type[L]) -> L | None:
    return next((layer for layer in layers if isinstance(layer, kind)), None)


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of an inference.

    Attributes:
        number: From 1.
        wait: Seconds of backoff before it.
        start: Seconds from the beginning of the call until it is sent.
        retried: Whether there may be another.
        ended_by: What ends the inference here; where it may be *retried*, what can end it here all the same.
    """

    number: int
    wait: Range
    start: Range
    retried: bool
    ended_by: tuple[Ending, ...]


def schedule(inner: Inner, kind: Kind, *, deadline: float | None, retry_after: float | None) -> Iterator[Try]:
    """Yield the attempts of a call's first inference, all of which fail as *kind*.

    Args:
        inner: The model's layers.
        kind: Of every failure.
        deadline: Seconds of the call.
        retry_after: Seconds that the server asks for every time; None is a server that does not ask.
    """
    wait, start = Range(0.0, 0.0), Range(0.0, _least(inner.room + inner.queue, deadline))
    number = 1
    while True:
        ending = _certain_ending(inner, kind, number, retry_after)
        if ending is not None:
            yield Try(number, wait, start, retried=False, ended_by=(ending,))
            return
        following = inner.wait(kind, number, retry_after)
        earliest = start.least + following.least
        if deadline is not None and earliest >= deadline:
            yield Try(number, wait, start, retried=False, ended_by=("deadline",))
            return
        latest = _plus(_plus(start.most, inner.timeout), following.most)
        possible = tuple(_possible_endings(inner, latest, deadline, retry_after))
        yield Try(number, wait, start, retried=True, ended_by=possible)
        wait, start = following, Range(earliest, _least(_plus(latest, inner.queue), deadline))
        number += 1


def _certain_ending(inner: Inner, kind: Kind, number: int, retry_after: float | None) -> Ending | None:
    if not kind.retryable:
        return "non_retryable"
    retry = inner.retry
    if retry is None or number >= retry.on(kind)[0]:
        return "attempts"
    if retry_after is not None and not retry.server_delay.allows(retry_after):
        return "server_delay"
    return None if inner.may_retry else "budget"


def _possible_endings(
    inner: Inner, latest: float | None, deadline: float | None, retry_after: float | None
) -> Iterator[Ending]:
    if deadline is not None and (latest is None or latest >= deadline):
        yield "deadline"
    if retry_after is None:
        yield "server_delay"
    if inner.retry is not None and inner.retry.budget is not None:
        yield "budget"
    if inner.breaker is not None:
        yield "breaker_open"
    if inner.limited:
        yield "limit_reached"


@dataclass(frozen=True, slots=True)
class OfAModel:
    """What one model can be asked at the most, each time that the call asks.

    Attributes:
        model: Its name; None where the client does not say.
        requests: To its provider.
        seconds: With queueing and waits.
        dollars: At the price of one request.
        ceilings: Limits on what is spent.
        unreserved: Dollars that all of its inferences under way can spend beyond what was reserved for them.
    """

    model: str | None
    requests: Figure[int]
    seconds: Figure[float]
    dollars: Figure[Decimal]
    ceilings: tuple[Ceiling, ...]
    unreserved: Decimal

    def spent(self, asks: int, time: float | None) -> Figure[Decimal]:
        """Return the most dollars when the call asks so often, in so many seconds."""
        most = _sum([self.dollars.value], asks)
        formula = _product(asks, [money(self.dollars.value)]) if asks > 1 else self.dollars.formula
        if most is None:
            return Figure(None, formula)
        for ceiling in self.ceilings:
            limit = ceiling.within(time)
            if limit.value is not None and limit.value + self.unreserved < most:
                beyond = f" + {money(self.unreserved)} of retries, which are not reserved" if self.unreserved else ""
                most, formula = limit.value + self.unreserved, f"{limit.formula}{beyond}"
        return Figure(most, formula)


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that one call can do; every number is an upper bound, whatever fails and however it fails.

    Attributes:
        models: The call's own first, then those that are asked in its place, in their order.
        requests: To providers.
        seconds: Until the caller has an answer or an error.
        dollars: Where every request is charged for.
    """

    models: tuple[OfAModel, ...]
    requests: Figure[int]
    seconds: Figure[float]
    dollars: Figure[Decimal]

    def times(self, calls: int) -> tuple[int, float | None, Decimal | None]:
        """Return the requests, seconds and dollars of so many *calls*, one after the other."""
        with localcontext(EXACT):
            requests = _sum([self.requests.value], calls)
            return requests or 0, _sum([self.seconds.value], calls), _sum([self.dollars.value], calls)


def of_a_model(model: str | None, inner: Inner, price: Decimal | None) -> OfAModel:
    """Return the worst case of asking *model* once.

    Args:
        model: Its name.
        inner: Its layers.
        price: Of one request, in dollars; None where it is not known.
    """
    attempts = inner.most_attempts
    extra = inner.hedge.max_extra if inner.hedge is not None else 0
    requests = (1 + extra) * attempts
    formula = f"{1 + extra} inferences x {counted(attempts, 'attempt')}" if extra else counted(attempts, "attempt")
    cost: Figure[Decimal] = Figure(None, "price unknown")
    unreserved = Decimal(0)
    if price is not None:
        cost = Figure(EXACT.multiply(price, Decimal(requests)), f"{counted(requests, 'request')} x {money(price)}")
        reserved = min(attempts, inner.budget.attempts) if inner.budget is not None else attempts
        unreserved = EXACT.multiply(price, Decimal((1 + extra) * (attempts - reserved)))
    return OfAModel(
        model,
        Figure(requests, formula),
        _seconds_of(inner, attempts, extra),
        cost,
        tuple(inner.ceilings()),
        unreserved,
    )


def _seconds_of(inner: Inner, attempts: int, extra: int) -> Figure[float]:
    if inner.timeout is None:
        return Figure(None, "no attempt_timeout")
    waits = list(inner.longest_waits())
    total = inner.room + attempts * (inner.queue + inner.timeout) + math.fsum(waits)
    each = duration(inner.timeout)
    if inner.queue:
        each = f"({duration(inner.queue)} queued + {each})"
    terms = [f"{counted(attempts, 'attempt')} x {each}"]
    if inner.room:
        terms.insert(0, f"{duration(inner.room)} for its budget")
    terms += [f"{counted(len(list(same)), 'wait')} of {duration(wait)}" for wait, same in groupby(waits) if wait]
    if inner.hedge is not None:
        after = seconds(inner.hedge.after, "after")
        total += extra * after
        terms.insert(0, f"{counted(extra, 'hedge')} x {duration(after)}")
    return Figure(total, " + ".join(terms))


def worst_case(models: Sequence[OfAModel], reasks: int, deadline: float | None) -> WorstCase:
    """Return the worst case of a call.

    Args:
        models: The call's own first, then those that are asked in its place.
        reasks: How often it asks again where an answer is of no use.
        deadline: Seconds of the call; None where it has none.
    """
    asks = 1 + reasks
    requests = [each.requests.value for each in models]
    times = [each.seconds.value for each in models]
    unpriced = [str(each.model) for each in models if each.dollars.value is None]
    formulas = (
        _product(asks, [str(each) for each in requests]),
        _product(asks, [duration(each) for each in times]),
    )
    if len(models) == asks == 1:
        (only,) = models
        formulas = (only.requests.formula, only.seconds.formula)
    with localcontext(EXACT):
        time = _clipped(_sum(times, asks), formulas[1], deadline)
        spent = [each.spent(asks, time.value) for each in models]
        # An answer that comes on the last attempt of all, and is of no use, is asked for again from the beginning.
        return WorstCase(
            tuple(models),
            Figure(_sum(requests, asks), formulas[0]),
            time,
            Figure(
                _sum([each.value for each in spent], 1),
                f"no price for {', '.join(unpriced)}" if unpriced else _dollars(asks, models, spent),
            ),
        )


def _dollars(asks: int, models: Sequence[OfAModel], spent: Sequence[Figure[Decimal]]) -> str:
    whole = [_sum([each.dollars.value], asks) for each in models]
    if len(models) == 1:
        return spent[0].formula
    if whole == [each.value for each in spent]:
        return _product(asks, [money(each.dollars.value) for each in models])
    return " + ".join(
        money(each.value) if each.value == most else each.formula for each, most in zip(spent, whole, strict=True)
    )


def _clipped(total: float | None, formula: str, deadline: float | None) -> Figure[float]:
    if deadline is not None and (total is None or total > deadline):
        beyond = "" if total is None else f"; without it {formula} = {duration(total)}"
        return Figure(deadline, f"the deadline{beyond}")
    return Figure(total, "neither a deadline nor an attempt_timeout" if total is None else formula)


def _sum(values: Sequence[N | None], factor: int) -> N | None:
    total: N | None = None
    for value in values:
        if value is None:
            return None
        total = value if total is None else total + value
    return None if total is None else total * factor


def _product(factor: int, terms: Sequence[str]) -> str:
    total = " + ".join(terms)
    if factor == 1:
        return total
    return f"{factor} asks x ({total})" if len(terms) > 1 else f"{factor} asks x {total}"


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _least(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)


def duration(value: float | None) -> str:
    """Return seconds as people write them, such as "500ms", "30.5s" and "1m30s"; a policy file takes them as well."""
    if value is None:
        return "unbounded"
    if 0 < value < 1:
        return f"{round(value * 1000, 3):g}ms"
    minutes, rest = divmod(round(value, 3), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{number:g}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (round(rest, 3), "s")) if number]
    return "".join(parts) or "0s"


def money(value: Decimal | None) -> str:
    """Return dollars with all their digits."""
    return "unknown" if value is None else f"${value.normalize():f}"


def counted(number: int, noun: str) -> str:
    """Return "1 attempt", "2 attempts"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
