"""Budgets in a SQLite file, for all processes of one machine: each step is one transaction, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from overcoat.arithmetic.reservation import KEPT, Denied, Standing, Want, deny, fits
from overcoat.budgets import Held, Settled
from overcoat.budgets.remote import LEASE, RETENTION, RemoteBudgets
from overcoat.errors import StoreUnavailable

T = TypeVar("T")

_PATIENCE = 5.0
"""Seconds to wait for the other processes' transactions, which take a fraction of a millisecond each."""

_SWEEP = 3_600_000
"""Milliseconds between two looks for accounts that nothing counts in any more."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS slices (
    account TEXT, slice INTEGER, spent INTEGER NOT NULL, reserved INTEGER NOT NULL, forget INTEGER,
    PRIMARY KEY (account, slice)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS slices_forget ON slices (forget);
CREATE TABLE IF NOT EXISTS reservations (
    id TEXT, part INTEGER, account TEXT, slice INTEGER, amount INTEGER, expires INTEGER, expired INTEGER NOT NULL,
    PRIMARY KEY (id, part)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reservations_expires ON reservations (expired, expires);
"""
_SUM = "SELECT IFNULL(SUM(spent), 0), IFNULL(SUM(reserved), 0) FROM slices WHERE account = ? AND slice >= ?"
_LIST = "SELECT slice, spent, reserved FROM slices WHERE account = ? AND slice >= ?"
_RESERVE = """
INSERT INTO slices VALUES (?, ?, 0, ?, ?)
ON CONFLICT DO UPDATE SET reserved = reserved + excluded.reserved, forget = excluded.forget
"""
_TRIM = """
DELETE FROM slices WHERE account = ?1
AND slice <= (SELECT slice FROM slices WHERE account = ?1 ORDER BY slice DESC LIMIT 1 OFFSET ?2)
"""
_NOTE = "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, 0)"
_EXPIRED = "SELECT amount, amount, account, slice FROM reservations WHERE expired = 0 AND expires <= ?"
_MOVE = "UPDATE slices SET spent = spent + ?, reserved = reserved - ? WHERE account = ? AND slice = ?"


class SqliteBudgets(RemoteBudgets):
    """Sums in a file, which all processes of a machine share, and which outlives them.

    Args:
        path: The file; it is made where there is none, in a folder that exists.
        lease: Seconds after which what was not renewed is taken to be spent.
        clock: Unix time in seconds: the machine's, which all its processes share.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, lease: float = LEASE, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(lease)
        self._path = Path(path)
        self._clock = clock
        self._file: _File | None = None
        self._swept = 0

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __repr__(self) -> str:
        return f"SqliteBudgets({str(self._path)!r})"

    async def _reserve(self, held: Held) -> Denied | None:
        return await self._run(lambda connection, now: self._set_aside(connection, now, held))

    async def _settle(self, held: Held, amounts: Sequence[int]) -> Settled:
        return await self._run(lambda connection, now: _put_right(connection, now, held, amounts))

    async def _renew(self, held: Held) -> None:
        await self._run(lambda connection, now: self._extend(connection, now, held))

    async def _run(self, step: Callable[[sqlite3.Connection, int], T]) -> T:
        if self._file is None or self._file.process != os.getpid():  # a fork takes no threads along
            self._file = _File(self._path)
        try:
            return await self._file.run(lambda connection: step(connection, int(self._clock() * 1000)))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the budgets in {self._path.name}: {error}") from error

    def _set_aside(self, connection: sqlite3.Connection, now: int, held: Held) -> Denied | None:
        connection.executemany(_MOVE, connection.execute(_EXPIRED, (now,)).fetchall())
        connection.execute("UPDATE reservations SET expired = 1 WHERE expired = 0 AND expires <= ?", (now,))
        self._sweep(connection, now)
        for index, want in enumerate(held.wants):
            oldest = want.window.at(now).oldest
            if not fits(want, _standing(connection, want, now)):
                found = connection.execute(_LIST, (want.account, oldest)).fetchall()
                return deny(index, want, ((slice_, Standing(*each)) for slice_, *each in found), now)
        for part, want in enumerate(held.wants):
            slice_, keep = want.window.at(now).id, want.window.keep
            forget = None if keep is None else now + keep
            connection.execute(_RESERVE, (want.account, slice_, want.amount, forget))
            connection.execute(_TRIM, (want.account, KEPT))
            expires = now + int(self.lease * 1000)
            connection.execute(_NOTE, (held.id, part, want.account, slice_, want.amount, expires))
        return None

    def _extend(self, connection: sqlite3.Connection, now: int, held: Held) -> None:
        expires = now + int(self.lease * 1000)
        connection.execute("UPDATE reservations SET expires = ? WHERE id = ? AND expired = 0", (expires, held.id))

    def _sweep(self, connection: sqlite3.Connection, now: int) -> None:
        """Forget what was long over when this was last done: not now, which a clock that jumps may say in error."""
        if self._swept <= now < self._swept + _SWEEP:
            return
        if 0 < self._swept < now:
            connection.execute("DELETE FROM slices WHERE forget < ?", (self._swept,))
            connection.execute("DELETE FROM reservations WHERE expires < ?", (self._swept - RETENTION,))
        self._swept = now


class _File:
    """A connection, and the one thread that uses it."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        self._path = path
        self._thread = ThreadPoolExecutor(1, "overcoat-budgets")
        self._connection: sqlite3.Connection | None = None

    async def run(self, step: Callable[[sqlite3.Connection], T]) -> T:
        """Return what *step* does, in one transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, step)

    def close(self) -> None:
        """Close the connection when its thread has done what it was told."""
        if self._connection is not None:
            self._thread.submit(self._connection.close)
        self._thread.shutdown()

    def _transaction(self, step: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection or self._connect()
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            return step(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last moments
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        weakref.finalize(self, connection.close)  # for those who never close it
        self._connection = connection
        return connection


def _standing(connection: sqlite3.Connection, want: Want, now: int) -> Standing:
    spent, reserved = connection.execute(_SUM, (want.account, want.window.at(now).oldest)).fetchone()
    return Standing(spent, reserved)


def _put_right(connection: sqlite3.Connection, now: int, held: Held, amounts: Sequence[int]) -> Settled:
    found: list[tuple[int, str, int, int, int]] = connection.execute(
        "SELECT part, account, slice, amount, expired FROM reservations WHERE id = ?", (held.id,)
    ).fetchall()
    for part, account, slice_, reserved, expired in found:
        before, open_ = (reserved, 0) if expired else (0, reserved)
        connection.execute(_MOVE, (amounts[part] - before, open_, account, slice_))
    connection.execute("DELETE FROM reservations WHERE id = ?", (held.id,))
    return Settled(now, [_standing(connection, want, now) for want in held.wants])
