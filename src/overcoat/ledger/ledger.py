"""`Ledger`: where calls are written as they end, and read from when they are summed up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from overcoat.layer import Level, Reply, Request
from overcoat.ledger.costs import Costs, costs
from overcoat.ledger.database import MEMORY, Database, parse_url
from overcoat.ledger.entries import Entry, entries_of
from overcoat.ledger.focus import TAGS, Charge, charges
from overcoat.ledger.writer import Writer
from overcoat.record import Attempt, Call

MOST_PENDING = 50_000
"""Calls that are kept while the database is away; each takes some 1.5 kB."""


class Ledger:
    """A ledger of calls, in a database. It observes calls for `Meter`, and sums them up.

    A call is put on a queue when it ends, and written by a thread of the ledger's own within a second, at `flush` and
    `close`, and at the end of the process. While the database is away, calls are kept, and written when it is back;
    beyond `MOST_PENDING` they are dropped, which `dropped` counts and the log says. No call ever waits or fails for its
    ledger. What is written survives whatever ends the process; of a process that is killed, the last second is lost.
    All methods but `add` block: on an event loop, use `asyncio.to_thread`.

    Many processes can write to one ledger. One that is forked begins with an empty queue, and a ledger in memory with
    an empty one: what was on the queue is written by the process that it was forked from.

    Args:
        url: "sqlite:///costs.db", the path of such a file, or "postgresql://USER@HOST/DATABASE". By default a new one
            in memory, which ends with this object.
        service: Whose calls these are, by default what OTEL_SERVICE_NAME says.
        read_only: Whether it is only summed up; it must then be there. `read` checks that at once.

    Raises:
        LedgerError: The URL is not one of these, or there is no such folder. That the database is away is no error.
        ImportError: psycopg is not installed, for Postgres.
    """

    def __init__(
        self, url: str | os.PathLike[str] = MEMORY, *, service: str | None = None, read_only: bool = False
    ) -> None:
        self._database = Database(parse_url(url), writable=not read_only)
        self._service = service or os.environ.get("OTEL_SERVICE_NAME")
        self._writer: Writer[tuple[Call, Attempt | None], Entry] = Writer(
            self._entries_of, self._database.write, name=f"the ledger {self._database}", most_pending=MOST_PENDING
        )
        _ledgers.add(self)

    @classmethod
    def read(cls, url: str | os.PathLike[str]) -> Ledger:
        """Return the ledger at *url* for reading only.

        Raises:
            LedgerError: It is not there, is no ledger, or is one of another version.
            ImportError: As for `Ledger`.
        """
        ledger = cls(url, read_only=True)
        with ledger._database.reading():
            return ledger

    @classmethod
    def shared(cls, url: str | os.PathLike[str]) -> Ledger:
        """Return this process's ledger at *url*, the same one for all who ask, so that it has one queue and one thread.

        Raises:
            LedgerError: As for `Ledger`.
            ImportError: Likewise.
        """
        key = parse_url(url).render_as_string(hide_password=False)
        with _sharing:
            known = _shared.get(key)
            if known is None:
                known = _shared[key] = cls(url)
        return known

    @property
    def pending(self) -> int:
        """How many calls are not written yet."""
        return self._writer.pending

    @property
    def dropped(self) -> int:
        """How many calls this process could not keep until they were written."""
        return self._writer.dropped

    def add(self, call: Call, answered_by: Attempt | None) -> None:
        """Have *call*, which has ended, written soon; *answered_by* is the attempt whose answer the caller got."""
        self._writer.add((call, answered_by))

    def flush(self) -> None:
        """Write all calls that have ended.

        Raises:
            LedgerError: The database is away, locked or full, or is no ledger of this version; the calls are kept.
        """
        self._writer.flush()

    def close(self) -> None:
        """Write all calls that have ended, and give up thread and connections; the next call makes them again.

        Raises:
            LedgerError: As for `flush`.
        """
        try:
            self._writer.close()
        finally:
            self._database.close()

    def costs(
        self, by: Sequence[str] = (), *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Costs]:
        """Sum up the calls that began from *since* on and before *until*, grouped by `DIMENSIONS`.

        Groups by day or hour come in the order of time, others the dearest first. Each call's dollars are in exactly
        one group, also where it used several models, so that `total` of the groups is the sum of all calls.

        Args:
            by: What to group by, such as "model", "provider", "policy", "day" (in UTC) or "tag.tenant".
            since: With a time zone.
            until: With a time zone.

        Raises:
            LedgerError: As for `flush`.
            ValueError: Costs cannot be grouped by these, or a time has no zone.
        """
        self.flush()
        with self._database.reading() as connection:
            return costs(connection, by, since, until)

    def charges(
        self, tags: Sequence[str] = TAGS, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[Charge]:
        """Sum up the same calls as rows of FinOps' FOCUS, for tools of finance; see `overcoat.ledger.focus`.

        Args:
            tags: Which tags tell rows apart and are in them. Those that differ with every call make each call a row.
            since: With a time zone.
            until: With a time zone.

        Raises:
            LedgerError: As for `flush`.
            ValueError: A tag has no name or is there twice, or a time has no zone.
        """
        self.flush()
        with self._database.reading() as connection:
            return charges(connection, tags, since, until)

    def started(self, level: Level, request: Request) -> None:
        """Do nothing: a call is written when it has ended."""

    def ended(self, level: Level, request: Request, reply: Reply | None, begun: Any) -> None:  # noqa: ARG002 - Observer
        """Add the call that has ended, as an observer of calls."""
        if level == "call":
            self._writer.add((request.call, reply.attempt if reply else None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._database)!r})"

    def _entries_of(self, item: tuple[Call, Attempt | None]) -> list[Entry]:
        return entries_of(*item, self._service)

    def _begin_anew(self) -> None:
        self._writer.begin_anew()
        self._database.begin_anew()


_ledgers: WeakSet[Ledger] = WeakSet()
_shared: dict[str, Ledger] = {}
_sharing = Lock()


def _after_fork() -> None:
    global _sharing  # noqa: PLW0603 - another thread may have held it, which is not in this process
    _sharing = Lock()
    for ledger in _ledgers:
        ledger._begin_anew()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - it is this module's


if hasattr(os, "register_at_fork"):  # which Windows has not
    os.register_at_fork(after_in_child=_after_fork)
