"""A store on a Redis server, for all processes of all machines: one round trip for each look-up and each answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote, unquote

from overcoat.stores import Stored
from overcoat.stores.generations import Generations
from overcoat.stores.redis_client import RedisClient

_PREFIX = "overcoat:cache:"

_GENERATION_BYTES = 16

_LONGEST = 100 * 365 * 86_400_000
"""Milliseconds. Redis refuses what ends after its last day."""

_PAGE = 100
"""Keys that an inspection asks for at once: what it gets must come within the time for a command."""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisStore:
    """Entries on a server, which has its own ceiling and its own way of eviction (`maxmemory-policy`).

    A namespace has a generation, which is a random value under a key of its own, and each entry begins with the one in
    which it was set: what does not begin with the present one is not there. A generation is never used again, so that
    whatever the server forgets, and whenever, costs entries and brings none back.

    Args:
        url: "redis://host:6379/0", "rediss://..." or "unix:///path", as `RedisClient` takes it.

    Raises:
        PolicyError: The URL makes no sense.
        ImportError: redis is not installed.
    """

    def __init__(self, url: str) -> None:
        self._client = RedisClient(url)
        self._writers = Generations[bytes]()

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing, its time is up or it was invalidated."""
        names = _generation_name(namespace), _entry_name(namespace, key)
        generation, entry = await self._client.run(lambda redis: _mget(redis, names))
        if generation is None:
            generation = await self._begin(namespace)
        elif entry is not None and entry.startswith(generation) and len(generation) == _GENERATION_BYTES:
            return entry[_GENERATION_BYTES:]
        self._writers.missed(namespace, key, generation)
        return None

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, unseen where it was invalidated on its way."""
        generation = self._writers.begun(namespace, key)
        if generation is None:
            generation = await self._begin(namespace)
        entry = generation + value
        await self._client.run(lambda redis: redis.set(_entry_name(namespace, key), entry, px=_milliseconds(ttl)))

    async def delete(self, namespace: str, key: str) -> None:
        """Forget what is under *key*, if anything."""
        await self._client.run(lambda redis: redis.delete(_entry_name(namespace, key)))

    async def invalidate(self, namespace: str) -> None:
        """Forget all of *namespace*, and what any process is about to set there; the server drops it when it likes."""
        generation = secrets.token_bytes(_GENERATION_BYTES)
        await self._client.run(lambda redis: redis.set(_generation_name(namespace), generation))

    async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
        """Return a token for *key*, good for *ttl* seconds unless it is released; None where someone else has it."""
        token, name = secrets.token_hex(16), _name(namespace, "lease", key)
        taken = await self._client.run(lambda redis: redis.set(name, token, nx=True, px=_milliseconds(ttl)))
        return token if taken else None

    async def release(self, namespace: str, key: str, token: str) -> None:
        """Give *key* up, unless it is someone else's by now."""
        name = _name(namespace, "lease", key)
        await self._client.run(lambda redis: _release(redis, name, token))

    async def scan(self) -> AsyncIterator[Stored]:
        """Yield all entries, in no order; one that is set meanwhile may be missing, and one may come twice."""
        cursor: int | None = None
        while cursor != 0:
            cursor, names = await self._client.run(partial(_scan, cursor=cursor or 0))
            if names:
                for stored in await self._client.run(partial(_read, names=names)):
                    yield stored

    async def compact(self) -> None:
        """Do nothing: the server has the space of what was deleted already."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"RedisStore({self._client.address!r})"

    async def _begin(self, namespace: str) -> bytes:
        """Return the generation of *namespace*; begin one where there is none."""
        name, new = _generation_name(namespace), secrets.token_bytes(_GENERATION_BYTES)

        async def begin(redis: Any) -> bytes:
            async with redis.pipeline(transaction=False) as both:  # SET NX GET in one is of Redis 7
                both.set(name, new, nx=True)
                both.get(name)
                _, generation = await both.execute()
            return generation or new  # flushed in between

        return await self._client.run(begin)


def _name(namespace: str, kind: str, key: str) -> str:
    # Braces, so that a cluster has all of a namespace in one place, which MGET asks for; quoted, so that no namespace
    # and no key can be read as another.
    return f"{_PREFIX}{{{quote(namespace, safe='')}}}:{kind}:{key}"


def _entry_name(namespace: str, key: str) -> str:
    return _name(namespace, "entry", key)


def _generation_name(namespace: str) -> str:
    return _name(namespace, "generation", "")


def _milliseconds(ttl: float) -> int:
    return max(1, int(min(ttl * 1000, _LONGEST)))


# Any, since redis-py types its commands as what both of its clients return, awaited or not.


async def _mget(redis: Any, names: Sequence[str]) -> Sequence[bytes | None]:
    found: list[bytes | None] = await redis.mget(names)
    return found


async def _release(redis: Any, name: str, token: str) -> None:
    await redis.eval(_RELEASE, 1, name, token)


async def _scan(redis: Any, cursor: int) -> tuple[int, list[bytes]]:
    after, names = await redis.scan(cursor, match=f"{_PREFIX}{{*}}:entry:*", count=_PAGE)
    return after, names


async def _read(redis: Any, names: Sequence[bytes]) -> list[Stored]:
    places = [_place(name.decode()) for name in names]
    generations = [_generation_name(namespace) for namespace, _ in places]
    async with redis.pipeline(transaction=False) as asked:
        asked.mget(names)
        asked.mget(generations)
        for name in names:
            asked.pttl(name)
        entries, present, *lives = await asked.execute()
    now = time.time()
    return [
        Stored(
            *place,
            value=entry[_GENERATION_BYTES:],
            expires=now + life / 1000,
            state="live" if generation and entry.startswith(generation) else "invalidated",
        )
        for place, entry, generation, life in zip(places, entries, present, lives, strict=True)
        if entry is not None  # gone in between, or no entry of ours
    ]


def _place(name: str) -> tuple[str, str]:
    namespace, _, key = name.removeprefix(_PREFIX + "{").partition("}:entry:")
    return unquote(namespace), key
