"""The database that a ledger is kept in: SQLite or Postgres, by SQLAlchemy Core."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool, StaticPool

from overcoat.errors import LedgerError
from overcoat.ledger.entries import Entry
from overcoat.ledger.tables import VERSION, entries, metadata, versions

MEMORY = "sqlite://"
"""The URL of a ledger in this process's memory."""

_EXPECTED = "expected a file's path, sqlite:///FILE or postgresql://USER@HOST/DATABASE"
_PATIENCE = 5.0  # seconds for a lock or a connection; only the ledger's own thread waits
_SILENCE = 10_000  # milliseconds after which a server that has stopped answering is given up
# Both last until the transaction's end, so that of ten processes one makes the tables. The number is ours alone.
_ONE_MAKER = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7811035432)"}
_INSERT = {
    "sqlite": sqlite.insert(entries).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(entries).on_conflict_do_nothing(),
}


def parse_url(given: str | os.PathLike[str]) -> URL:
    """Return the URL of a ledger, which may be given as the path of a SQLite file.

    Raises:
        LedgerError: It is no URL, or one of a database that no ledger is kept in.
        TypeError: It is no text.
    """
    text = os.fspath(given)
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - paths may be bytes
        raise TypeError(f"a ledger is named by text, not by {type(text).__name__}")
    if "://" not in text:
        if not text:
            raise LedgerError(f"the ledger has no name; {_EXPECTED}")
        return _file(text)
    try:
        url = make_url(text.replace("postgres://", "postgresql://", 1))
    except (ArgumentError, ValueError):
        # Not the text, which may hold a password, nor SQLAlchemy's error, which repeats it.
        raise LedgerError(f"the ledger's URL cannot be read; {_EXPECTED}") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _file(url.database) if url.database and url.database != ":memory:" else URL.create("sqlite")
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")  # an application's own driver may be an async one
    raise LedgerError(f"a ledger cannot be kept in {kind}; {_EXPECTED}")


class Database:
    """The tables of one ledger. Its methods block, and may be called from any thread.

    Args:
        url: Of `parse_url`.
        writable: Whether the tables are made where there are none; else they are only read.
    """

    def __init__(self, url: URL, *, writable: bool) -> None:
        self._url = url
        self._writable = writable
        self._path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
        if self._path is not None and not self._path.parent.is_dir():
            raise LedgerError(f"there is no folder {self._path.parent} for the ledger {self._path.name}")
        self._inherited: Engine | None = None
        self._open()

    def __str__(self) -> str:
        """Return the URL without its password."""
        return self._url.render_as_string(hide_password=True)

    def write(self, rows: Sequence[Entry]) -> None:
        """Add *rows*, all or none; those that are there already are left as they are.

        Raises:
            LedgerError: The database is away, locked or full, or is no ledger of this version.
        """
        with self._connected() as connection:
            connection.execute(_INSERT[connection.dialect.name], rows)

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Lend a connection, to a ledger of this version.

        Raises:
            LedgerError: As for `write`, or there is no ledger.
        """
        if self._path is not None and not self._writable and not self._path.is_file():
            raise LedgerError(f"there is no file {self._path}")
        with self._connected() as connection:
            yield connection

    def close(self) -> None:
        """Give up connections; they are made again when they are needed."""
        self._engine.dispose()

    def begin_anew(self) -> None:
        """Forget the connections of the process that this one was forked from, which still uses them."""
        self._inherited = self._engine  # or the garbage collector would close them
        self._open()

    def _open(self) -> None:
        self._engine = self._make_engine()
        # The memory of SQLite is a connection's, so that all share one.
        self._turn = Lock() if self._url == URL.create("sqlite") else nullcontext()

    @contextmanager
    def _connected(self) -> Generator[Connection]:
        try:
            with self._turn, self._engine.begin() as connection:
                if connection.dialect.name == "postgresql":  # or who locks the table keeps a process from ending
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_PATIENCE * 1000:.0f}")
                self._check(connection)
                yield connection
        except SQLAlchemyError as error:
            # Its text has the statement in it, and so has the traceback of what it was raised from.
            cause = getattr(error, "orig", None) or error
            reason = str(cause).strip().partition("\n")[0]
            if self._url.password and str(self._url.password) in reason:
                reason = type(cause).__name__
            raise LedgerError(f"the ledger {self} cannot be used: {reason}") from None

    def _check(self, connection: Connection) -> None:
        version = _version(connection)
        if version is None and self._writable:
            _make_tables(connection)
            version = _version(connection)
        if version is None:
            raise LedgerError(f"{self} is not a ledger: it has no table {versions.name}")
        if version != VERSION:
            raise LedgerError(
                f"the ledger {self} has the schema version {version}, and this overcoat knows version {VERSION} only: "
                f"use the version of overcoat that made it, or another ledger"
            )

    def _make_engine(self) -> Engine:
        common: dict[str, Any] = {"hide_parameters": True}
        if self._url.get_backend_name() == "sqlite":
            # A connection for each batch, so that none is open over a fork; it costs a fraction of a millisecond.
            pool = NullPool if self._path else StaticPool
            return create_engine("sqlite://", creator=self._connect_sqlite, poolclass=pool, **common)
        # One connection for all batches; none of who only reads, which need not be closed then.
        keeping: dict[str, Any] = {"pool_size": 1, "pool_pre_ping": True} if self._writable else {"poolclass": NullPool}
        patience = {"connect_timeout": int(_PATIENCE), "tcp_user_timeout": _SILENCE}
        try:
            return create_engine(
                self._url,
                connect_args={name: value for name, value in patience.items() if name not in self._url.query},
                **keeping,
                **common,
            )
        except ModuleNotFoundError as error:
            raise ImportError(
                "a ledger in Postgres needs psycopg: pip install 'overcoat[postgres]'", name="psycopg"
            ) from error

    def _connect_sqlite(self) -> sqlite3.Connection:
        if self._path is None:
            return sqlite3.connect(":memory:", check_same_thread=False)
        mode = "rwc" if self._writable else "ro"
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)
        connection.execute("PRAGMA temp_store = MEMORY")  # groups are sorted: a million rows take two seconds, not four
        return connection


def _file(path: str) -> URL:
    return URL.create("sqlite", database=str(Path(path).absolute()))  # the process may go to another folder


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(versions.name):
        return None
    return connection.scalar(select(versions.c.version))


def _make_tables(connection: Connection) -> None:
    """Make the tables, unless another process does meanwhile; they last when *connection* commits."""
    kind = connection.dialect.name
    if kind == "sqlite" and not connection.exec_driver_sql("PRAGMA page_count").scalar():
        # So that reading never waits for writing. Of a file that is somebody else's as well, that is not ours to say.
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    connection.exec_driver_sql(_ONE_MAKER[kind])
    inspector = inspect(connection)
    if inspector.has_table(versions.name) or inspector.has_table(entries.name):
        return
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(versions).values(version=VERSION))
