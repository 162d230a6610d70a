"""A connection to Redis that costs next to nothing while the server is down: short limits, and no second try."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from overcoat.alarm import Alarm
from overcoat.errors import PolicyError, StoreUnavailable
from overcoat.stores.outage import Outage

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

_TIMEOUT = 0.2
"""Seconds for a command, connecting included. One that takes longer costs a caller more than it can save."""

_CONNECTIONS = 10
"""On each event loop, at most; more callers wait for their turn. A loop is busy with the replies of so many, and with
more of them, each takes longer: where a thousand callers come at once, too long."""

_STALL = 0.05
"""Seconds: a timer that rings so much too late says that the loop was blocked, and nothing of the server."""

_HOST = re.compile(r"(\[[0-9a-fA-F:.%]*\]|[^:]*)(:[0-9]*)?")


class _Connections:
    """What belongs to one event loop."""

    __slots__ = ("lifetime", "redis", "slots")

    def __init__(self, redis: Redis, lifetime: AsyncGenerator[None]) -> None:
        self.redis = redis
        self.lifetime = lifetime
        self.slots = asyncio.Semaphore(_CONNECTIONS)


class RedisClient:
    """Runs commands on a Redis server: from any event loop, with connections of its own for each.

    redis-py's own limits are for those who cannot do without the server: ten retries and timeouts of five seconds. Here
    a command has 0.2 s, connecting included, and one try. When the server cannot be reached or says nothing in that
    time, all that come next get `StoreUnavailable` at once, until a pause is over and one of them has found it well.

    Args:
        url: "redis://host:6379/0", "rediss://..." for TLS or "unix:///path?db=0". redis-py's options are parameters; of
            these `socket_timeout` is the seconds for a command, for servers that are further away.
        timeout: The seconds for a command where the URL does not say: for those who cannot do without an answer.

    Attributes:
        address: The URL without user, password and parameters, for messages.

    Raises:
        PolicyError: The URL makes no sense; the message does not repeat what it holds.
        ImportError: redis is not installed.
    """

    def __init__(self, url: str, timeout: float = _TIMEOUT) -> None:
        self.address = _address(url)
        self._loops: dict[asyncio.AbstractEventLoop, _Connections] = {}
        self._outage = Outage(self.address)
        # Here and not at the first command, where the time that it takes would block the event loop.
        try:
            from redis.asyncio.connection import parse_url  # noqa: PLC0415 - an optional extra
            from redis.exceptions import ConnectionError as Unreachable  # noqa: PLC0415
            from redis.exceptions import RedisError  # noqa: PLC0415
            from redis.exceptions import TimeoutError as TimedOut  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ImportError("Redis stores need redis-py: pip install 'overcoat[redis]'") from error
        self._failures = (RedisError, OSError)
        self._outages = (Unreachable, TimedOut, OSError)
        # Their messages may hold half of the password, where that has a slash or a number sign in it.
        try:
            options = dict[str, Any](parse_url(url))
        except ValueError:
            raise PolicyError(f"{self.address} is no URL of a Redis server") from None
        if fixed := options.keys() & {"decode_responses", "protocol"}:
            raise PolicyError(f"{self.address}: {min(fixed)} is not for stores to choose")
        self._password: str = options.get("password") or ""
        self._timeout: float = options.get("socket_timeout") or timeout
        # One timer around all that a command does, instead of redis-py's: a task for each write on Python 3.11.
        self._options: dict[str, Any] = options | {"socket_timeout": None, "socket_connect_timeout": self._timeout}
        try:
            self._make()
        except TypeError:
            raise PolicyError(f"{self.address} has a parameter that redis-py does not know") from None

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return what *command* does with a client of redis-py.

        Raises:
            StoreUnavailable: The server cannot be reached, did not answer in time or refused the command; where it is
                known to be down, at once.
        """
        loop = asyncio.get_running_loop()
        self._outage.check(loop.time())  # not to queue for what will be refused
        connections = self._loops.get(loop)
        if connections is None:
            connections = await self._open(loop)
        async with connections.slots:
            probe = self._outage.enter(loop.time())
            well: bool | None = None
            due = loop.time() + self._timeout
            alarm = Alarm(loop, due)
            try:
                result = await command(connections.redis)
                well = True
            except asyncio.CancelledError as error:
                if not alarm.rang_alone():
                    raise
                well = None if loop.time() > due + _STALL else False
                raise StoreUnavailable(f"{self.address} did not answer within {self._timeout:g} s") from error
            except self._failures as error:
                well = not isinstance(error, self._outages)  # a refusal shows that there is someone
                told = self._password and self._password in str(error)  # as servers do that do not know AUTH
                raise StoreUnavailable(f"{self.address}: {type(error).__name__}") from (None if told else error)
            finally:
                alarm.off()
                self._outage.leave(loop.time(), well, probe=probe)
        return result

    async def close(self) -> None:
        """Close this event loop's connections; those of others are closed when their loops shut down."""
        connections = self._loops.get(asyncio.get_running_loop())
        if connections is not None:
            await connections.lifetime.aclose()

    def __repr__(self) -> str:
        return f"RedisClient({self.address!r})"

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Connections:
        for other in list(self._loops):
            if other.is_closed():  # in a way that closes no generators
                self._loops.pop(other, None)
        redis = self._make()
        connections = self._loops[loop] = _Connections(redis, self._lifetime(loop, redis))
        # No other coroutine has run since the look-up: the generator's first step waits for nothing.
        await anext(connections.lifetime)
        return connections

    async def _lifetime(self, loop: asyncio.AbstractEventLoop, redis: Redis) -> AsyncGenerator[None]:
        # Event loops close asynchronous generators before they end. It is their only hook: without it, connections
        # that nobody closed would outlive `asyncio.run` as leaks.
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await redis.aclose()

    def _make(self) -> Redis:
        from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415 - an optional extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        pool: Any = ConnectionPool(
            **self._options,
            retry=Retry(NoBackoff(), 0),
            # A round trip less when connecting; and with 3, redis-py 8 uses connections that the server has closed.
            protocol=2,
        )
        pool.make_connection()  # which connects later, and complains of parameters now
        return Redis.from_pool(pool)


def _address(url: str) -> str:
    """Return *url* without what is secret in it: user, password and parameters."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path = re.split("[?#]", rest[len(authority) :], maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    # A password may hold any of these signs unescaped. Where it is not plain what is what, nothing is shown.
    plain = "@" not in rest[len(authority) :] and _HOST.fullmatch(host)
    return f"{scheme}://{host}{path}" if plain else f"{scheme}://..."
