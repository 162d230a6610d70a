"""What `overcoat cache` does: say what lies in a store, and remove some of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from heapq import nlargest
from typing import Any, Literal, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from overcoat.arithmetic.durations import seconds
from overcoat.errors import PolicyError, StoreUnavailable
from overcoat.stores import open_store
from overcoat.stores.inspection import Condition, Finding, InspectableStore, Statistics, findings, purge, statistics
from overcoat.stores.redis import RedisStore
from overcoat.stores.sqlite import SQLiteStore

OK, FAILED, MISUSED = 0, 1, 2

Format = Literal["table", "json"]

_WIDEST = 1000  # a table is as wide as it must be: in a terminal lines wrap, and in a file they stay
_SHORT_KEY = 12
_NO_VALUE = "-"
_CONDITIONS: tuple[Condition, ...] = get_args(Condition)


def run_stats(url: str, *, namespace: str | None = None, format: Format = "table") -> int:  # noqa: A002 - the option's name
    """Print how much lies in a store, by namespace; return the exit code.

    Args:
        url: Of the store.
        namespace: Only this one.
        format: "table" for people, "json" for programs.

    Returns:
        0; 1 where the store cannot be read, and 2 where the URL makes no sense, with the reason on stderr.
    """

    async def main(store: InspectableStore) -> int:
        found = await statistics(store, time.time(), namespace)
        if format == "json":
            _print_json([{"namespace": name, **_summary(each)} for name, each in found.items()])
        else:
            _print_statistics(found)
        return OK

    return _run(url, main)


def run_ls(url: str, *, namespace: str | None = None, limit: int = 50, format: Format = "table") -> int:  # noqa: A002
    """Print the newest entries of a store; return the exit code.

    Args:
        url: Of the store.
        namespace: Only of this one.
        limit: How many.
        format: "table" for people, "json" for programs.

    Returns:
        As `run_stats`.
    """

    async def main(store: InspectableStore) -> int:
        now = time.time()
        found = [each async for each in findings(store, now, namespace)]
        newest = nlargest(limit, found, key=lambda each: (each.created or 0.0, each.namespace, each.key))
        if format == "json":
            _print_json([_details(each) for each in newest])
        else:
            _print_entries(newest, now)
            if len(newest) < len(found):
                sys.stdout.write(f"the newest {len(newest)} of {len(found)} entries\n")
        return OK

    return _run(url, main)


def run_show(
    url: str,
    key: str,
    *,
    namespace: str | None = None,
    content: bool = False,
    format: Format = "table",  # noqa: A002
) -> int:
    """Print what is known of an entry; return the exit code.

    Args:
        url: Of the store.
        key: Of the entry, or enough of its beginning to tell it from the others.
        namespace: Where it is looked for, instead of everywhere.
        content: Whether the answer itself, and the fields of the event, are printed.
        format: "table" for people, "json" for programs.

    Returns:
        As `run_stats`; 1 as well where there is no such entry, or more than one.
    """

    async def main(store: InspectableStore) -> int:
        found = [each async for each in findings(store, time.time(), namespace) if each.key.startswith(key)]
        if len(found) != 1:
            names = "".join(f"\n  {_printable(each.key)} in {_printable(each.namespace)!r}" for each in found)
            return _fail(f"{len(found) or 'no'} entries begin with {key!r}{names}", FAILED)
        details = _details(found[0])
        if content and (answer := found[0].answer) is not None:
            details |= {"fields": answer.fields, "text": answer.text}
        if format == "json":
            _print_json(details)
        else:
            _print_details(details)
        return OK

    return _run(url, main)


def run_purge(
    url: str,
    *,
    namespace: str | None = None,
    older_than: str | None = None,
    everything: bool = False,
    format: Format = "table",  # noqa: A002 - the option's name
) -> int:
    """Remove entries from a store; print how many, and return the exit code.

    Without an age, what processes are about to set in these namespaces is forgotten as well, and what is without a
    known age is only removed so.

    Args:
        url: Of the store.
        namespace: Only of this one.
        older_than: Only what was made longer ago, such as "7d".
        everything: That neither is meant to be given.
        format: "table" for people, "json" for programs.

    Returns:
        As `run_stats`; 2 as well where it is not said what to remove.
    """
    if everything == (namespace is not None or older_than is not None):
        return _fail("what is to be removed? Say --namespace, --older-than or both, or else --all", MISUSED)
    try:
        age = None if older_than is None else seconds(older_than, "--older-than", zero=True)
    except ValueError as error:
        return _fail(error, MISUSED)

    async def main(store: InspectableStore) -> int:
        now = time.time()
        if age is None:
            for each in await statistics(store, now) if namespace is None else [namespace]:
                await store.invalidate(each)

        def unwanted(found: Finding) -> bool:
            if namespace is not None and found.namespace != namespace:
                return False
            return age is None or (found.created is not None and now - found.created >= age)

        removed = await purge(store, unwanted, now)
        if format == "json":
            _print_json({"removed": removed})
        else:
            sys.stdout.write(f"{removed} {'entry' if removed == 1 else 'entries'} removed\n")
        return OK

    return _run(url, main)


def _run(url: str, main: Callable[[InspectableStore], Awaitable[int]]) -> int:
    try:
        store = open_store(url)
    except PolicyError as error:
        return _fail(error, MISUSED)
    except ImportError as error:  # redis, which is an extra; the message says how to get it
        return _fail(error, FAILED)
    if not isinstance(store, (SQLiteStore, RedisStore)):
        return _fail("a store in memory is its process's alone, and not to be seen from here", MISUSED)
    if isinstance(store, SQLiteStore) and not store.path.exists():  # it would be made, by a mistyped name
        return _fail(f"there is no {store.path}", FAILED)

    async def closing() -> int:
        try:
            return await main(store)
        finally:
            await store.close()

    try:
        return asyncio.run(closing())
    except StoreUnavailable as error:
        return _fail(f"{error} ({error.__cause__})" if error.__cause__ else error, FAILED)


def _fail(reason: object, code: int) -> int:
    print(f"overcoat: {reason}", file=sys.stderr)
    return code


def _summary(found: Statistics) -> dict[str, Any]:
    return {
        "entries": found.entries,
        "bytes": found.size,
        **{condition: found.conditions[condition] for condition in _CONDITIONS},
        "reasons": dict(found.unreadable),
        "oldest": _moment(found.oldest),
        "newest": _moment(found.newest),
        "cost": str(found.cost),
    }


def _details(found: Finding) -> dict[str, Any]:
    answer = found.answer
    details: dict[str, Any] = {
        "namespace": found.namespace,
        "key": found.key,
        "condition": found.condition,
        "bytes": found.size,
        "expires": _moment(found.expires),
    }
    if answer is None:
        return details | {"reason": found.content}
    return details | {
        "created": _moment(answer.created),
        "fresh_until": _moment(answer.fresh_until),
        "model": answer.model,
        "usage": None
        if answer.usage is None
        else {name: n for name, n in asdict(answer.usage).items() if n is not None},
        "cost": None if answer.cost is None else str(answer.cost),
        "trace_id": answer.trace[0] if answer.trace else None,
        "span_id": answer.trace[1] if answer.trace else None,
        "characters": len(answer.text),
    }


def _print_json(found: object) -> None:
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _print_statistics(found: Mapping[str, Statistics]) -> None:
    rows = [
        [
            name,
            str(each.entries),
            _size(each.size),
            *(str(each.conditions[condition] or _NO_VALUE) for condition in _CONDITIONS),
            _moment(each.oldest) or _NO_VALUE,
            _moment(each.newest) or _NO_VALUE,
            f"${each.cost:f}",
        ]
        for name, each in found.items()
    ]
    _print_table(["namespace"], ["entries", "size", *_CONDITIONS, "oldest", "newest", "cost"], rows)


def _print_entries(found: Iterable[Finding], now: float) -> None:
    rows: list[list[str]] = []
    for each in found:
        answer = each.answer
        usage = answer.usage if answer else None
        rows.append(
            [
                each.key[:_SHORT_KEY],
                each.namespace,
                (answer.model if answer else None) or _NO_VALUE,
                f"{each.condition}: {each.content}" if each.condition == "unreadable" else each.condition,
                _NO_VALUE if each.created is None else _duration(now - each.created),
                _duration(each.expires - now),
                _size(each.size),
                _NO_VALUE if usage is None else f"{usage.input_tokens or 0} + {usage.output_tokens or 0}",
                _NO_VALUE if answer is None or answer.cost is None else f"${answer.cost:f}",
            ]
        )
    _print_table(["key", "namespace", "model", "condition"], ["age", "expires in", "size", "tokens", "cost"], rows)


def _print_table(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    Console(width=_WIDEST, highlight=False).print(table if rows else "no entries")


def _print_details(details: Mapping[str, Any]) -> None:
    text = details.get("text")
    for name, value in details.items():
        if name != "text":
            shown = _NO_VALUE if value is None else json.dumps(value) if isinstance(value, dict) else str(value)
            sys.stdout.write(f"{name:<12} {_printable(shown)}\n")
    if text is not None:
        sys.stdout.write(f"\n{_printable(text, lines=True)}\n")


def _printable(text: str, *, lines: bool = False) -> str:
    """Return *text* without what a terminal would obey: models and tenants write it."""
    return "".join(
        each if each.isprintable() or (lines and each in "\n\t") else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.{0 if unit == 'B' else 1}f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _duration(seconds: float) -> str:
    """Return a time in the largest unit of which it has two."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _moment(unix: float | None) -> str | None:
    try:
        return None if unix is None else datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError):  # beyond the year 9999
        return str(unix)
