"""Sums over the ledger's entries, made by the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, case, func, or_, select

from overcoat.arithmetic.dollars import EXACT
from overcoat.ledger.entries import TOKENS, dollars, tag_key
from overcoat.ledger.tables import entries

_COLUMNS = (
    *("model", "provider", "client", "service", "policy", "digest"),
    *("outcome", "error_type", "cache", "price_source", "anomaly"),
)
_PERIODS: Mapping[str, tuple[int, str]] = {"hour": (3600, "%Y-%m-%dT%H:00Z"), "day": (86400, "%Y-%m-%d")}
"""In seconds, and how one is written."""
_TAG = "tag."

DIMENSIONS: Sequence[str] = (*_COLUMNS, *_PERIODS, f"{_TAG}NAME")
"""What costs can be grouped by."""

_MONEY = ("billed", "saved", "wasted")
_HALF = 10**9
"""Amounts are summed in two halves: SQLite's sums end at 2^63, which is nine million dollars."""


class Costs(NamedTuple):
    """What the calls of one group used and cost.

    Attributes:
        by: The group: a value for each thing that was asked for, in that order; None where the calls have none.
        calls: Calls; one that used several models is counted with the model that it was made to.
        attempts: Requests that were sent to providers.
        input_tokens: That providers charged for; None where none were reported, as in the next four.
        output_tokens: Likewise.
        cache_read_input_tokens: A part of the input.
        cache_creation_input_tokens: A part of the input.
        reasoning_output_tokens: A part of the output.
        billed: Dollars, as far as prices are known; None where none is but those of answers that cost nothing.
        saved: Dollars that stored and shared answers would have cost, likewise; None where none is known.
        wasted: The part of `billed` that bought no answer, likewise.
        unpriced: Calls of which a price is unknown: the dollars are too low by them. One that used several models
            counts for each of them whose price is unknown.
        upper_bound: Calls, likewise, whose dollars may be too high: nobody said how much of their input was cached.
    """

    by: Mapping[str, str | None]
    calls: int
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cache_read_input_tokens: int | None
    cache_creation_input_tokens: int | None
    reasoning_output_tokens: int | None
    billed: Decimal | None
    saved: Decimal | None
    wasted: Decimal | None
    unpriced: int
    upper_bound: int


NOTHING = Costs({}, 0, 0, None, None, None, None, None, None, None, None, 0, 0)


def total(rows: Sequence[Costs]) -> Costs:
    """Return the sum of *rows*, exactly; its `by` is empty."""
    if not rows:
        return NOTHING
    columns: list[Any] = [_sum(column) for column in zip(*(row[1:] for row in rows), strict=True)]
    return _honest(Costs({}, *columns))


def of_tag(name: str) -> str:
    """Return what costs are grouped by for the tag of that *name*."""
    return f"{_TAG}{name}"


def check_dimensions(by: Iterable[str]) -> None:
    """Check that costs can be grouped by all of these.

    Raises:
        ValueError: By one of them they cannot, or it is there twice.
    """
    seen: set[str] = set()
    for name in by:
        if name not in _COLUMNS and name not in _PERIODS and not (name.startswith(_TAG) and name != _TAG):
            raise ValueError(f"costs cannot be grouped by {name!r}; expected some of {', '.join(DIMENSIONS)}")
        if name in seen:
            raise ValueError(f"costs are grouped by {name!r} twice")
        seen.add(name)


def costs(
    connection: Connection, by: Sequence[str], since: datetime | None = None, until: datetime | None = None
) -> list[Costs]:
    """Return what calls cost that began from *since* on and before *until*, for each group of them.

    By periods they come in the order of time, else the dearest first.

    Raises:
        ValueError: As `check_dimensions` does, or a time has no zone.
    """
    check_dimensions(by)
    found = [
        sums._replace(by={name: _written(name, value) for name, value in zip(by, keys, strict=True)})
        for keys, sums in sums_by(connection, [dimension(name) for name in by], since, until)
    ]
    if any(name in _PERIODS for name in by):
        return sorted(found, key=_names)
    return sorted(found, key=lambda row: (-(row.billed or 0), -row.calls, _names(row)))


def sums_by(
    connection: Connection, keys: Sequence[ColumnElement[Any]], since: datetime | None, until: datetime | None
) -> list[tuple[Sequence[Any], Costs]]:
    """Return each combination of values of *keys*, and the sums of the entries that have it; they are by nothing yet.

    Raises:
        ValueError: A time has no zone.
    """
    # By a subquery's columns: to Postgres, an expression with parameters is another one where it stands again.
    wanted = select(*(key.label(f"key{place}") for place, key in enumerate(keys)), *_summed)
    if since is not None:
        wanted = wanted.where(entries.c.started >= _milliseconds(since))
    if until is not None:
        wanted = wanted.where(entries.c.started < _milliseconds(until))
    rows = wanted.subquery().c
    groups = [rows[f"key{place}"] for place in range(len(keys))]
    query = (
        select(
            *groups,
            _number_of(rows.entry == 0),
            func.sum(rows.attempts),
            *(func.sum(rows[name]) for name in TOKENS),
            *(func.sum(half) for name in _MONEY for half in (rows[name] // _HALF, rows[name] % _HALF)),
            _number_of(or_(*(rows[name].is_(None) for name in _MONEY))),
            _number_of(rows.upper_bound),
        )
        .group_by(*groups)
        .having(func.count() > 0)  # where there are no groups, nothing is one, too
    )
    return [(row[: len(keys)], _read(row[len(keys) :])) for row in connection.execute(query)]


def beginning(name: str, number: int) -> datetime:
    """Return when the hour or the day of that *number* began."""
    return datetime.fromtimestamp(number * _PERIODS[name][0], UTC)


def written_period(name: str, moment: datetime) -> str:
    """Return the hour or the day that *moment* is in, as `Costs.by` has it."""
    return moment.strftime(_PERIODS[name][1])


_summed = [entries.c[name] for name in ("entry", "attempts", *TOKENS, *_MONEY, "upper_bound")]


def dimension(name: str) -> ColumnElement[Any]:
    """Return the key for `sums_by` of one of `DIMENSIONS`; hours and days are counted from 1970, UTC."""
    if name.startswith(_TAG):
        tag: ColumnElement[Any] = entries.c.tags[tag_key(name.removeprefix(_TAG))].as_string()
        return tag
    return entries.c.started // (_PERIODS[name][0] * 1000) if name in _PERIODS else entries.c[name]


def _written(name: str, value: Any) -> str | None:
    return written_period(name, beginning(name, value)) if name in _PERIODS else value


def _names(row: Costs) -> list[tuple[bool, str]]:
    return [(value is not None, value or "") for value in row.by.values()]


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


def _read(sums: Sequence[Any]) -> Costs:
    # What is an integer in SQLite is a decimal in Postgres, whose sums have no end.
    whole = [None if value is None else int(value) for value in sums]
    counts, halves, rest = whole[: 2 + len(TOKENS)], whole[2 + len(TOKENS) : -2], whole[-2:]
    money = [
        None if high is None or low is None else dollars(high * _HALF + low)
        for high, low in zip(halves[::2], halves[1::2], strict=True)
    ]
    columns: list[Any] = [*counts, *money, *rest]
    return _honest(Costs({}, *columns))


def _honest(sums: Costs) -> Costs:
    # Hits of a model without a price are billed 0, and that is not what the model costs.
    return sums._replace(billed=None) if sums.unpriced and not sums.billed else sums


def _sum(values: Iterable[Any]) -> Any:
    """Return the sum of what is not None; None where all is."""
    whole = None
    for value in values:
        if value is not None:
            whole = value if whole is None else EXACT.add(whole, value) if isinstance(value, Decimal) else whole + value
    return whole


def _milliseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; expected one, such as UTC")
    return round(moment.timestamp() * 1000)
