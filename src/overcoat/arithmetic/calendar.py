"""The windows that budgets are counted in: sliding ones, those of the calendar in any time zone, and none at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, NamedTuple, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from overcoat.arithmetic.durations import Duration, seconds

Unit = Literal["minute", "hour", "day", "week", "month"]

SLICES = 60
"""Into how many parts a sliding window is cut: how late it is to forget, and how many numbers a store keeps of it."""

_SHORTEST = 60.0
_LONGEST = 366 * 86_400.0
_LAST = 253_370_764_800_000
"""The year 9999, in Unix milliseconds: later there are no dates, and a clock that says so must not end a call."""
_FIXED = {"minute": 60_000, "hour": 3_600_000}
_DAY = 86_400_000


class Slot(NamedTuple):
    """Where a moment lies; all in Unix milliseconds.

    Attributes:
        id: When its slice begins, which is what the slice is called.
        oldest: The first slice that still counts.
        ends: When the next slice begins.
    """

    id: int
    oldest: int
    ends: int


class Window(ABC):
    """Cuts time into slices, and says which ones count at which moment.

    Attributes:
        text: As it is written in a configuration.
        keep: Milliseconds for which a store must not forget what was spent; None is for ever.
    """

    text: str
    keep: int | None

    def __init__(self) -> None:
        self._latest = Slot(1, 1, 0)  # which holds no moment

    def at(self, now: int) -> Slot:
        """Return where *now* lies, in Unix milliseconds."""
        latest = self._latest
        if latest.id <= now < latest.ends:  # to ask the calendar takes ten times as long
            return latest
        self._latest = slot = self._slot(min(max(now, 0), _LAST))
        return slot

    @abstractmethod
    def _slot(self, now: int) -> Slot: ...

    @abstractmethod
    def leaves(self, slice_: int) -> int | None:
        """Return when the slice of that name counts no more, in Unix milliseconds; None is never."""


class Sliding(Window):
    """The last *span* seconds, at every moment.

    What is spent counts for the span, and then for up to a sixtieth of it longer, until its whole slice is due: it may
    be late to leave, but never leaves too early.
    """

    def __init__(self, span: float, text: str) -> None:
        super().__init__()
        self.text = text
        self._length = max(1, -(-int(span * 1000) // SLICES))
        self.keep = max(_DAY, 2 * SLICES * self._length)

    def _slot(self, now: int) -> Slot:
        begins = now - now % self._length
        return Slot(begins, begins - SLICES * self._length, begins + self._length)

    def leaves(self, slice_: int) -> int:
        """Return when the slice counts no more."""
        return slice_ + (SLICES + 1) * self._length


class Calendar(Window):
    """A minute, hour, day, week (from Monday) or month of the calendar in *zone*.

    A day begins at midnight, or at the first moment after it where the clocks skip midnight; so it has 23 or 25 hours
    when they change.
    """

    def __init__(self, unit: Unit, zone: tzinfo) -> None:
        super().__init__()
        self.text = f"calendar {unit}" if zone is UTC else f"calendar {unit} {zone}"
        self.keep = _DAY if unit in _FIXED else 64 * _DAY
        self._unit = unit
        self._zone = zone

    def _slot(self, now: int) -> Slot:
        if (length := _FIXED.get(self._unit)) is not None:
            begins = now - now % length
            return Slot(begins, begins, begins + length)
        # Without the offset, so that what is added are days on the wall and not hours.
        day = datetime.fromtimestamp(now / 1000, self._zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self._unit == "week":
            day -= timedelta(days=day.weekday())
        elif self._unit == "month":
            day = day.replace(day=1)
        begins = _milliseconds(day)
        return Slot(begins, begins, _milliseconds(self._next(day)))

    def _next(self, day: datetime) -> datetime:
        if self._unit == "month":
            return (day + timedelta(days=31)).replace(day=1)
        return day + timedelta(days=7 if self._unit == "week" else 1)

    def leaves(self, slice_: int) -> int:
        """Return when the next one begins."""
        return self.at(slice_).ends


class Ever(Window):
    """All of time: what is spent counts for ever."""

    text = "ever"
    keep = None

    def _slot(self, now: int) -> Slot:  # noqa: ARG002 - all moments are one
        return Slot(0, 0, _LAST + 1)

    def leaves(self, slice_: int) -> None:
        """Return None."""


def parse_window(window: Duration | None, zone: str | None, name: str) -> Window:
    """Return the window that a configuration names.

    Args:
        window: Seconds or text such as "1h" for a sliding one, from a minute to a year; "calendar day" and its like;
            None for none.
        zone: The IANA name of a time zone, for days, weeks and months of the calendar; None is UTC.
        name: What it belongs to, for the errors, such as "Budget".

    Raises:
        TypeError: *window* is neither a number nor text.
        ValueError: It is none of these, or *zone* is unknown or of no use.
    """
    calendar, _, unit = window.partition(" ") if isinstance(window, str) else ("", "", "")
    if calendar == "calendar":
        if unit not in get_args(Unit):
            units = ", ".join(f'"calendar {each}"' for each in get_args(Unit))
            raise ValueError(f"{name}(window={window!r}): expected one of {units}")
        if zone is not None and unit in _FIXED:
            raise ValueError(f"{name}(zone={zone!r}): a {window} is the same everywhere; leave the zone out")
        return Calendar(cast("Unit", unit), _zone(zone, name))
    if zone is not None:
        raise ValueError(f'{name}(zone={zone!r}): only a window such as "calendar day" has a zone, not {window!r}')
    if window is None:
        return Ever()
    span = seconds(window, f"{name}(window=...)")
    if not _SHORTEST <= span <= _LONGEST:
        raise ValueError(f'{name}(window={window!r}): expected "1m" to "366d", or a window such as "calendar month"')
    return Sliding(span, window if isinstance(window, str) else f"{window:g}s")


def _zone(zone: str | None, name: str) -> tzinfo:
    if zone is None or zone == "UTC":
        return UTC
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise ValueError(
            f'{name}(zone={zone!r}): no such time zone; expected a name such as "Europe/Warsaw"'
        ) from error


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
