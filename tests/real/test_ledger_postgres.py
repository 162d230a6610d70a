"""Holds a ledger in a real Postgres, as a fleet shares it, to what it does in SQLite."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overcoat.ledger import Ledger, LedgerError, database, total

from ..ledger.calls import NOON, TEXTS, abandon, attempt, call, calls
from .parts import need

need("psycopg")

BY = ["model", "provider", "policy", "outcome", "day", "tag.tenant", "tag.q\"'\\"]


@pytest.fixture
def ledger(postgres_url) -> Iterator[Ledger]:
    """An empty ledger."""
    _forget(postgres_url)
    with Ledger(postgres_url) as ledger:
        yield ledger


def _forget(url, *statements) -> None:
    import psycopg

    with psycopg.connect(url) as connection:
        for statement in statements or ("DROP TABLE IF EXISTS overcoat_ledger, overcoat_ledger_version",):
            connection.execute(statement)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(calls(), min_size=1, max_size=5), name=TEXTS.filter(bool))
def test_its_sums_are_those_of_sqlite(ledger, postgres_url, made, name):
    """For all groups, whatever is in tags; Postgres takes less text than SQLite, and sums are of another type."""
    _forget(postgres_url)
    with Ledger() as other:
        for each in made:
            ledger.add(*each)
            other.add(*each)
        for by in ([], BY, [f"tag.{name}"], ["hour", "cache"]):
            assert ledger.costs(by) == other.costs(by)
        assert ledger.charges() == other.charges()
        assert ledger.charges([name]) == other.charges([name])
        noon = datetime.fromtimestamp(NOON, UTC)
        for window in ({"since": noon}, {"until": noon}, {"since": noon, "until": noon + timedelta(days=1)}):
            assert ledger.costs(**window) == other.costs(**window)


def test_it_is_read_where_it_is_only(postgres_url):
    _forget(postgres_url)
    with pytest.raises(LedgerError, match="is not a ledger") as refused:
        Ledger.read(postgres_url)
    assert "secret" not in str(refused.value)


def test_another_version_is_neither_read_nor_written(ledger, postgres_url):
    assert ledger.costs() == []
    _forget(postgres_url, "UPDATE overcoat_ledger_version SET version = 2")
    ledger.add(*call(attempt()))
    with pytest.raises(LedgerError, match="has the schema version 2"):
        ledger.flush()
    abandon(ledger)


def test_writing_the_same_again_changes_nothing(ledger):
    rows = ledger._entries_of(call(attempt(), attempt("mine", "1")))
    ledger._database.write(rows)
    ledger._database.write(rows)
    assert ledger.costs()[0].attempts == 2


def test_a_server_that_goes_and_comes_back(ledger, postgres):
    """Calls are kept meanwhile, and the connections that it broke are made anew."""
    ledger.add(*call(attempt()))
    ledger.flush()
    postgres.stop()
    try:
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="cannot be used") as away:
            ledger.flush()
        assert "secret" not in str(away.value)
        assert ledger.pending == 1
    finally:
        postgres.start()
    assert total(ledger.costs()).calls == 2


def test_a_locked_table(ledger, postgres_url, monkeypatch):
    """Who locks it for long does not hold up the writer, nor the end of its process."""
    import psycopg

    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    assert ledger.costs() == []
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE overcoat_ledger")
        ledger.add(*call(attempt()))
        with pytest.raises(LedgerError, match="lock timeout"):
            ledger.flush()
        other.rollback()
    assert total(ledger.costs()).calls == 1


PROGRAM = """
import sys
from overcoat.ledger import Ledger
from overcoat import Call

ledger = Ledger(sys.argv[1])
for _ in range(300):
    ledger.add(Call("Client", "m", False, {}, 0.0, 1795435200.0, ended=1.0, outcome="ok"), None)
"""


def test_processes_that_begin_at_once(ledger, postgres_url):
    """One of them makes the tables, and all of them write."""
    processes = [subprocess.Popen([sys.executable, "-c", PROGRAM, postgres_url]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert total(ledger.costs()).calls == 1200
