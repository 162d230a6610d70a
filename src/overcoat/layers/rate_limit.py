"""`RateLimit`: keeps within a provider's limits, by a fair queue in front of them."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, ClassVar, cast, get_args

from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.arithmetic.quota import Grant, Limits, Quota
from overcoat.classification import Kind
from overcoat.errors import RateLimited
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.record import Attempt, Inference, Wait
from overcoat.shared import Per, scope_of, shared

_BYTES_PER_TOKEN = 3
"""Below what tokenizers reach on any language that they were made for (4 on English), so that estimates are high."""

_WORKED = frozenset({Kind.TIMEOUT, Kind.CANCELLED, Kind.DEADLINE_EXCEEDED})
"""How an attempt ends that the provider may have gone on working on."""


@dataclass(frozen=True, kw_only=True, repr=False)
class RateLimit(PlacedLayer):
    """Let no more through than *requests* and *tokens* within any *window*, and *concurrency* at once.

    What comes too early waits, first come first served; what would wait longer than *max_wait*, or past its deadline,
    is refused with `RateLimited`, at once where that can be foreseen. An attempt is taken to use a token for every
    three bytes of text that it sends, and the `max_tokens` that its options allow; when it has ended, what it really
    used takes the estimate's place. Where the provider did not say, the estimate stays after an answer; after a
    timeout or a cancellation the part for what was sent stays; after any other failure nothing does, but the request.
    A provider that limits us all the same, and says for how long, is left alone for that time, or for a *window* if
    that is shorter.

    All stacks of a process with the same settings share the quota and the queue.

    Attributes:
        requests: At least 1; None is no limit.
        tokens: At least 1; None is no limit. An attempt that is estimated above it takes all of it.
        window: Seconds, or text such as "1m".
        concurrency: At least 1; None is no limit.
        max_wait: Seconds, or text such as "5s"; 0 never waits.
        per: Whether each "model" has the quota, or all models of a "provider" share one.
    """

    place: ClassVar[Place] = Place.RATE_LIMIT
    because: ClassVar[str] = "its queue must take nothing of an attempt's time, and every attempt needs a slot"
    twice: ClassVar[str] = "an attempt would take two slots, and wait for itself where there is only one"

    requests: int | None = None
    tokens: int | None = None
    window: Duration = 60.0
    concurrency: int | None = None
    max_wait: Duration = 5.0
    per: Per = "provider"

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        limits: dict[str, object] = {name: getattr(self, name) for name in ("requests", "tokens", "concurrency")}
        for name, value in limits.items():
            if value is not None:
                check_count(value, f"RateLimit.{name}", more=", or None")
        if all(value is None for value in limits.values()):
            raise ValueError("RateLimit(): expected at least one of requests, tokens and concurrency")
        if self.per not in get_args(Per):
            raise ValueError(f'RateLimit(per={self.per!r}): expected "model" or "provider"')
        seconds(self.max_wait, "RateLimit(max_wait=...)", zero=True)
        self.limits()

    def limits(self) -> Limits:
        """Return the limits, with their window in seconds; who has the same ones shares the quota and the queue."""
        window = seconds(self.window, "RateLimit(window=...)")
        return Limits(self.requests, self.tokens, window, self.concurrency)

    def bind(self, client: Client) -> _Limiting:
        """Return the function that keeps calls to *client* within the limits."""
        limits = self.limits()
        limiter = shared(limits, scope_of(client, self.per), lambda: Limiter(limits))
        return _Limiting(limiter, limits, seconds(self.max_wait, "RateLimit(max_wait=...)", zero=True))


class _Limiting:
    def __init__(self, limiter: Limiter, limits: Limits, max_wait: float) -> None:
        self.limiter = limiter
        self._counts_tokens = limits.tokens is not None
        self._window = limits.window
        self._max_wait = max_wait

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        inference = cast("Inference", request.inference)  # the recorder of inferences is always outside
        clock = request.call.clock
        sent, answer = _estimate(request) if self._counts_tokens else (0, 0)
        limiter, now = self.limiter, clock()
        grant = limiter.take(now, sent + answer) or await self._queue(request, inference, now, sent + answer)
        attempts = inference.attempts
        earlier = len(attempts) - (request.attempt is not None)  # it is, where an order "as given" has it outside
        try:
            return await inner(request)
        finally:
            if len(attempts) > earlier:
                attempt = attempts[-1]
                limiter.settle(grant, _used(attempt, grant.tokens, sent))
                if attempt.failure is not None and attempt.failure.kind is Kind.RATE_LIMITED:
                    self._learn(attempt, attempt.failure.retry_after)
            else:
                limiter.give_back(grant)

    async def _queue(self, request: Request, inference: Inference, now: float, tokens: int) -> Grant:
        limiter = self.limiter
        ready = limiter.foreseen_at(now, tokens)
        until = now + self._max_wait
        if ready > until or self._max_wait == 0 or (request.deadline is not None and ready >= request.deadline):
            raise RateLimited(ready - now if ready > now else None)
        asked = ready - now if ready > now else None  # else it is other calls that must end first
        wait = Wait("rate_limit", "limiter", asked, len(inference.attempts) + 1, now)
        inference.waits.append(wait)
        loop = asyncio.get_running_loop()
        try:
            return await limiter.queue(tokens, until, loop)
        finally:
            wait.ended = loop.time()

    def _learn(self, attempt: Attempt, retry_after: float | None) -> None:
        if retry_after is not None:
            # A limit such as these is over in a window at the latest; a header must not stop a process for days.
            self.limiter.pause(cast("float", attempt.ended) + min(retry_after, self._window))


class Limiter:
    """A quota and the queue for it, for calls of any loop and thread.

    The queue is one, in the order of arrival, whatever loops its callers run on. Nothing is handed over between them:
    whoever is first takes from the quota by itself, and whoever leaves the queue, by whichever way, wakes the next. So
    a cancellation can lose neither a slot nor a wakeup. A loop that is closed under its callers holds up nobody; one
    that is stopped while it has the first one of the queue holds up those behind it, for their `max_wait` at most.

    Args:
        limits: What is kept.
    """

    def __init__(self, limits: Limits) -> None:
        self._quota = Quota(limits)
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()  # a deque removes who gives up in linear time
        # Reentrant, since the garbage collector finalizes coroutines in the middle of anything, and theirs may be a
        # call that leaves the queue.
        self._lock = RLock()

    def take(self, now: float, tokens: int) -> Grant | None:
        """Grant at once, where nobody waits; None where the quota does not allow it."""
        with self._lock:
            return None if self._queue else self._quota.take(now, tokens)

    def foreseen_at(self, now: float, tokens: int) -> float:
        """Return before when an attempt that comes now cannot be granted."""
        with self._lock:
            return self._quota.foreseen_at(now, len(self._queue), tokens)

    async def queue(self, tokens: int, until: float, loop: asyncio.AbstractEventLoop) -> Grant:
        """Wait for a grant, in turn.

        Raises:
            RateLimited: There was none *until* that moment.
        """
        waiter = _Waiter(loop)
        with self._lock:
            self._queue[waiter] = None
        try:
            while True:
                now = loop.time()
                with self._lock:
                    first = next(iter(self._queue)) is waiter
                    grant = self._quota.take(now, tokens) if first else None
                    ready = self._quota.ready_at(now, tokens) if first else math.inf
                if grant is not None:
                    return grant
                if now >= until:
                    raise RateLimited
                await waiter.sleep(min(ready if ready > now else math.inf, until))
        finally:
            with self._lock:
                self._queue.pop(waiter, None)
                self._wake()

    def settle(self, grant: Grant, tokens: int) -> None:
        """End an attempt that used so many *tokens*."""
        with self._lock:
            self._quota.settle(grant, tokens)
            if self._queue:
                self._wake()

    def give_back(self, grant: Grant) -> None:
        """End what sent nothing."""
        with self._lock:
            self._quota.give_back(grant)
            self._wake()

    def pause(self, until: float) -> None:
        """Grant nothing before that moment; who waits for an earlier one will see."""
        with self._lock:
            self._quota.pause(until)

    def _wake(self) -> None:
        while self._queue:
            first = next(iter(self._queue))
            try:
                first.loop.call_soon_threadsafe(first.woken.set)  # which comes after it has gone to sleep
            except RuntimeError:  # the loop was closed, and nobody waits there any more
                del self._queue[first]
            else:
                return


class _Waiter:
    __slots__ = ("loop", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.woken = asyncio.Event()

    async def sleep(self, until: float) -> None:
        self.woken.clear()
        timer = self.loop.call_at(until, self.woken.set)
        try:
            await self.woken.wait()
        finally:
            timer.cancel()


def _estimate(request: Request) -> tuple[int, int]:
    """Return about how many tokens the request sends, and how many it allows the answer."""
    size = 0
    for message in request.conversation:
        size += _bytes(message["content"])
    options = request.options
    allowed = getattr(options, "max_tokens", None)
    if allowed is None and isinstance(options, Mapping):
        allowed = cast("Mapping[str, Any]", options).get("max_tokens")
    return size // _BYTES_PER_TOKEN, allowed if isinstance(allowed, int) and allowed > 0 else 0


def _bytes(content: Any) -> int:
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode(errors="replace"))
    if isinstance(content, list):  # of parts; an image's bytes say nothing about its tokens
        return sum(_bytes(part.get("text")) for part in cast("list[dict[str, Any]]", content))
    return 0


def _used(attempt: Attempt, taken: int, sent: int) -> int:
    """Return the tokens that an attempt which has ended counts for, where so many were *taken* for it beforehand."""
    usage = attempt.usage
    if usage is not None:
        total = usage.total_tokens
        return total if total is not None else (usage.input_tokens or 0) + (usage.output_tokens or 0)
    if attempt.failure is None:
        return taken
    return sent if attempt.failure.kind in _WORKED else 0
