"""A small value in Redis that several processes change together, by the arithmetic that one process alone goes by."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, cast

import msgspec

from overcoat.errors import StoreUnavailable
from overcoat.shared import shared
from overcoat.stores.redis_client import RedisClient

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger("overcoat")

LEASE = 15.0
"""Seconds for which what a process has under way counts without a word from it: longer than its loop ever blocks."""
_RENEWAL = LEASE / 3

_MARK = 8
"""Bytes before each value, drawn anew for each, by which a change knows that there was none since it read."""

_READ = "return {redis.call('GET', KEYS[1]), redis.call('TIME')}"
_SWAP = f"""
local found = redis.call('GET', KEYS[1])
if (found and string.sub(found, 1, {_MARK}) or '') ~= ARGV[1] then
  return {{found, redis.call('TIME')}}
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""

Held = tuple[int, ...]
"""What is under way, in one or more amounts, such as requests and their tokens."""

M = TypeVar("M")
R = TypeVar("R")


class Arithmetic(Protocol[M]):
    """What is kept in a cell.

    Attributes:
        shape: The type of what `dump` returns: named tuples, lists and numbers.
        amounts: How many amounts `held` has.
    """

    shape: ClassVar[Any]
    amounts: ClassVar[int]

    def keeps(self) -> float:
        """Return the seconds after which a value that nobody has changed says nothing any more."""
        ...

    def load(self, state: Any | None, held: Held) -> M:
        """Return what was written down, or what it is at first, with all that is under way."""
        ...

    def dump(self, machine: M) -> Any:
        """Write *machine* down, but for what is under way."""
        ...

    def held(self, machine: M) -> Held:
        """Return what is under way."""
        ...


class Link:
    """A Redis server, of which a log says once that it is gone, and once that it is back."""

    def __init__(self, url: str) -> None:
        self._client = RedisClient(url)
        self._lost = False

    @classmethod
    def to(cls, url: str) -> Link:
        """Return the one for *url*."""
        return shared("redis", url, lambda: cls(url))

    async def run(self, command: Callable[[Redis], Awaitable[R]]) -> R:
        """Return what *command* does.

        Raises:
            StoreUnavailable: The server cannot answer now; where that is known, at once.
        """
        try:
            result = await self._client.run(command)
        except StoreUnavailable as error:
            if not self._lost:
                self._lost = True
                logger.warning("%s; each process goes by its own limits, circuits and budgets until it is back", error)
            raise
        if self._lost:
            self._lost = False
            logger.warning("%s is back; limits, circuits and budgets are shared again", self._client.address)
        return result


class _Change(NamedTuple):
    operation: Callable[[Any, float], Any]
    future: asyncio.Future[Any] | None
    undo: Callable[[Any], None] | None


class _Found(NamedTuple):
    mark: bytes
    state: Any | None
    holders: dict[str, tuple[float, Held]]
    now: float


class Cell(Generic[M]):
    """One value in Redis, for the calls of one event loop.

    A change reads the value and the server's clock, computes, and writes where nobody has written meanwhile; else it
    computes anew. All that callers of one loop ask for while a change is under way is the next one, so that only
    processes contend, and a thousand calls at once are a few round trips. Doing the arithmetic in Lua was rejected:
    there would be two of each, to be kept the same for ever.

    What is under way in a process counts for as long as that renews its lease, and is written as a sum: whatever was
    lost on the way, by an outage or a process that died, is right again with the next word from it, or when the lease
    is over.

    Attributes:
        held: What is under way on this loop.
    """

    def __init__(self, link: Link, key: str, arithmetic: Arithmetic[M], loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._key = key
        self._arithmetic = arithmetic
        self._loop = loop
        self._me = os.urandom(8).hex()
        pair: Any = tuple  # of types that a checker cannot know
        self._decoder = msgspec.msgpack.Decoder(pair[arithmetic.shape, dict[str, tuple[float, Held]]])
        self._pending: list[_Change] = []
        self._task: asyncio.Task[None] | None = None
        self._renewal: asyncio.TimerHandle | None = None
        self.held: Held = (0,) * arithmetic.amounts

    async def change(self, operation: Callable[[M, float], R], undo: Callable[[R], None] | None = None) -> R:
        """Return what *operation* does with the value, at a moment by the server's clock.

        What it does must depend on its arguments alone, since it may be done again, on a newer value. With *undo* it is
        skipped where its caller has gone before; and what it gave to one who went meanwhile is handed to *undo*.

        Raises:
            StoreUnavailable: Nothing was changed, as far as one can know.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        self._submit(_Change(operation, future, undo))
        try:
            return await future
        except BaseException:
            if undo is not None and future.done() and not future.cancelled() and future.exception() is None:
                undo(future.result())
            future.cancel()
            raise

    def hold(self, more: Held) -> None:
        """Add to what is under way, or take from it; the store hears of it with the next change. From any thread."""

        def add() -> None:
            self.held = _plus(self.held, more)

        if _running_loop() is self._loop:
            add()
        else:
            with suppress(RuntimeError):  # where that loop is closed, its leases end by themselves
                self._loop.call_soon_threadsafe(add)

    def post(self, operation: Callable[[M, float], object], more: Held) -> None:
        """Add *more* to what is under way, or take it from that, and do *operation* soon; from any thread.

        Where the store cannot be reached it is not done at all.
        """
        self.hold(more)
        if _running_loop() is self._loop:
            # At once, since a loop that is about to end runs nothing that is scheduled now.
            self._submit(_Change(operation, None, None))
        else:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._submit, _Change(operation, None, None))

    def _submit(self, change: _Change) -> None:
        self._pending.append(change)
        self._start()

    def _start(self) -> None:
        if self._task is None or self._task.done():
            # In no context: it works for many callers, and belongs to none of their spans.
            self._task = self._loop.create_task(self._flush(), context=Context())

    async def _flush(self) -> None:
        try:
            await self._round()
            while self._pending:
                await self._round()
        except asyncio.CancelledError:
            # The loop is about to end. What was under way may have been done, and is not repeated; but places that have
            # become free are given back, for which others would wait until the lease is over.
            await self._round()
            raise

    async def _round(self) -> None:
        batch, self._pending = self._pending, []
        wanted = [each for each in batch if each.undo is None or each.future is None or not each.future.done()]
        try:
            results = await self._link.run(lambda redis: self._commit(redis, [each.operation for each in wanted]))
        except StoreUnavailable as error:
            _fail(wanted, error)
        except Exception:
            # Whatever is wrong with what is kept, or with us: calls must go on, each process by itself.
            logger.exception("what is kept under %s could not be changed", self._key)
            _fail(wanted, StoreUnavailable(f"what is kept under {self._key} could not be changed"))
        except asyncio.CancelledError:
            for each in wanted:
                if each.future is not None:
                    each.future.cancel()
            raise
        else:
            for (_, future, undo), result in zip(wanted, results, strict=True):
                if future is not None and not future.done():
                    future.set_result(result)
                elif undo is not None:
                    undo(result)
        finally:
            if self._renewal is None and any(self.held):
                self._renewal = self._loop.call_later(_RENEWAL, self._renew)

    async def _commit(self, redis: Redis, operations: list[Callable[[M, float], Any]]) -> list[Any]:
        evaluate = cast("Callable[..., Awaitable[Any]]", redis.eval)
        arithmetic = self._arithmetic
        found = self._found(*await evaluate(_READ, 1, self._key))
        while True:  # as long as a command may take: of those who contend, one succeeds each time
            mark, state, holders, now = found
            expires, known = holders.pop(self._me, (now, (0,) * len(self.held)))
            kept = {name: each for name, each in holders.items() if each[0] > now}
            before = _plus(self.held, *(held for _, held in kept.values()))
            machine = arithmetic.load(state, before)
            results = [operation(machine, now) for operation in operations]
            taken = tuple(after - before for after, before in zip(arithmetic.held(machine), before, strict=True))
            own = _plus(self.held, taken)
            written = arithmetic.dump(machine)
            fresh = not any(own) or expires - now > LEASE - _RENEWAL / 2
            if written == state and own == known and fresh:
                break
            if any(own):
                kept[self._me] = (now + LEASE, own)
            value = os.urandom(_MARK) + msgspec.msgpack.encode((written, kept))
            milliseconds = int(max(arithmetic.keeps(), LEASE) * 1000) + 1
            newer = await evaluate(_SWAP, 1, self._key, mark, value, milliseconds)
            if newer is None:
                self.held = _plus(self.held, taken)  # which may be less by now
                break
            found = self._found(*newer)
        return results

    def _found(self, value: bytes | None, time: tuple[bytes, bytes]) -> _Found:
        now = int(time[0]) + int(time[1]) / 1e6
        if value is None:
            return _Found(b"", None, {}, now)
        try:
            state, holders = self._decoder.decode(value[_MARK:])
        except msgspec.MsgspecError:
            logger.warning("what is under %s in the store is not ours, and is replaced", self._key)
            state, holders = None, {}
        return _Found(value[:_MARK], state, holders, now)

    def _renew(self) -> None:
        self._renewal = None
        if any(self.held):
            self._start()


class Cells(Generic[M]):
    """The cells of one key, one for each event loop.

    Args:
        url: Of the Redis server.
        key: In it.
        arithmetic: What is kept there.
    """

    def __init__(self, url: str, key: str, arithmetic: Arithmetic[M]) -> None:
        self._link = Link.to(url)
        self._key = key
        self._arithmetic = arithmetic
        self._of: dict[asyncio.AbstractEventLoop, Cell[M]] = {}

    def here(self) -> Cell[M]:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        cell = self._of.get(loop)
        if cell is None:
            for other in list(self._of):
                if other.is_closed():
                    self._of.pop(other, None)
            cell = self._of[loop] = Cell(self._link, self._key, self._arithmetic, loop)
        return cell


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _fail(changes: list[_Change], error: Exception) -> None:
    for each in changes:
        if each.future is not None and not each.future.done():
            each.future.set_exception(error)


def _plus(*held: Held) -> Held:
    return tuple(map(sum, zip(*held, strict=True)))
