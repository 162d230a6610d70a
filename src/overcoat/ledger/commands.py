"""What `overcoat costs` does."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from overcoat.arithmetic.dollars import EXACT
from overcoat.arithmetic.durations import seconds
from overcoat.errors import OvercoatError
from overcoat.ledger.costs import Costs, check_dimensions, of_tag, total, written_period
from overcoat.ledger.focus import COLUMNS, TAGS
from overcoat.ledger.ledger import Ledger

OK, FAILED, MISUSED = 0, 1, 2
LEDGER = "OVERCOAT_LEDGER"
"""Names the ledger where the command line names none."""

Format = Literal["table", "csv", "json", "focus"]
FORMATS: Sequence[Format] = ("table", "csv", "json", "focus")

_ALL = "all"
_WIDEST, _WIDEST_KEY = 1000, 40  # a table is as wide as it must be: in a terminal lines wrap, and in a file they stay
_NO_VALUE = "-"
_DAYS_BY_HOUR = 2  # at most these are drawn hour by hour
_STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}


def run_costs(
    ledger: str | None,
    *,
    by: str = "model",
    since: str | None = None,
    until: str | None = None,
    format: Format = "table",  # noqa: A002 - the option's name
    tags: str = ",".join(TAGS),
    plot: bool = False,
    width: int = 80,
    now: datetime | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Print what the calls in a ledger cost; return the exit code.

    Args:
        ledger: A path or a URL; None takes what OVERCOAT_LEDGER names.
        by: What to group by, separated by commas; "" for all calls together.
        since: From when on: a duration before *now* such as "7d", or a date or time by ISO 8601, in UTC without a zone.
        until: Before when, likewise.
        format: "table" for people; "csv" and "json" for programs, with all digits; "focus" for tools of finance.
        tags: Which tags are in the rows of "focus", separated by commas; "" for none.
        plot: Whether a table is followed by bars of what was billed over time.
        width: Of the plot, in columns.
        now: By default the present.
        environment: By default that of the process.

    Returns:
        0; 1 where the ledger cannot be read, and 2 where an argument makes no sense, with the reason on stderr.
    """
    now = now or datetime.now(UTC)
    groups, named_tags = _names(by), _names(tags)
    try:
        check_dimensions(groups)
        check_dimensions(map(of_tag, named_tags))
        first, last = _moment(since, "--since", now), _moment(until, "--until", now)
    except ValueError as error:
        return _fail(error, MISUSED)
    named = ledger or (os.environ if environment is None else environment).get(LEDGER)
    if not named:
        return _fail(f"which ledger? Name its file or its URL, here or in {LEDGER}", MISUSED)
    try:
        book = Ledger.read(named)
        if format == "focus":
            _print_csv(COLUMNS, (row.values() for row in book.charges(named_tags, since=first, until=last)))
            return OK
        rows = book.costs(groups, since=first, until=last)
        if format == "csv":
            _print_csv([*groups, *Costs._fields[1:]], ([*row.by.values(), *row[1:]] for row in rows))
        elif format == "json":
            _print_json(groups, rows, first, last)
        else:
            console = Console(width=_WIDEST, highlight=False)
            _print_table(console, groups, rows)
            if plot:
                _print_plot(console, *_over_time(book, first, last), width)
    except (OvercoatError, ImportError) as error:
        return _fail(error, FAILED)
    return OK


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _fail(reason: object, code: int) -> int:
    print(f"overcoat: {reason}", file=sys.stderr)
    return code


def _moment(text: str | None, option: str, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - timedelta(seconds=seconds(text, option, zero=True))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{option}: {text!r} is neither a duration, such as 7d or 12h, nor a date or time, such as 2026-11-23"
            ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_csv(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(value) for value in row] for row in rows)


def _print_json(groups: Sequence[str], rows: Sequence[Costs], since: datetime | None, until: datetime | None) -> None:
    document = {
        "by": groups,
        "since": _plain(since),
        "until": _plain(until),
        "rows": [_object(row) for row in rows],
        "total": _object(total(rows)),
    }
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _object(row: Costs) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row._asdict().items()}


def _plain(value: Any) -> Any:
    """Return *value* as JSON and CSV have it: amounts are text, since a reader's floats would lose digits."""
    if isinstance(value, Decimal):
        return _digits(value)
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _digits(amount: Decimal) -> str:
    return f"{amount.normalize(EXACT):f}"


def _print_table(console: Console, groups: Sequence[str], rows: Sequence[Costs]) -> None:
    if not rows:
        console.print("no calls")
        return
    whole = total(rows)
    table = Table(box=None, pad_edge=False, show_footer=True)
    for place, name in enumerate(groups or [""]):
        table.add_column(_printable(name), footer=_ALL if place == 0 else "", max_width=_WIDEST_KEY, overflow="fold")
    columns: dict[str, list[str]] = {
        "calls": [f"{row.calls:,}" for row in (*rows, whole)],
        "attempts": [f"{row.attempts:,}" for row in (*rows, whole)],
        "tokens in": [_tokens(row.input_tokens) for row in (*rows, whole)],
        "tokens out": [_tokens(row.output_tokens) for row in (*rows, whole)],
        "billed": [_dollars(row.billed) for row in (*rows, whole)],
        "saved": [_dollars(row.saved) for row in (*rows, whole)],
        "wasted": [_dollars(row.wasted) for row in (*rows, whole)],
        "": [_notes(row) for row in (*rows, whole)],
    }
    for name, cells in columns.items():
        table.add_column(name, footer=cells[-1], justify="right" if name else "left", no_wrap=bool(name))
    for place, row in enumerate(rows if groups else ()):  # where there are none, the total is the row
        table.add_row(*map(_printable, row.by.values()), *(cells[place] for cells in columns.values()))
    console.print(table)


def _notes(row: Costs) -> str:
    notes = [f"+ {row.unpriced:,} {_calls(row.unpriced)} of unknown price"] if row.unpriced else []
    if row.upper_bound:
        notes.append(f"at most: of {row.upper_bound:,} {_calls(row.upper_bound)} nobody said what was cached")
    return "; ".join(notes)


def _calls(number: int) -> str:
    return "call" if number == 1 else "calls"


def _tokens(number: int | None) -> str:
    return _NO_VALUE if number is None else f"{number:,}"


def _dollars(amount: Decimal | None) -> str:
    if amount is None:
        return _NO_VALUE
    return "$0" if not amount else f"${amount:,.2f}" if amount >= 100 else f"${amount:,.6f}"


def _printable(value: str | None) -> Text:
    # A tag may come from a user, and a terminal obeys what is not printable.
    return Text(_NO_VALUE if value is None else "".join(char if char.isprintable() else "\ufffd" for char in value))


def _over_time(book: Ledger, since: datetime | None, until: datetime | None) -> tuple[str, Sequence[Costs]]:
    """Return costs by day or, where these are few, by hour, and which it is."""
    days = book.costs(["day"], since=since, until=until)
    if len(_periods("day", days)) > _DAYS_BY_HOUR:
        return "day", days
    return "hour", book.costs(["hour"], since=since, until=until)


def _print_plot(console: Console, name: str, rows: Sequence[Costs], width: int) -> None:
    """Print a bar of what was billed for each hour or day; the part that was wasted is drawn lighter."""
    if not rows:
        return
    amounts = {row.by[name]: (row.billed or Decimal(0), row.wasted or Decimal(0)) for row in rows}
    periods = _periods(name, rows)
    most = max(billed for billed, _ in amounts.values())
    room = max(10, width - len(periods[0]) - max(len(_dollars(billed)) for billed, _ in amounts.values()) - 3)
    full, light = ("#", "-") if console.options.ascii_only else ("█", "░")
    console.print()
    for written in periods:
        billed, wasted = amounts.get(written, (Decimal(0), Decimal(0)))
        length, lost = (round(room * part / most) if most else 0 for part in (billed, wasted))
        bar = Text.assemble((full * (length - lost), "green"), (light * lost, "red"))
        console.print(Text.assemble(written, "  ", bar, " " if length else "", _dollars(billed)))


def _periods(name: str, rows: Sequence[Costs]) -> Sequence[str]:
    """Return all hours or days that *rows* lie in, those without calls included, as `Costs.by` has them."""
    if not rows:
        return ()
    begin, end = (datetime.fromisoformat(str(row.by[name])) for row in (rows[0], rows[-1]))
    return [written_period(name, begin + _STEPS[name] * place) for place in range((end - begin) // _STEPS[name] + 1)]
