"""Which generation of a namespace a writer began in: what was invalidated meanwhile is not written after all."""

from __future__ import annotations

from collections import OrderedDict
from threading import RLock
from typing import Generic, TypeVar

G = TypeVar("G")

_REMEMBERED = 4096
"""Misses under way at once, at most. Of what is forgotten, the answer may outlive one invalidation."""


class Generations(Generic[G]):
    """The generation in which each key was missed; from any thread.

    Who sets a key has, as a rule, missed it before, and asked a model in between. Where the namespace was invalidated
    in that time, the answer is of the world before. A caller that carries a token from get to set would be exact; this
    keeps the store's interface to bytes, and errs by a miss too many: of two that missed a key the older one counts.
    """

    __slots__ = ("_lock", "_missed")

    def __init__(self) -> None:
        self._missed: OrderedDict[tuple[str, str], G] = OrderedDict()
        self._lock = RLock()

    def missed(self, namespace: str, key: str, generation: G) -> None:
        """Note that *key* was looked for in *generation*, and was not there."""
        with self._lock:
            self._missed.setdefault((namespace, key), generation)
            if len(self._missed) > _REMEMBERED:
                self._missed.popitem(last=False)

    def begun(self, namespace: str, key: str) -> G | None:
        """Return the generation in which *key* was missed, and forget it; None where it was not."""
        with self._lock:
            return self._missed.pop((namespace, key), None)
