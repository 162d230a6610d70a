"""Where budgets keep what is spent and what is reserved: in memory, in a SQLite file, or in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from overcoat.arithmetic.reservation import Denied, Standing, Want
from overcoat.errors import PolicyError
from overcoat.shared import shared


class Held(NamedTuple):
    """What was set aside, to be settled.

    Attributes:
        id: Names it in the store.
        wants: What was set aside, account by account.
        slices: In which slice of each account's window, where the store does not know that itself.
    """

    id: str | int
    wants: Sequence[Want]
    slices: Sequence[int] = ()


class Settled(NamedTuple):
    """What counts after something was settled, account by account, and when: the store's clock, in milliseconds."""

    now: int
    standings: Sequence[Standing]


class BudgetStore(Protocol):
    """What a budget asks of a store. All time is the store's own, so that machines whose clocks differ agree.

    A store that cannot answer raises. What is cancelled has taken nothing, and what is settled is settled once.

    Attributes:
        lease: Seconds after which what was not renewed is taken to be spent; None where it ends with the process.
    """

    @property
    def lease(self) -> float | None:
        """See above."""
        ...

    async def reserve(self, wants: Sequence[Want]) -> Held | Denied:
        """Set aside all that is wanted, in the current window of each account, or nothing."""
        ...

    async def settle(self, held: Held, amounts: Sequence[int]) -> Settled:
        """Put the *amounts* that were spent in place of what was set aside, in the windows in which that was done.

        What was taken to be spent meanwhile is corrected. What is settled already, or unknown, is left as it is.
        """
        ...

    async def renew(self, held: Held) -> None:
        """Say that it is still under way, for another `lease` seconds."""
        ...

    async def close(self) -> None:
        """Give up connections and files; a store that is used again opens them again."""
        ...


def open_budgets(url: str | None) -> BudgetStore:
    """Return the store of that name, one for each process.

    Args:
        url: "redis://host:6379/0", "rediss://...", "unix://...", "sqlite:///relative.db", "sqlite:////absolute.db", or
            None for this process's memory.

    Raises:
        PolicyError: It names no store.
        ImportError: redis is needed and not installed.
    """
    return shared("overcoat.budgets", url, lambda: _open(url))


def _open(url: str | None) -> BudgetStore:
    # Imported here: who counts in memory does not wait for SQLite, nor needs redis.
    if url is None:
        from overcoat.budgets.memory import MemoryBudgets  # noqa: PLC0415

        return MemoryBudgets()
    scheme, _, rest = url.partition("://")
    if scheme in ("redis", "rediss", "unix"):
        from overcoat.budgets.redis import RedisBudgets  # noqa: PLC0415

        return RedisBudgets(url)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from overcoat.budgets.sqlite import SqliteBudgets  # noqa: PLC0415

        return SqliteBudgets(rest[1:])
    # Not the URL itself, which may hold a password.
    raise PolicyError(f'no store of budgets is called "{scheme}://..."; expected redis:// or sqlite:///path')
