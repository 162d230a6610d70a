"""`Cache`: answers equal requests once, whether they come later or at the same time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, cast

from overcoat.arithmetic.cache_key import client_identity, key_of, parts_of, scope_of
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.arithmetic.freshness import Freshness, Lifetime
from overcoat.caching.acceptance import reason_to_refuse
from overcoat.caching.answers import Answers, Served
from overcoat.caching.controls import current_mode, current_sample, refreshing
from overcoat.caching.single_flight import Flight, Shortage
from overcoat.caching.single_flight import Place as FlightPlace
from overcoat.chance import draw
from overcoat.classification import Kind
from overcoat.errors import CircuitOpen, NotCached
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.options import Uncacheable, given_options
from overcoat.order import Place
from overcoat.pricing.usage import COUNTS
from overcoat.record import BypassReason, Call, Entry, Lookup, RefusedReason
from overcoat.stores import Store, open_store
from overcoat.stores.envelope import Answer, pack
from overcoat.stores.memory import MemoryStore

logger = logging.getLogger("overcoat")

_TAG = "tag:"

_METHODS = ("get", "set", "delete")
"""What a cache asks of a store itself."""

_EXCUSED = frozenset({Kind.CONNECTION, Kind.TIMEOUT, Kind.SERVER_ERROR, Kind.OVERLOADED, Kind.RATE_LIMITED})
"""What a stale answer makes up for: failures that say nothing about the request. Never refused keys or bad requests."""

_GIVEN_OUT = frozenset({"fresh", "stale"})

_LEASE = 30.0
"""Seconds for which other processes leave an answer to the one that makes it: what takes longer is made twice."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two looks for the answer that another process makes."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Cache(PlacedLayer):
    """Keep answers for *ttl*, and let equal requests that run at the same time share one inference.

    Equal are requests in which everything that can change the answer is equal: the client's class, model, endpoint
    and credential, what it adds by `cache_key_parts`, JSON mode, every option, and the conversation. A request whose
    options ask for randomness (temperature above 0) is passed by unless `sampled` allows it. Answers that are empty,
    truncated, filtered or, in JSON mode, no JSON are passed on but not kept; nor are errors. What a store cannot do is
    counted, and costs the stored answer only.

    Attributes:
        store: Where answers lie: "memory://" for this stack alone, "sqlite:///answers.db", "redis://host:6379/0", or
            an object that can do the same.
        ttl: How long an answer is good: seconds, or text such as "1h".
        jitter: The part of `ttl` that is left to chance, from 0 to 1, so that what was asked together is not asked
            anew together.
        stale_while_revalidate: For how long after that it is still given out, at once, while one call in the background
            asks anew; that has a record of its own.
        stale_if_error: For how long after that it is given out where the provider cannot be reached, is overloaded, or
            fails, or where its circuit is open.
        max_refreshes: How many calls in the background there may be at once.
        max_bytes: What "memory://" may take, where that does not say it itself by `?max_bytes=`.
        namespace: Keeps apart what must not be shared: a name, or "tag:tenant" for the value of that tag. Calls without
            the tag pass the cache by.
        sampled: Whether answers to requests with a temperature above 0 are kept as well.
        samples: How many answers to each of those requests are kept; a call takes one of them by chance, or by
            `overcoat.cache_sample`.
        accept: The caller's own judgement of an answer: where it is false the answer is passed on, but not kept.
        replay_usage: Whether the caller's event says what the stored or shared answer has used when it was made. It is
            never billed again.
        random: Draws from [0, 1), for jitter and samples.
    """

    place: ClassVar[Place] = Place.CACHE
    because: ClassVar[str] = "a hit must cost no retry, no budget and no place in a queue"
    twice: ClassVar[str] = "each would hide the other's misses"

    store: str | Store = field(default="memory://", repr=False)  # a URL may have a password in it
    ttl: Duration = 3600.0
    jitter: float = 0.1
    stale_while_revalidate: Duration = 0.0
    stale_if_error: Duration = 0.0
    max_refreshes: int = 8
    max_bytes: int = 64 * 2**20
    namespace: str | None = None
    sampled: bool = False
    samples: int = 1
    accept: Callable[[str], object] | None = field(default=None, hash=False)
    replay_usage: bool = True
    random: Callable[[], float] = field(default=draw, repr=False)

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        self.lifetime()
        check_count(self.max_refreshes, "Cache.max_refreshes")
        check_count(self.max_bytes, "Cache.max_bytes")
        check_count(self.samples, "Cache.samples")
        if not isinstance(self.store, str) and not all(callable(getattr(self.store, name, None)) for name in _METHODS):
            raise TypeError(f"Cache(store=...): expected a URL, or an object with {', '.join(_METHODS)}")
        namespace = cast("object", self.namespace)  # callers are not all typed
        if not (namespace is None or isinstance(namespace, str)) or namespace in ("", _TAG):
            raise ValueError(f"Cache(namespace={self.namespace!r}): expected a name, or a tag's after {_TAG!r}")
        if self.accept is not None and not callable(self.accept):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError(f"Cache(accept={self.accept!r}): expected a function of the answer")

    def lifetime(self) -> Lifetime:
        """Return how long answers are good, in seconds."""
        jitter = cast("object", self.jitter)  # callers are not all typed
        if not isinstance(jitter, (int, float)) or isinstance(jitter, bool) or not 0 <= jitter < 1:
            raise ValueError(f"Cache(jitter={jitter!r}): expected a number of at least 0, and below 1")
        return Lifetime(
            seconds(self.ttl, "Cache(ttl=...)"),
            jitter,
            seconds(self.stale_while_revalidate, "Cache(stale_while_revalidate=...)", zero=True),
            seconds(self.stale_if_error, "Cache(stale_if_error=...)", zero=True),
        )

    def bind(self, client: Client) -> _Caching:
        """Return the function that looks up, shares and keeps answers."""
        store = MemoryStore(self.max_bytes) if self.store == "memory://" else open_store(self.store)
        return _Caching(self, client, store)


class _Asked(NamedTuple):
    """What a request is, to a cache."""

    namespace: str
    key: str
    sample: int


class _Caching:
    def __init__(self, settings: Cache, client: Client, store: Store) -> None:
        self._settings = settings
        self._lifetime = settings.lifetime()
        self._client = client
        self._answers = Answers(store)
        self._flights: dict[FlightPlace, Flight] = {}
        self._refreshes: dict[FlightPlace, asyncio.Task[None]] = {}
        self._identity: tuple[Any, ...] | None = None
        self._scope = b""
        namespace = settings.namespace or ""
        self._tag = namespace.removeprefix(_TAG) if namespace.startswith(_TAG) else None
        self._warned = False

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        call = request.call
        loop = asyncio.get_running_loop()
        now = loop.time()
        call.cache = lookup = Lookup("bypass", now, now)
        mode = current_mode()
        asked = self._asked(request) if mode != "bypass" else "asked"
        if isinstance(asked, str):
            lookup.reason = asked
            if mode == "only-if-cached":
                raise NotCached(None)
            return await inner(request)
        lookup.entry = Entry(self.evict, asked.namespace, asked.key)
        reply: Reply | None = None
        if mode == "only-if-cached":
            reply = await self._only_stored(call, lookup, asked)
        else:
            place = (loop, asked.namespace, asked.key, mode == "refresh")
            while reply is None:
                flight = self._flights.get(place)
                if flight is not None and flight.takes(request.deadline):
                    lookup.result = "coalesced"
                    reply = await flight.join(call, request.deadline)
                else:
                    flight = Flight(self._flights, place, call, request.deadline)
                    reply = await self._lead(flight, request, inner, lookup, asked)
        if lookup.served and not self._settings.replay_usage:
            return Reply(reply.text, {name: value for name, value in reply.fields.items() if name not in COUNTS})
        return reply

    async def evict(self, namespace: str, key: str) -> bool:
        """Take an answer away, also where it is on its way into the store; say whether there is none any more."""
        loop = asyncio.get_running_loop()
        flights = [self._flights.get((loop, namespace, key, new)) for new in (False, True)]
        if writing := [flight.task for flight in flights if flight is not None and flight.reply and flight.task]:
            await asyncio.wait(writing)
        return await self._answers.evict(namespace, key)

    def _asked(self, request: Request) -> _Asked | BypassReason:
        """Return what *request* is; or why the cache is passed by."""
        settings = self._settings
        namespace = settings.namespace
        if self._tag is not None and not (namespace := request.call.tags.get(self._tag)):
            # Without a tenant, one would get the answers of another.
            if not self._warned:
                self._warned = True
                logger.warning("calls without the tag %r pass the cache by", self._tag)
            return "no_namespace"
        try:
            options = given_options(request.options)
            temperature = options.get("temperature", 0)
            by_chance = not (isinstance(temperature, (int, float)) and temperature <= 0)
            if by_chance and not settings.sampled:
                return "sampled"
            if (sample := current_sample()) is None:
                sample = int(settings.random() * settings.samples) if by_chance and settings.samples > 1 else 0
            identity = client_identity(self._client)
            if identity != self._identity:  # a client may be pointed elsewhere after it was stacked
                self._identity, self._scope = identity, scope_of(identity)
            key = key_of(
                self._scope,
                request.conversation,
                options,
                json_mode=request.json_mode,
                namespace=namespace,
                sample=sample,
                parts=parts_of(self._client),
            )
        except Uncacheable as reason:
            logger.debug("not cached: %s", reason)
            return "uncacheable"
        return _Asked(namespace or "", key, sample)

    async def _only_stored(self, call: Call, lookup: Lookup, asked: _Asked) -> Reply:
        """Return what is stored, be it stale.

        Raises:
            NotCached: Nothing is.
        """
        answer, reason = await self._answers.find(asked.namespace, asked.key)
        freshness = self._judge(call, answer)
        if answer is None or freshness not in _GIVEN_OUT:
            lookup.result, lookup.reason, lookup.ended = "miss", reason, call.clock()
            raise NotCached(asked.key)
        _served(answer, freshness).note(call, lookup)
        return Reply(answer.text, answer.fields)

    async def _lead(
        self, flight: Flight, request: Request, inner: Handler, lookup: Lookup, asked: _Asked
    ) -> Reply | None:
        """Look into the store, and ask where it has nothing; None where the call has to look again."""
        call, spare = request.call, None
        lookup.result, lookup.reason = "miss", "refresh"
        if not flight.refreshes:
            try:
                answer, lookup.reason = await self._answers.find(asked.namespace, asked.key)
            except BaseException:
                flight.abandon()
                raise
            lookup.ended = call.clock()
            freshness = self._judge(call, answer)
            if answer is not None and freshness in _GIVEN_OUT:
                served, reply = _served(answer, freshness), Reply(answer.text, answer.fields)
                served.note(call, lookup)
                flight.leave()
                flight.land(reply, served=served)
                if freshness == "stale":
                    self._revalidate(flight, request, asked)
                return reply
            spare = answer if freshness == "spare" else None
        return await flight.lead(self._fly(flight, request, inner, asked, spare))

    async def _fly(self, flight: Flight, request: Request, inner: Handler, asked: _Asked, spare: Answer | None) -> None:
        """Ask, tell all that wait, and store the answer after that."""
        call = cast("Call", flight.call)
        fresh_for = 0.0
        value: bytes | None = None
        refused: RefusedReason | None = None
        answer: Answer | None = None
        lease = ""
        try:
            fresh_for = self._lifetime.fresh_for(random=self._settings.random())
            if self._answers.leases is not None and not flight.refreshes:
                lease, answer = await self._take_turns(flight, call, asked)
            if answer is None:
                reply = await inner(request.within(call))
                value, refused = self._packed(reply, request, call, asked.key, fresh_for)
            else:
                reply = Reply(answer.text, answer.fields)
        except BaseException as error:
            flight.leave()
            self._fail(flight, call, spare, error)
            if not isinstance(error, (Exception, asyncio.CancelledError)):
                raise
        else:
            if value is None:
                flight.leave()
            flight.land(reply, served=Served(answer, "coalesced") if answer is not None else None, refused=refused)
        # Nobody waits any more.
        try:
            if value is not None:
                await self._answers.keep(asked.namespace, asked.key, value, fresh_for + self._lifetime.grace)
        finally:
            flight.leave()
            if lease:
                await self._answers.release(asked.namespace, asked.key, lease)

    async def _take_turns(self, flight: Flight, call: Call, asked: _Asked) -> tuple[str, Answer | None]:
        """Return a lease on making the answer; or the answer, where another process has made it meanwhile."""
        answers, deadline = self._answers, flight.deadline
        now = call.clock()
        # Half of what is left is for asking by oneself.
        until = now + _LEASE if deadline is None else min(now + _LEASE, now + (deadline - now) / 2)
        pause = _FIRST_PAUSE
        while True:
            lease = await answers.acquire(asked.namespace, asked.key, _LEASE)
            try:
                answer, _ = await answers.find(asked.namespace, asked.key)  # who had it before may have stored one
            except BaseException:
                await answers.release(asked.namespace, asked.key, lease or "")
                raise
            if answer is not None and self._judge(call, answer) == "fresh":
                await answers.release(asked.namespace, asked.key, lease or "")
                return "", answer
            if lease is not None or call.clock() >= until:
                return lease or "", None
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _fail(self, flight: Flight, call: Call, spare: Answer | None, error: BaseException) -> None:
        kind = call.classify(error).kind
        excused = kind in _EXCUSED or isinstance(error, CircuitOpen)
        if spare is not None and excused and self._judge(call, spare) == "spare":
            flight.land(Reply(spare.text, spare.fields), served=Served(spare, "stale", "if_error"))
            return
        flight.fail(error, Shortage.behind(error, call))

    def _packed(
        self, reply: Reply, request: Request, call: Call, key: str, fresh_for: float
    ) -> tuple[bytes | None, RefusedReason | None]:
        """Return what is to be stored; or None, and why nothing is."""
        if (reason := reason_to_refuse(reply, request, self._settings.accept)) is not None:
            return None, reason
        attempt, now = reply.attempt, call.at(call.clock())
        try:
            value = pack(
                cast("str", reply.text),
                key=key,
                created=now,
                fresh_until=now + fresh_for,
                fields=reply.fields,
                usage=attempt.usage if attempt else None,
                cost=attempt.cost if attempt else None,
                span=call.inferences[-1].span if call.inferences else None,
                model=(attempt.response_model or attempt.model) if attempt else None,
            )
        except ValueError as error:
            logger.debug("not stored: %s", error)
            return None, "unstorable"
        return value, None

    def _judge(self, call: Call, answer: Answer | None) -> Freshness:
        if answer is None:
            return "expired"
        return self._lifetime.judge(answer.created, answer.fresh_until, call.at(call.clock()))

    def _revalidate(self, flight: Flight, request: Request, asked: _Asked) -> None:
        """Ask anew in the background, by a call of its own, unless that is under way or too many are."""
        call, loop = request.call, flight.place[0]
        place = (loop, asked.namespace, asked.key, True)
        under_way = place in self._refreshes or place in self._flights
        if call.repeat is None or under_way or len(self._refreshes) >= self._settings.max_refreshes:
            return
        # A copy: the caller has its answer, and goes on with the conversation, as a rule by appending to it.
        conversation = deepcopy(request.conversation)
        again = Request(conversation, request.options, request.event, request.json_mode, call.successor())
        task = loop.create_task(self._refresh(again, asked), context=refreshing(copy_context(), asked.sample))
        self._refreshes[place] = task
        task.add_done_callback(lambda _: self._refreshes.pop(place))

    async def _refresh(self, request: Request, asked: _Asked) -> None:
        lease = await self._answers.acquire(asked.namespace, asked.key, _LEASE)
        if lease is None:
            return  # another process is at it
        try:
            await cast("Any", request.call.repeat)(request)
        except Exception as error:  # noqa: BLE001 - nobody waits for it, and its record says what happened
            logger.debug("an answer could not be made anew: %s", type(error).__qualname__)
        finally:
            await self._answers.release(asked.namespace, asked.key, lease)


def _served(answer: Answer, freshness: Freshness) -> Served:
    return Served(answer, "hit") if freshness == "fresh" else Served(answer, "stale", "while_revalidate")
