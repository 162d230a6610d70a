"""What steers caches from outside: modes and samples, for a context, and eviction."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Literal, get_args

from overcoat.arithmetic.counts import check_count
from overcoat.record import Call

CacheMode = Literal["default", "bypass", "refresh", "only-if-cached"]

_mode: ContextVar[CacheMode] = ContextVar("overcoat.cache_mode", default="default")
_sample: ContextVar[int | None] = ContextVar("overcoat.cache_sample", default=None)

current_mode = _mode.get
current_sample = _sample.get


@contextmanager
def cache_mode(mode: CacheMode) -> Generator[None]:
    """Say what the caches of calls made inside may do; tasks that are started inside follow.

    Args:
        mode: "default"; "bypass" neither reads nor stores; "refresh" asks the provider and stores its answer over the
            old one; "only-if-cached" asks no provider, and raises `NotCached` where there is no stored answer. The
            terms are those of HTTP's `Cache-Control`.

    Raises:
        ValueError: *mode* is none of these.
    """
    if mode not in get_args(CacheMode):
        raise ValueError(f"cache_mode({mode!r}): expected one of {', '.join(map(repr, get_args(CacheMode)))}")
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


@contextmanager
def cache_sample(index: int) -> Generator[None]:
    """Make each call inside ask for answer number *index* to its request: an experiment meets its own answers again.

    Calls with different indices never share an answer, nor an inference.

    Raises:
        ValueError: *index* is no integer, or negative.
    """
    check_count(index, "cache_sample.index", least=0)
    token = _sample.set(index)
    try:
        yield
    finally:
        _sample.reset(token)


async def invalidate(call: Call) -> bool:
    """Evict the stored answer that *call* got or made, as when a parser further down cannot use it.

    Returns:
        Whether there is none any more: False where the call had passed the cache by, or where the store failed.
    """
    entry = call.cache.entry if call.cache is not None else None
    return entry is not None and await entry.evict(entry.namespace, entry.key)


def refreshing(context: Context, sample: int) -> Context:
    """Return *context*, in which calls make answer number *sample* anew."""
    context.run(_mode.set, "refresh")
    context.run(_sample.set, sample)
    return context
