"""A store in a SQLite file, for all processes of one machine; all of its work is done in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TypeVar

from overcoat.errors import PolicyError, StoreUnavailable
from overcoat.stores import State, Stored
from overcoat.stores.generations import Generations
from overcoat.stores.outage import Outage

T = TypeVar("T")

logger = logging.getLogger("overcoat")

DEFAULT_BYTES = 2**30
_FEWEST_BYTES = 2**20

_PATIENCE = 0.05
"""Seconds to wait for another process's transaction, which takes a fraction of a millisecond. All behind wait too."""

_FIRST_PATIENCE = 0.25
"""Seconds to wait while the file is opened: of several processes that start at once, one makes the tables."""

_TOUCHES = 256
"""Hits that are remembered before they are written down; what was used last is known as exactly as that."""

_PURGED = 16
"""Expired entries that go with each new one, so that no call pays for many."""

_PAGE = 100
"""Entries that an inspection reads at once."""

_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_APPLICATION, _VERSION = 0x6F766361, 1  # "ovca"

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, key TEXT NOT NULL, generation INTEGER NOT NULL,
    value BLOB NOT NULL, expires REAL NOT NULL, used REAL NOT NULL, UNIQUE (namespace, key)
);
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires);
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
CREATE TABLE IF NOT EXISTS namespaces (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    namespace TEXT NOT NULL, key TEXT NOT NULL, token TEXT NOT NULL, expires REAL NOT NULL, PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
# A namespace that was never invalidated has no row.
_GENERATION = "SELECT ifnull((SELECT generation FROM namespaces WHERE name = ?), 0)"
_GET = """
SELECT id, value FROM entries WHERE namespace = ?1 AND key = ?2 AND expires > ?3
AND generation = ifnull((SELECT generation FROM namespaces WHERE name = ?1), 0)
"""
_SET = """
INSERT INTO entries (namespace, key, generation, value, expires, used) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
generation = excluded.generation, value = excluded.value, expires = excluded.expires, used = excluded.used
"""
_DELETE = "DELETE FROM entries WHERE namespace = ? AND key = ?"
_PURGE = "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)"
_INVALIDATE = "INSERT INTO namespaces VALUES (?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1"
_USED_BYTES = """
SELECT (pages.page_count - free.freelist_count) * size.page_size
FROM pragma_page_count AS pages, pragma_freelist_count AS free, pragma_page_size AS size
"""
_OLDEST = "SELECT id, length(value) FROM entries ORDER BY used LIMIT 256"
_ACQUIRE = """
INSERT INTO leases VALUES (?1, ?2, ?3, ?4)
ON CONFLICT DO UPDATE SET token = excluded.token, expires = excluded.expires WHERE leases.expires <= ?5
"""
_SCAN = """
SELECT entries.id, namespace, key, CAST(value AS BLOB), CAST(expires AS REAL),
entries.generation = ifnull(namespaces.generation, 0)
FROM entries LEFT JOIN namespaces ON name = namespace WHERE entries.id > ? ORDER BY entries.id LIMIT ?
"""


class SQLiteStore:
    """Entries in a file, under a ceiling in bytes: what was used least recently goes first.

    It survives the death of any process that uses it, at any moment. A file that SQLite finds corrupt is renamed, to
    "NAME.corrupt-TIME", and a new one is begun. What holds the file up (a disk that is full, a lock of somebody else)
    is a `StoreUnavailable` within 50 ms, or 250 ms at the first use, and then for a growing pause at once.

    Args:
        path: The file; it is made where there is none, for the user alone (mode 0600), in a folder that exists.
        max_bytes: What it may take, at least 1 MiB; SQLite's log beside it takes 4 MiB more.
        now: The clock that all processes share, in Unix time.

    Raises:
        PolicyError: *max_bytes* is too small.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_BYTES, now: Callable[[], float] = time.time
    ) -> None:
        if max_bytes < _FEWEST_BYTES:
            raise PolicyError(f"a store in a file needs at least {_FEWEST_BYTES} bytes, not {max_bytes}")
        self.path = Path(path).absolute()
        self._max_bytes = max_bytes
        self._now = now
        self._writers = Generations[int]()
        # Readers do not wait for writers, and go on where these are locked out.
        self._reading, self._writing = Outage(self._name), Outage(f"writing to {self._name}")
        self._lock = RLock()
        self._thread: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        # What follows is of the thread alone.
        self._connection: sqlite3.Connection | None = None
        self._disconnect: Callable[[], object] | None = None
        self._inode: tuple[int, int] | None = None
        self._touched: dict[int, float] = {}

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return what was set under *key*, or None where there is nothing, its time is up or it was invalidated."""
        return await self._run(self._reading, lambda connection: self._get(connection, namespace, key))

    async def set(self, namespace: str, key: str, value: bytes, ttl: float) -> None:
        """Keep *value* for *ttl* seconds, unless it takes a quarter of the file or was invalidated on its way."""
        begun = self._writers.begun(namespace, key)
        await self._run(self._writing, lambda connection: self._set(connection, namespace, key, value, ttl, begun))

    async def delete(self, namespace: str, key: str) -> None:
        """Forget what is under *key*, if anything."""
        await self._execute(_DELETE, namespace, key)

    async def invalidate(self, namespace: str) -> None:
        """Forget all of *namespace*, and what any process is about to set there."""
        await self._execute(_INVALIDATE, namespace)

    async def acquire(self, namespace: str, key: str, ttl: float) -> str | None:
        """Return a token for *key*, good for *ttl* seconds unless it is released; None where someone else has it."""
        token, now = secrets.token_hex(16), self._now()
        taken = await self._execute(_ACQUIRE, namespace, key, token, now + ttl, now)
        return token if taken else None

    async def release(self, namespace: str, key: str, token: str) -> None:
        """Give *key* up, unless it is someone else's by now."""
        await self._execute(
            "DELETE FROM leases WHERE (namespace = ? AND key = ? AND token = ?) OR expires <= ?",
            namespace, key, token, self._now(),
        )  # fmt: skip

    async def scan(self) -> AsyncIterator[Stored]:
        """Yield all entries in the order in which they came, those that `get` no longer returns included."""
        last = 0
        while page := await self._run(self._reading, partial(_page, last=last)):
            for number, namespace, key, value, expires, current in page:
                last = number
                state: State = "invalidated" if not current else "live" if expires > self._now() else "expired"
                yield Stored(namespace, key, value, expires, state)

    async def compact(self) -> None:
        """Give back the space of what was deleted, and with it the content; nobody can write meanwhile."""
        await self._execute("VACUUM")
        await self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._worker(), self._finish)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    @property
    def _name(self) -> str:
        return f"the store in {self.path.name}"

    async def _execute(self, statement: str, *parameters: object) -> bool:
        """Execute a statement that is a transaction of its own; say whether it changed anything."""
        return await self._run(self._writing, lambda connection: connection.execute(statement, parameters).rowcount > 0)

    async def _run(self, outage: Outage, job: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        now = loop.time()
        outage.check(now)
        return await loop.run_in_executor(self._worker(), self._work, outage, now, job)

    def _worker(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._process != os.getpid():  # a fork takes no threads along, and must not take SQLite's connections
                self._process, self._thread, self._connection = os.getpid(), None, None
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "overcoat-cache")
            return self._thread

    # --- In the thread ---

    def _work(self, outage: Outage, now: float, job: Callable[[sqlite3.Connection], T]) -> T:
        probe = outage.enter(now)  # here as well: of many that wait for the thread, only the first finds out
        well: bool | None = None
        try:
            result = self._repaired(job)
            well = True
        except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
            well = False
            raise StoreUnavailable(f"{self._name}: {error}") from error
        finally:
            outage.leave(now, well, probe=probe)
        return result

    def _repaired(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return job(self._connected())
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if _code(error) not in _CORRUPT:
                raise
            self._quarantine(error)
        return job(self._connected())

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._inode == _inode(self.path):
                return self._connection
            self._forget()  # somebody has moved or deleted the file
        with suppress(FileExistsError):  # SQLite itself would make it readable for all; its log gets the file's mode
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._inode = _inode(self.path)
        connection = sqlite3.connect(self.path, timeout=_FIRST_PATIENCE, isolation_level=None, check_same_thread=False)
        self._connection = connection
        self._disconnect = weakref.finalize(self, _close_in, os.getpid(), connection)
        try:
            _prepare(connection)
        except BaseException:
            self._forget()
            raise
        return connection

    def _quarantine(self, error: Exception) -> None:
        ours = self._inode
        self._forget()
        if ours != _inode(self.path):
            return  # another process has done it
        aside = f"{self.path}.corrupt-{self._now():.0f}"
        # The file itself last: a new one beside the old log would be filled from it.
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        logger.error("%s is corrupt (%s): it is %s now, and a new one was begun", self.path, error, aside)

    def _forget(self) -> None:
        """Close the connection, as it is."""
        self._connection = None
        self._touched.clear()
        if self._disconnect is not None:
            self._disconnect()

    def _finish(self) -> None:
        if self._connection is not None:
            self._flush(self._connection)
        self._forget()

    def _get(self, connection: sqlite3.Connection, namespace: str, key: str) -> bytes | None:
        now = self._now()
        found = connection.execute(_GET, (namespace, key, now)).fetchone()
        if found is not None and type(found[1]) is bytes:
            self._touched[found[0]] = now
            if len(self._touched) >= _TOUCHES:
                self._flush(connection)
            value: bytes = found[1]
            return value
        self._writers.missed(namespace, key, connection.execute(_GENERATION, (namespace,)).fetchone()[0])
        return None

    def _set(
        self, connection: sqlite3.Connection, namespace: str, key: str, value: bytes, ttl: float, begun: int | None
    ) -> None:
        now = self._now()
        with _transaction(connection):
            (generation,) = connection.execute(_GENERATION, (namespace,)).fetchone()
            if begun is not None and begun != generation:
                return
            if len(value) > self._max_bytes // 4:
                connection.execute(_DELETE, (namespace, key))
                return
            self._note_touches(connection)
            connection.execute(_PURGE, (now, _PURGED))
            connection.execute(_SET, (namespace, key, generation, value, now + ttl, now))
            self._evict(connection)

    def _flush(self, connection: sqlite3.Connection) -> None:
        try:
            with _transaction(connection):
                self._note_touches(connection)
        except sqlite3.Error as error:  # of which a reader is to know nothing, who has what it wants
            logger.debug("%s does not know what was used last: %s", self._name, error)
            self._touched.clear()

    def _note_touches(self, connection: sqlite3.Connection) -> None:
        touched = [(used, entry) for entry, used in self._touched.items()]
        self._touched.clear()
        connection.executemany("UPDATE entries SET used = ? WHERE id = ?", touched)

    def _evict(self, connection: sqlite3.Connection) -> None:
        (used,) = connection.execute(_USED_BYTES).fetchone()
        if used <= self._max_bytes:
            return
        goal = self._max_bytes - self._max_bytes // 16  # some at once, and then none for a while
        # By pages and not by the sizes of values: half of a page that nobody else can use is taken all the same.
        while used > goal and (oldest := connection.execute(_OLDEST).fetchall()):
            freed = 0
            for entry, length in oldest:
                connection.execute("DELETE FROM entries WHERE id = ?", (entry,))
                freed += length
                if freed >= used - goal:
                    break
            (used,) = connection.execute(_USED_BYTES).fetchone()


def _prepare(connection: sqlite3.Connection) -> None:
    if _is_empty(connection):
        connection.execute("PRAGMA page_size = 8192")  # an answer of 2 kB would waste half of SQLite's own 4096
        with _transaction(connection):
            for statement in _SCHEMA.split(";"):  # executescript() would end the transaction
                connection.execute(statement)
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise sqlite3.OperationalError("it is the database of another program")
    if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
        raise sqlite3.OperationalError("it is of another version of overcoat")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if _code(error) != sqlite3.SQLITE_BUSY:  # else there are others, and whoever is alone next will do it
            raise
    connection.execute("PRAGMA synchronous = NORMAL")  # a power failure may cost entries, and never the file
    connection.execute("PRAGMA wal_autocheckpoint = 512")  # pages
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None


def _page(connection: sqlite3.Connection, last: int) -> list[tuple[int, str, str, bytes, float, bool]]:
    return connection.execute(_SCAN, (last, _PAGE)).fetchall()


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")  # not to find out in the middle that another process is writing
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it
            connection.execute("ROLLBACK")
        raise


def _close_in(process: int, connection: sqlite3.Connection) -> None:
    if process == os.getpid():  # a fork's copy is not to be closed
        connection.close()


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _code(error: sqlite3.Error | UnicodeDecodeError) -> int:
    """Return SQLite's own code, without the extension in its upper bits; 0 where it is an error of the module's."""
    if isinstance(error, UnicodeDecodeError):  # the module's attempt at saying which table's name is damaged
        return sqlite3.SQLITE_CORRUPT
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
