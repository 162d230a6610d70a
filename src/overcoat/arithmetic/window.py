"""Sums over the last so many seconds, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

Slices = list[tuple[float, float, int, int]]
"""A window written down: of each slice, the oldest first, when it began, its last addition, and both sums."""

SLICES = 100
"""Into how many parts a window is cut: how exact it is, and how much memory it takes at most."""


@dataclass(slots=True, eq=False)
class Slice:
    """What was added from `begun` until `last`, in seconds; it leaves the window as a whole.

    `counted` says whether it is still in it.
    """

    begun: float
    last: float
    count: int = 0
    weight: int = 0
    counted: bool = True


class Window:
    """Two sums over the last *span* seconds: how many there were, and how much they weighed.

    What is added counts for *span* seconds, and then for less than a hundredth of that longer: what came that close
    together leaves together, when the last of it is due. So a sum may be late to shrink, but never says too little.
    A clock that goes back, as those of two threads may seem to, does no harm.

    Args:
        span: Seconds.

    Attributes:
        slices: The oldest first, at most a hundred and one.
        count: The first sum.
        weight: The second one.
    """

    __slots__ = ("_closes", "_span", "count", "slices", "weight")

    def __init__(self, span: float) -> None:
        self.slices: deque[Slice] = deque()
        self.count = 0
        self.weight = 0
        self._span = span
        self._closes = float("-inf")

    def add(self, now: float, count: int, weight: int) -> Slice:
        """Add to both sums, and return the slice by which that can be corrected."""
        self.expire(now)
        if now < self._closes:
            current = self.slices[-1]
            current.last = max(current.last, now)
        else:
            current = Slice(now, now)
            self.slices.append(current)
            self._closes = now + self._span / SLICES
        current.count += count
        current.weight += weight
        self.count += count
        self.weight += weight
        return current

    def correct(self, slice_: Slice, count: int, weight: int) -> None:
        """Add to what was added then, as if it had been known; of no effect once that has left the window."""
        if slice_.counted:
            slice_.count += count
            slice_.weight += weight
            self.count += count
            self.weight += weight

    def dump(self) -> Slices:
        """Return what `load` makes an equal window of."""
        return [(each.begun, each.last, each.count, each.weight) for each in self.slices]

    @classmethod
    def load(cls, span: float, slices: Slices) -> Window:
        """Return a window of *span* with what was written down."""
        window = cls(span)
        for begun, last, count, weight in slices:
            window.slices.append(Slice(begun, last, count, weight))
            window.count += count
            window.weight += weight
        if slices:
            window._closes = slices[-1][0] + span / SLICES
        return window

    def begun_at(self, begun: float) -> Slice | None:
        """Return the slice that began then, as only one ever did; None where it has left the window."""
        return next((each for each in self.slices if each.begun == begun), None)

    def stretch(self, span: float) -> None:
        """Become a window of another *span*, in which what was added counts as well, where it is not forgotten yet."""
        self._span = span

    def expire(self, now: float) -> None:
        """Let go what is due."""
        slices = self.slices
        while slices and slices[0].last + self._span <= now:
            gone = slices.popleft()
            gone.counted = False
            self.count -= gone.count
            self.weight -= gone.weight
