"""`Cache`: answers equal requests once, whether they come later or at the same time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from overcoat.arithmetic.cache_key import client_identity, key_of, scope_of
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.options import Uncacheable, given_options
from overcoat.order import Place
from overcoat.record import Call, Lookup, SpanIds
from overcoat.stores import Store
from overcoat.stores.envelope import pack, span_of, unpack
from overcoat.stores.memory import MemoryStore

logger = logging.getLogger("overcoat")

_NO_REPLY = Reply(None)


@dataclass(frozen=True, kw_only=True, repr=False)
class Cache(PlacedLayer):
    """Keep answers for *ttl*, and let equal requests that run at the same time share one inference.

    Equal are requests in which everything that can change the answer is equal: the client's class, model, endpoint
    and credential, JSON mode, every option, and the conversation. A request whose options ask for randomness
    (temperature above 0) is passed by unless `sampled` allows it. Answers that are empty, truncated, filtered or, in
    JSON mode, no JSON are passed on but not kept; nor are errors.

    Attributes:
        ttl: How long an answer is good: seconds, or text such as "1h".
        max_bytes: What the store in memory may take.
        namespace: Keeps apart what must not be shared, such as tenants.
        sampled: Whether answers to requests with a temperature above 0 are kept as well.
        store: Where answers lie; None makes a store in memory, for this stack alone.
    """

    place: ClassVar[Place] = Place.CACHE
    because: ClassVar[str] = "a hit must cost no retry, no budget and no place in a queue"
    twice: ClassVar[str] = "each would hide the other's misses"

    ttl: Duration = 3600.0
    max_bytes: int = 64 * 2**20
    namespace: str | None = None
    sampled: bool = False
    store: Store | None = None

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        seconds(self.ttl, "Cache(ttl=...)")
        if self.max_bytes < 1:
            raise ValueError(f"Cache(max_bytes={self.max_bytes!r}): expected at least 1")

    def bind(self, client: Client) -> _Caching:
        """Return the function that looks up, shares and keeps answers."""
        return _Caching(self, client)


class _Caching:
    def __init__(self, settings: Cache, client: Client) -> None:
        self._settings = settings
        self._ttl = seconds(settings.ttl, "Cache(ttl=...)")
        self._client = client
        self._store: Store = MemoryStore(settings.max_bytes) if settings.store is None else settings.store
        # By loop as well: a future must not be resolved from another loop's thread.
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], _Flight] = {}
        self._identity: tuple[Any, ...] | None = None
        self._scope = b""

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        call = request.call
        loop = asyncio.get_running_loop()
        now = loop.time()
        call.cache = lookup = Lookup("bypass", now, now)
        key, lookup.reason = self._key(request)
        if key is None:
            return await inner(request)
        flight = self._flights.get((loop, key))
        if flight is None:
            if (reply := await self._find(key, call, lookup)) is not None:
                return reply
            flight = self._flights.get((loop, key))  # another may have begun while the store was asked
        if flight is None:
            lookup.result = "miss"
            flight = self._flights[loop, key] = _Flight(call, loop)
            flight.task = loop.create_task(self._fly(flight, key, request, inner))
        else:
            lookup.result = "coalesced"
        return await self._join(flight, key, call)

    def _key(self, request: Request) -> tuple[str | None, str | None]:
        """Return the key of a request; or None, and why the cache is passed by."""
        try:
            options = given_options(request.options)
            temperature = options.get("temperature")
            if not self._settings.sampled and isinstance(temperature, (int, float)) and temperature > 0:
                return None, "sampled"
            identity = client_identity(self._client)
            if identity != self._identity:  # a client may be pointed elsewhere after it was stacked
                self._identity, self._scope = identity, scope_of(identity, self._settings.namespace)
            return key_of(self._scope, request.conversation, options, json_mode=request.json_mode), None
        except Uncacheable as reason:
            logger.debug("not cached: %s", reason)
            return None, "uncacheable"

    async def _find(self, key: str, call: Call, lookup: Lookup) -> Reply | None:
        try:
            value = await self._store.get(key)
        except Exception:
            logger.warning("the cache's store failed to read; the call goes on", exc_info=True)
            lookup.reason = "store_failed"
            value = None
        answer = unpack(value) if value is not None else None
        lookup.ended = call.clock()
        if answer is None:
            return None
        lookup.result = "hit"
        lookup.age = max(0.0, call.at(lookup.ended) - answer.created)
        lookup.usage, lookup.cost, lookup.span = answer.usage, answer.cost, span_of(answer)
        return Reply(answer.text, answer.fields)

    async def _fly(self, flight: _Flight, key: str, request: Request, inner: Handler) -> None:
        """Make the inference in a task of its own, so that no caller's cancellation takes it from the others."""
        reply, error = _NO_REPLY, None
        try:
            reply = await inner(request.within(flight.call))
            if (unfit := _unfit(reply, request)) is None:
                unfit = await self._store_failure(key, reply, flight)
            flight.unfit = unfit
        except BaseException as failure:
            error = failure
            if not isinstance(failure, (Exception, asyncio.CancelledError)):
                raise
        finally:
            self._forget(key, flight)
            flight.land(reply, error)

    async def _store_failure(self, key: str, reply: Reply, flight: _Flight) -> str | None:
        """Store the answer; return why that was not possible, or None."""
        attempt, now = reply.attempt, flight.call.at(flight.loop.time())
        usage, cost = (attempt.usage, attempt.cost) if attempt else (None, None)
        try:
            value = pack(
                cast("str", reply.text), created=now, fields=reply.fields, usage=usage, cost=cost, span=flight.span
            )
        except ValueError as error:
            logger.debug("not stored: %s", error)
            return "event_fields"
        try:
            await self._store.set(key, value, self._ttl)
        except Exception:
            logger.warning("the cache's store failed to write; the call goes on", exc_info=True)
            return "store_failed"
        return None

    async def _join(self, flight: _Flight, key: str, call: Call) -> Reply:
        landed: asyncio.Future[Reply] = flight.loop.create_future()
        flight.waiters[landed] = call
        try:
            return await landed
        except BaseException as error:
            del flight.waiters[landed]
            if not flight.landed and not flight.waiters and flight.task is not None:
                self._forget(key, flight)  # who comes now must not share what is being cancelled
                flight.task.cancel()
                call.adopt(flight.call)  # they are completed while we wait
                if not isinstance(error, GeneratorExit):  # which allows no waiting
                    await asyncio.wait([flight.task])  # nothing may outlive the call that nobody else shares
            raise

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._flights.get((flight.loop, key)) is flight:
            del self._flights[flight.loop, key]


class _Flight:
    """One inference that several calls wait for."""

    __slots__ = ("call", "landed", "leader", "loop", "task", "unfit", "waiters")

    def __init__(self, leader: Call, loop: asyncio.AbstractEventLoop) -> None:
        self.leader = leader
        self.loop = loop
        # A record of its own: the leader may be gone, and its record closed, before the inference ends.
        self.call = leader.fork()
        self.waiters: dict[asyncio.Future[Reply], Call] = {}
        self.task: asyncio.Task[None] | None = None
        self.landed = False
        self.unfit: str | None = None

    @property
    def span(self) -> SpanIds | None:
        """The span of the inference."""
        return self.call.inferences[-1].span if self.call.inferences else None

    def land(self, reply: Reply, error: BaseException | None) -> None:
        """Tell all that wait. The inference goes into the leader's record; where it has gone, into the next one's."""
        self.landed = True
        # Who is being cancelled at this very moment still has an open record, and pays if nobody else is left to.
        waiting = list(self.waiters.items())
        if len(waiting) > 1:
            waiting.sort(key=lambda waiter: (waiter[0].done(), waiter[1] is not self.leader))
        for position, (landed, call) in enumerate(waiting):
            if position == 0:
                self._charge(call)
            else:
                self._share(call, reply)
            if landed.done():
                continue
            if isinstance(error, asyncio.CancelledError):
                landed.cancel()
            elif error is not None:
                landed.set_exception(error)
            else:
                landed.set_result(reply if position == 0 else Reply(reply.text, reply.fields))

    def _charge(self, call: Call) -> None:
        call.adopt(self.call)
        lookup = cast("Lookup", call.cache)
        if call is not self.leader:
            lookup.result, lookup.reason = "miss", "took_over"
        if self.unfit is not None:
            lookup.result, lookup.reason = "refused", self.unfit

    def _share(self, call: Call, reply: Reply) -> None:
        lookup, attempt = cast("Lookup", call.cache), reply.attempt
        lookup.ended = call.clock()
        lookup.usage, lookup.cost = (attempt.usage, attempt.cost) if attempt else (None, None)
        lookup.span = self.span


def _unfit(reply: Reply, request: Request) -> str | None:
    """Say why an answer must not be given to anyone else; None where it may."""
    attempt = reply.attempt
    finish_reason = attempt.finish_reason if attempt else None
    output_tokens = attempt.usage.output_tokens if attempt and attempt.usage else None
    if finish_reason == "content_filter":
        return "filtered"
    if not reply.text:
        return "empty"
    if finish_reason == "length" or _at_limit(request.options, output_tokens):
        return "truncated"
    return "no_json" if request.json_mode and not _is_json(reply.text) else None


def _at_limit(options: Any, output_tokens: int | None) -> bool:
    # For clients that do not say why the model stopped, such as db-ally's own.
    limit: Any = getattr(options, "max_tokens", None)
    if isinstance(options, Mapping):
        limit = cast("Mapping[str, Any]", options).get("max_tokens")
    return isinstance(limit, int) and output_tokens is not None and output_tokens >= limit


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
