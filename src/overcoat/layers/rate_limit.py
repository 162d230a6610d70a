"""`RateLimit`: keeps within a provider's limits, by a fair queue in front of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast, get_args

from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.arithmetic.quota import Grant, Limits
from overcoat.classification import Kind
from overcoat.errors import RateLimited
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.limiter import Limiter
from overcoat.options import option
from overcoat.order import Place
from overcoat.record import Attempt, Inference, Wait
from overcoat.shared import Per, check_store, remote_key, renew, scope_of, shared

if TYPE_CHECKING:
    from overcoat.stores.remote_limiter import RemoteLimiter

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
    A provider that limits us all the same, and says for how long, is left alone for that time; and one that says what
    is left of its own limits (`x-ratelimit-*`, `anthropic-ratelimit-*`) is sent no more than that until they are whole
    again. What it says can only tighten the limits, and for no longer than a *window*.

    All stacks of a process with the same settings share the quota and the queue. With a *store*, all processes share
    the quota, and first come is first served within each. A store that cannot be reached costs a call a quarter of a
    second at most, and most calls nothing: each process then keeps the limits by itself, until it is back.

    Attributes:
        requests: At least 1; None is no limit.
        tokens: At least 1; None is no limit. An attempt that is estimated above it takes all of it.
        window: Seconds, or text such as "1m".
        concurrency: At least 1; None is no limit.
        max_wait: Seconds, or text such as "5s"; 0 never waits.
        per: Whether each "model" has the quota, or all models of a "provider" share one.
        name: All stacks of a process with the same name share the quota and the queue, with the limits that were
            stacked last; None shares them by equal settings.
        store: A Redis server, such as "redis://host:6379/0", where all processes with the same name, or the same
            settings, share the quota; None keeps it in this process.
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
    name: str | None = None
    store: str | None = field(default=None, repr=False)  # it may have a password in it

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
        check_store(self.store, "RateLimit")
        self.limits()

    def limits(self) -> Limits:
        """Return the limits, with their window in seconds; who has the same ones shares the quota and the queue."""
        window = seconds(self.window, "RateLimit(window=...)")
        return Limits(self.requests, self.tokens, window, self.concurrency)

    def bind(self, client: Client) -> _Limiting:
        """Return the function that keeps calls to *client* within the limits."""
        limits = self.limits()
        scope = scope_of(client, self.per)
        local = shared(limits, scope, lambda: Limiter(limits), self.name)
        renew(local.follow, limits)
        max_wait = seconds(self.max_wait, "RateLimit(max_wait=...)", zero=True)
        if (url := self.store) is None:
            return _Limiting(local, max_wait)
        from overcoat.stores.remote_limiter import RemoteLimiter  # noqa: PLC0415 - redis, where it is asked for

        key = remote_key("rate_limit", self.name or limits, scope)
        remote = shared(limits, (scope, url), lambda: RemoteLimiter(url, key, limits, local), self.name)
        renew(remote.follow, limits)
        return _Limiting(remote, max_wait)


class _Limiting:
    def __init__(self, limiter: Limiter | RemoteLimiter, max_wait: float) -> None:
        self.limiter = limiter
        self._max_wait = max_wait

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        inference = cast("Inference", request.inference)  # the recorder of inferences is always outside
        limiter, now = self.limiter, request.call.clock()
        sent, answer = _estimate(request) if limiter.counts_tokens else (0, 0)
        grant = limiter.take(now, sent + answer) or await self._ask(request, inference, now, sent + answer)
        attempts = inference.attempts
        earlier = len(attempts) - (request.attempt is not None)  # it is, where an order "as given" has it outside
        try:
            return await inner(request)
        finally:
            if len(attempts) > earlier:
                attempt = attempts[-1]
                if attempt.quota is not None or attempt.failure is not None:
                    self._learn(grant, attempt)
                limiter.settle(grant, _used(attempt, grant.tokens, sent))
            else:
                limiter.give_back(grant)

    async def _ask(self, request: Request, inference: Inference, now: float, tokens: int) -> Grant:
        limiter = self.limiter
        answer = await limiter.ask(now, tokens)
        if limiter.alone:
            request.call.degraded += ("rate_limit",)
        if isinstance(answer, Grant):
            return answer
        ready, until = answer.at, now + self._max_wait
        if ready > until or self._max_wait == 0 or (request.deadline is not None and ready >= request.deadline):
            raise RateLimited(ready - now if ready > now else None)
        asked = ready - now if ready > now else None  # else it is other calls that must end first
        wait = Wait("rate_limit", "server" if answer.told else "limiter", asked, len(inference.attempts) + 1, now)
        inference.waits.append(wait)
        loop = asyncio.get_running_loop()
        try:
            return await limiter.queue(tokens, until, loop)
        finally:
            wait.ended = loop.time()

    def _learn(self, grant: Grant, attempt: Attempt) -> None:
        failure = attempt.failure
        asked = failure.retry_after if failure is not None and failure.kind is Kind.RATE_LIMITED else None
        said = attempt.quota or (failure.quota if failure is not None else None)
        if asked is not None or said is not None:
            self.limiter.learn(grant, cast("float", attempt.ended), asked=asked, said=said)


def _estimate(request: Request) -> tuple[int, int]:
    """Return about how many tokens the request sends, and how many it allows the answer."""
    size = 0
    for message in request.conversation:
        size += _bytes(message["content"])
    allowed = option(request.options, "max_tokens")
    return size // _BYTES_PER_TOKEN, allowed if isinstance(allowed, int) and allowed > 0 else 0


def _bytes(content: object) -> int:
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode(errors="replace"))
    if isinstance(content, list):
        return sum(map(_bytes, cast("list[object]", content)))
    if isinstance(content, Mapping):  # a part; an image's bytes say nothing about its tokens
        return _bytes(cast("Mapping[str, object]", content).get("text"))
    return 0


def _used(attempt: Attempt, taken: int, sent: int) -> int:
    """Return the tokens that an attempt which has ended counts for, where so many were *taken* for it beforehand."""
    if attempt.usage is not None:
        return attempt.usage.tokens or 0
    if attempt.failure is None:
        return taken
    return sent if attempt.failure.kind in _WORKED else 0
