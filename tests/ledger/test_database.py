"""Holds a ledger in SQLite to keeping calls through every fault, and to saying which fault it is."""

from __future__ import annotations

import sqlite3
import sys

import pytest
from sqlalchemy import event

from overcoat.ledger import Ledger, LedgerError, total
from overcoat.ledger import database as database_module
from overcoat.ledger.database import parse_url

from .calls import abandon, attempt, call

PASSWORD = "s3cret/p@ss"  # noqa: S105 - of no server


@pytest.fixture
def path(tmp_path):
    return tmp_path / "costs.db"


def written(path, number=1) -> Ledger:
    """Return a ledger in the file, with calls that are written."""
    ledger = Ledger(path)
    for _ in range(number):
        ledger.add(*call(attempt()))
    ledger.flush()
    return ledger


def count(ledger) -> int:
    return total(ledger.costs()).calls


class TestNames:
    @pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
    def test_a_file(self, path, form):
        with Ledger(form.format(path)) as ledger:
            ledger.add(*call(attempt()))
        assert count(Ledger.read(path)) == 1

    def test_a_file_with_an_odd_name(self, tmp_path):
        with written(tmp_path / "50% of? #1 é.db"):
            pass
        assert [each.name for each in tmp_path.iterdir()] == ["50% of? #1 é.db"]

    def test_a_relative_path_is_of_the_folder_at_the_start(self, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        ledger = Ledger("sqlite:///costs.db")
        monkeypatch.chdir("other")
        ledger.add(*call(attempt()))
        ledger.close()
        assert (tmp_path / "costs.db").is_file()

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
    def test_memory(self, url, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with Ledger(url) as ledger:
            ledger.add(*call(attempt()))
            assert count(ledger) == 1
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("url", ["postgres://a@b/c", "postgresql://a@b/c", "postgresql+asyncpg://a@b/c"])
    def test_postgres_by_any_of_its_names(self, url):
        assert str(parse_url(url)) == "postgresql+psycopg://a@b/c"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("", "has no name"),
            ("://", "cannot be read"),
            (f"postgresql://u:{PASSWORD}@host:port/db", "cannot be read"),
            (f"mysql://u:{PASSWORD}@host/db", "cannot be kept in mysql"),
            ("/nowhere/at/all/costs.db", "there is no folder /nowhere/at/all"),
        ],
    )
    def test_names_of_no_ledger(self, url, message):
        with pytest.raises(LedgerError, match=message) as refused:
            Ledger(url)
        assert "s3cret" not in str(refused.value)

    def test_a_name_that_is_no_text(self):
        with pytest.raises(TypeError, match="not by bytes"):
            Ledger(b"costs.db")

    def test_the_password_is_shown_nowhere(self, caplog):
        ledger = Ledger(f"postgresql://u:{PASSWORD.replace('@', '%40')}@127.0.0.1:1/db")
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="Connection refused") as away:
            ledger.flush()
        for shown in (repr(ledger), str(away.value), caplog.text):
            assert "s3cret" not in shown
        abandon(ledger)

    def test_a_driver_that_repeats_the_password_is_not_quoted(self, monkeypatch):
        ledger = Ledger(f"postgresql://u:{PASSWORD}@127.0.0.1:1/db")

        def connect(*_):
            raise database_module.SQLAlchemyError(f"no login with {PASSWORD}")

        monkeypatch.setattr(ledger._database._engine, "begin", connect)
        with pytest.raises(LedgerError, match=r"cannot be used: SQLAlchemyError$"):
            ledger.costs()

    def test_what_is_missing_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(ImportError, match=r"pip install 'overcoat\[postgres\]'"):
            Ledger("postgresql://u@host/db")


class TestReading:
    def test_what_is_not_there_is_not_made(self, path):
        with pytest.raises(LedgerError, match=f"there is no file {path}"):
            Ledger.read(path)
        assert not path.exists()

    def test_somebody_else_s_database(self, path):
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
        with pytest.raises(LedgerError, match="is not a ledger: it has no table overcoat_ledger_version"):
            Ledger.read(path)

    def test_it_does_not_write(self, path):
        written(path).close()
        ledger = Ledger.read(path)
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="readonly"):
            ledger.flush()
        abandon(ledger)

    @pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_corrupt_file(self, path, content):
        path.write_bytes(content)
        with pytest.raises(LedgerError, match=f"{path} cannot be used: (file is not a database|database disk image)"):
            Ledger.read(path)
        assert path.read_bytes() == content

    def test_a_file_that_was_cut_off(self, path):
        written(path, 500).close()
        path.write_bytes(path.read_bytes()[:20_000])
        with pytest.raises(LedgerError, match="cannot be used: database disk image is malformed"):
            Ledger.read(path).costs()

    @pytest.mark.parametrize("version", [0, 2])
    def test_another_version_is_neither_read_nor_altered(self, path, version):
        written(path).close()
        with sqlite3.connect(path) as other:
            other.execute("UPDATE overcoat_ledger_version SET version = ?", [version])
        other.close()
        with pytest.raises(LedgerError, match=f"has the schema version {version}, and this overcoat knows version 1"):
            Ledger.read(path)
        ledger = Ledger(path)
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match=f"has the schema version {version}"):
            ledger.flush()
        abandon(ledger)

    def test_a_table_of_that_name_which_is_not_ours(self, path):
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE overcoat_ledger (x)")
        other.close()
        ledger = Ledger(path)
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="is not a ledger"):
            ledger.flush()
        abandon(ledger)


class TestWriting:
    def test_a_database_may_hold_other_tables(self, path):
        """Its journal is then not ours to change."""
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
        written(path).close()
        assert count(Ledger.read(path)) == 1
        with sqlite3.connect(path) as other:
            assert other.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        other.close()

    def test_writing_the_same_again_changes_nothing(self, path):
        """As happens where the answer to a commit was lost."""
        ledger = Ledger(path)
        rows = ledger._entries_of(call(attempt()))
        ledger._database.write(rows)
        ledger._database.write(rows)
        assert count(ledger) == 1
        ledger.close()

    def test_a_reader_sees_what_is_written_while_another_writes(self, path):
        ledger = written(path)
        with sqlite3.connect(path) as other:
            other.execute("BEGIN IMMEDIATE")
            assert count(Ledger.read(path)) == 1
            other.rollback()
        other.close()
        ledger.close()


class TestFaults:
    def test_a_path_that_cannot_be_written(self, tmp_path):
        """Calls are kept until it can."""
        path = tmp_path / "costs.db"
        path.mkdir()
        ledger = Ledger(path)
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="unable to open database file"):
            ledger.flush()
        path.rmdir()
        ledger.close()
        assert count(Ledger.read(path)) == 1

    def test_a_locked_database(self, path, monkeypatch):
        """The lock lasts for longer than a writer waits; nothing is lost."""
        monkeypatch.setattr(database_module, "_PATIENCE", 0.01)
        ledger = written(path)
        with sqlite3.connect(path) as other:
            other.execute("BEGIN IMMEDIATE")
            ledger.add(*call(attempt()))
            for _ in range(2):
                with pytest.raises(LedgerError, match="database is locked"):
                    ledger.flush()
            assert ledger.pending == 1
            other.rollback()
        other.close()
        assert count(ledger) == 2
        ledger.close()

    def test_a_locked_database_at_the_very_first(self, path, monkeypatch):
        monkeypatch.setattr(database_module, "_PATIENCE", 0.01)
        ledger = Ledger(path)
        ledger.add(*call(attempt()))
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LedgerError, match="database is locked"):
            ledger.flush()
        other.rollback()
        other.close()
        assert count(ledger) == 1
        ledger.close()

    def test_a_full_disk(self, path):
        """A batch is written as a whole or not at all, and when there is room again."""
        ledger = written(path, 10)
        full = True

        def limit(connection, _):
            if full:
                connection.execute("PRAGMA max_page_count = 1")  # as many as there are now, SQLite makes of it

        event.listen(ledger._database._engine, "connect", limit)
        for _ in range(500):
            ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="database or disk is full"):
            ledger.flush()
        assert count(Ledger.read(path)) == 10
        full = False
        assert count(ledger) == 510
        ledger.close()

    def test_a_file_that_is_taken_away_is_made_again(self, path):
        ledger = written(path)
        path.unlink()
        ledger.add(*call(attempt()))
        assert count(ledger) == 1
        ledger.close()
