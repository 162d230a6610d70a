"""What budgets outside the process have in common: nothing is lost that is cancelled, or cannot be settled just now."""

from __future__ import annotations

import asyncio
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from overcoat.arithmetic.reservation import Denied, Want
from overcoat.budgets import Held, Settled
from overcoat.errors import StoreUnavailable

T = TypeVar("T")

LEASE = 60.0
"""Seconds: long beside a hiccup of the network, and short beside a day's budget."""

RETENTION = 7 * 86_400_000
"""Milliseconds for which a reservation that was taken to be spent can still be corrected."""

_AT_ONCE = 10
"""How many old debts are settled before a new reservation, at most: it should not wait for all of them."""

_MOST_OWED = 10_000

_PASSING = (StoreUnavailable, asyncio.CancelledError)
"""After these it can be tried again. What no store takes is not owed, or it would stand before all that come later."""


class RemoteBudgets(ABC):
    """A store that is asked over a wire or in another thread.

    What it did is known only when it has answered. So a command is waited for to its end, also by who is cancelled
    meanwhile; and what could not be settled is owed, and settled before the next reservation. Where there is none,
    the lease ends, and the whole of what was reserved is taken to be spent.

    Args:
        lease: Seconds after which what was not renewed is taken to be spent.
    """

    def __init__(self, lease: float) -> None:
        self.lease: float = lease
        self._owed: dict[str | int, tuple[Held, Sequence[int]]] = {}

    async def reserve(self, wants: Sequence[Want]) -> Held | Denied:
        """Set aside all that is wanted, or nothing.

        Raises:
            StoreUnavailable: It cannot be said. What was set aside all the same is given back later.
        """
        await self._pay()
        held = Held(secrets.token_hex(12), wants)
        try:
            denied = await _to_its_end(self._reserve_or_owe(held))
        except asyncio.CancelledError:
            with suppress(StoreUnavailable):  # it is owed then, and the cancellation must pass
                await _to_its_end(self._settle_or_owe(held, [0] * len(wants)))
            raise
        return denied or held

    async def settle(self, held: Held, amounts: Sequence[int]) -> Settled:
        """Put the *amounts* that were spent in place of what was set aside, once.

        Raises:
            StoreUnavailable: It cannot be settled now; it is owed.
        """
        if isinstance(sys.exception(), GeneratorExit):  # which allows no waiting
            self._owe(held, amounts)
            raise StoreUnavailable("a call that is thrown away cannot wait for its budget; it is settled later")
        return await _to_its_end(self._settle_or_owe(held, amounts))

    async def renew(self, held: Held) -> None:
        """Say that it is still under way."""
        await self._renew(held)

    async def _reserve_or_owe(self, held: Held) -> Denied | None:
        try:
            return await self._reserve(held)
        except _PASSING:
            self._owe(held, [0] * len(held.wants))  # nobody knows what came of it
            raise

    async def _settle_or_owe(self, held: Held, amounts: Sequence[int]) -> Settled:
        try:
            return await self._settle(held, amounts)
        except _PASSING:
            self._owe(held, amounts)
            raise

    async def _pay(self) -> None:
        for id_ in list(self._owed)[:_AT_ONCE]:
            if (debt := self._owed.pop(id_, None)) is not None:  # others pay as well
                await _to_its_end(self._settle_or_owe(*debt))

    def _owe(self, held: Held, amounts: Sequence[int]) -> None:
        if len(self._owed) < _MOST_OWED:  # beyond, leases end by themselves
            self._owed[held.id] = held, amounts

    @abstractmethod
    async def _reserve(self, held: Held) -> Denied | None: ...

    @abstractmethod
    async def _settle(self, held: Held, amounts: Sequence[int]) -> Settled: ...

    @abstractmethod
    async def _renew(self, held: Held) -> None: ...


async def _to_its_end(command: Coroutine[Any, Any, T]) -> T:
    """Return what *command* does; who is cancelled meanwhile waits for its end, and is cancelled then."""
    task = asyncio.create_task(command)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # the first one is passed on below
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # asyncio complains of errors that nobody looks at; this one is owed
        raise
    return task.result()
