"""Sums of money that are set aside before they are spent: what fits, what it becomes, and when there is room again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from overcoat.arithmetic.calendar import SLICES, Window

MOST = 2**53 - 1
"""The largest amount: to a store that counts in floats, larger ones are no longer exact. Nine million dollars."""

KEPT = 2 * SLICES
"""How many slices an account keeps at least; those that count are fewer. By number and not by age, so that a clock
that jumps ahead and back again makes nobody forget what was spent today."""


class Want(NamedTuple):
    """What is asked of one account.

    Attributes:
        account: Its name.
        window: What counts.
        limit: What it may hold in a window; None lets everything pass, and counts it all the same.
        amount: What is to be set aside: a whole number of at least 0, as the limit.
    """

    account: str
    window: Window
    limit: int | None
    amount: int


class Standing(NamedTuple):
    """What counts in an account now: what is `spent`, and what is `reserved` for what is under way."""

    spent: int
    reserved: int


class Denied(NamedTuple):
    """Why nothing was reserved: the first account in which there is no room. Times are Unix milliseconds.

    Attributes:
        which: The want, by its place.
        standing: What counts in the account.
        room_at: When there is room, if all that is reserved is spent; None is never.
        not_before: Before when there cannot be room, even if all that is reserved is released; None is never.
        now: What the store's clock says.
    """

    which: int
    standing: Standing
    room_at: int | None
    not_before: int | None
    now: int


Slices = Iterable[tuple[int, Standing]]
"""What an account holds, slice by slice."""


def fits(want: Want, standing: Standing) -> bool:
    """Say whether there is room for it."""
    return want.limit is None or standing.spent + standing.reserved + want.amount <= want.limit


def deny(which: int, want: Want, slices: Slices, now: int) -> Denied:
    """Say when there will be room for what does not fit, by the *slices* that count *now*."""
    counted = sorted(slices)
    limit = want.limit or 0
    standing = Standing(sum(each.spent for _, each in counted), sum(each.reserved for _, each in counted))
    spent = [(slice_, each.spent) for slice_, each in counted]
    both = [(slice_, each.spent + each.reserved) for slice_, each in counted]
    room_at = _room_at(want.window, both, want.amount - limit, now)
    not_before = _room_at(want.window, spent, want.amount - limit, now)
    return Denied(which, standing, room_at, not_before, now)


def _room_at(window: Window, amounts: Sequence[tuple[int, int]], excess: int, now: int) -> int | None:
    """Return when no more is left of the *amounts* than what would make up for an *excess* of 0."""
    if excess > 0:
        return None
    excess += sum(amount for _, amount in amounts)
    leaving: int | None = now
    for slice_, amount in amounts:
        if excess <= 0:
            break
        excess -= amount
        leaving = window.leaves(slice_)
    return leaving


class Account:
    """What is spent and reserved, slice by slice, and the sums of those that count: they are asked for all the time."""

    __slots__ = ("oldest", "reserved", "slices", "spent", "window")

    def __init__(self, window: Window) -> None:
        self.window = window
        self.slices: dict[int, list[int]] = {}  # spent and reserved
        self.oldest = 0
        self.spent = 0
        self.reserved = 0

    def advance(self, oldest: int) -> None:
        """Count from *oldest* on. What is dated ahead counts as well: a clock may have gone back."""
        self.oldest = oldest
        counted = [amounts for slice_, amounts in self.slices.items() if slice_ >= oldest]
        self.spent = sum(spent for spent, _ in counted)
        self.reserved = sum(reserved for _, reserved in counted)

    def idle(self, now: int) -> bool:
        """Say whether nothing of it has counted for a while, and nothing is reserved."""
        keep = self.window.keep
        return keep is not None and all(slice_ < now - keep and not each[1] for slice_, each in self.slices.items())

    def add(self, slice_: int, spent: int, reserved: int) -> None:
        """Add to both sums."""
        amounts = self.slices.get(slice_)
        if amounts is None:
            amounts = self.slices[slice_] = [0, 0]
            if len(self.slices) > 2 * KEPT:
                for old in sorted(self.slices)[:-KEPT]:
                    del self.slices[old]
                self.advance(self.oldest)
        amounts[0] += spent
        amounts[1] += reserved
        if slice_ >= self.oldest:
            self.spent += spent
            self.reserved += reserved

    def standing(self, oldest: int) -> Standing:
        """Return what counts from *oldest* on."""
        if oldest != self.oldest:
            self.advance(oldest)
        return Standing(self.spent, self.reserved)


class Ledger:
    """Accounts in memory, without a clock and without a lock.

    Attributes:
        accounts: By name.
    """

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self._sweep_at = 1024

    def reserve(self, wants: Sequence[Want], now: int) -> list[int] | Denied:
        """Set aside all that is wanted, or nothing; return the slices in which it was. *now* is in milliseconds."""
        slices: list[int] = []
        for index, want in enumerate(wants):
            slice_, oldest, _ = want.window.at(now)
            account = self.accounts.get(want.account)
            if account is None:
                account = self._open(want, now)
            elif account.oldest != oldest:
                account.advance(oldest)
            if want.limit is not None and account.spent + account.reserved + want.amount > want.limit:
                counted = [(each, Standing(*sums)) for each, sums in account.slices.items() if each >= oldest]
                return deny(index, want, counted, now)
            slices.append(slice_)
        for want, slice_ in zip(wants, slices, strict=True):
            self.accounts[want.account].add(slice_, 0, want.amount)
        return slices

    def settle(self, wants: Sequence[Want], slices: Sequence[int], amounts: Sequence[int], now: int) -> list[Standing]:
        """Put the *amounts* that were spent in place of what was reserved in *slices*; return what counts *now*."""
        standings: list[Standing] = []
        for want, slice_, amount in zip(wants, slices, amounts, strict=True):
            account = self.accounts.get(want.account) or self._open(want, now)
            account.add(slice_, amount, -want.amount if slice_ in account.slices else 0)
            standings.append(account.standing(want.window.at(now).oldest))
        return standings

    def standings(self, wants: Sequence[Want], now: int) -> list[Standing]:
        """Return what counts *now* in each of the accounts."""
        return [
            (self.accounts.get(want.account) or self._open(want, now)).standing(want.window.at(now).oldest)
            for want in wants
        ]

    def _open(self, want: Want, now: int) -> Account:
        if len(self.accounts) >= self._sweep_at:
            # Of tenants that come and go, only those are kept that something counts for; seldom enough to cost nothing.
            idle = [name for name, each in self.accounts.items() if each.idle(now)]
            for name in idle:
                del self.accounts[name]
            self._sweep_at = max(1024, 2 * len(self.accounts))
        account = self.accounts[want.account] = Account(want.window)
        account.advance(want.window.at(now).oldest)
        return account
