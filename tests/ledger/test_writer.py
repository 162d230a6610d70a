"""Holds the writer to losing nothing while it can be kept, to saying what is lost, and to never blocking who adds."""

from __future__ import annotations

import threading

import pytest

from overcoat.ledger import LedgerError
from overcoat.ledger import writer as module
from overcoat.ledger.writer import Writer

SOON = 0.001
PATIENCE = 30


class Table:
    """Takes what is written, unless it is away; `times` are those that a test can wait for."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.tried: list[list[int]] = []
        self.away: Exception | None = None
        self._changed = threading.Condition()

    def write(self, rows):
        with self._changed:
            self.tried.append(list(rows))
            self._changed.notify_all()
            if self.away is not None:
                raise self.away
            self.batches.append(list(rows))

    @property
    def items(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    def wait_for(self, condition) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE)


def writer(table, *, interval=60.0, most_pending=100, prepare=lambda item: [item]) -> Writer[int, int]:
    return Writer(prepare, table.write, name="the ledger", interval=interval, most_pending=most_pending)


def test_the_thread_writes_what_is_added():
    table = Table()
    writing = writer(table, interval=SOON)
    writing.add(1)
    table.wait_for(lambda: table.batches == [[1]])
    writing.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "overcoat-ledger"]


def test_there_is_no_thread_before_there_is_anything_to_write():
    table = Table()
    writer(table).close()
    assert table.tried == []


def test_adding_does_not_wait_for_writing():
    """The table answers when the test says so; all that time, items are taken."""
    table, answered = Table(), threading.Event()
    take = table.write

    def slow(rows):
        take(rows)
        assert answered.wait(PATIENCE)

    table.write = slow
    writing = writer(table, interval=SOON)
    writing.add(1)
    table.wait_for(lambda: table.tried)
    for item in range(2, 50):
        writing.add(item)
    assert writing.pending == 49
    answered.set()
    writing.close()
    assert table.items == list(range(1, 50))


def test_it_writes_in_batches():
    table = Table()
    writing = writer(table, most_pending=10_000)
    for item in range(2500):
        writing.add(item)
    writing.flush()
    assert [len(batch) for batch in table.batches] == [1000, 1000, 500]
    writing.close()


class TestAway:
    def test_what_cannot_be_written_is_tried_again_as_it_was(self):
        table, made = Table(), []
        writing = writer(table, prepare=lambda item: made.append(item) or [item])
        table.away = OSError("away")
        writing.add(1)
        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                writing.flush()
        writing.add(2)
        table.away = None
        writing.close()
        assert table.tried == [[1], [1], [1], [2]]
        assert made == [1, 2]

    @pytest.mark.parametrize(("error", "unforeseen"), [(LedgerError, False), (OSError, True)])
    def test_the_thread_goes_on_and_says_so_once(self, caplog, error, unforeseen):
        """With the traceback, where it is no fault of a ledger."""
        table = Table()
        table.away = error("the ledger is away")
        writing = writer(table, interval=SOON)
        writing.add(1)
        table.wait_for(lambda: len(table.tried) > 3)
        table.away = None
        table.wait_for(lambda: table.batches == [[1]])
        writing.close()
        assert [bool(record.exc_info) for record in caplog.records] == [unforeseen, False]
        assert [record.message for record in caplog.records] == [
            "the ledger is away; calls kept until it can be written: 1",
            "the ledger is written again",
        ]

    def test_what_does_not_fit_is_dropped_and_counted(self, caplog):
        table = Table()
        table.away = OSError("away")
        writing = writer(table, most_pending=3)
        for item in range(5):
            writing.add(item)
        with pytest.raises(OSError, match="away"):
            writing.flush()
        writing.add(5)
        assert (writing.pending, writing.dropped) == (3, 3)
        table.away = None
        writing.close()
        assert table.batches == [[0, 1, 2]]
        assert [record.message for record in caplog.records] == ["the ledger lacks calls that are lost: 3"]

    def test_the_log_tells_of_drops_while_they_go_on(self, caplog):
        table = Table()
        table.away = OSError("away")
        writing = writer(table, interval=SOON, most_pending=1)
        writing.add(1)
        writing.add(2)
        table.wait_for(lambda: len(table.tried) > 2 and len(caplog.records) > 1)
        assert [record.message for record in caplog.records][1:] == ["the ledger lacks calls that are lost: 1"]
        table.away = None
        writing.close()

    def test_closing_keeps_what_it_cannot_write(self):
        table = Table()
        table.away = OSError("away")
        writing = writer(table)
        writing.add(1)
        with pytest.raises(OSError, match="away"):
            writing.close()
        assert writing.pending == 1
        table.away = None
        writing.close()
        assert table.batches == [[1]]


def test_an_item_that_cannot_be_prepared_keeps_no_other_out(caplog):
    table = Table()
    writing = writer(table, prepare=lambda item: [10 // item])
    for item in (0, 5, 2):
        writing.add(item)
    writing.flush()
    assert table.batches == [[2, 5]]
    assert (writing.dropped, writing.pending) == (1, 0)
    assert "a call cannot be put into the ledger" in caplog.text
    writing.close()


def test_it_begins_again_after_it_was_closed():
    table = Table()
    writing = writer(table, interval=SOON)
    writing.add(1)
    writing.close()
    writing.add(2)
    table.wait_for(lambda: table.batches == [[1], [2]])
    writing.close()


def test_closing_does_not_wait_for_what_the_garbage_collector_adds(monkeypatch):
    """It ends abandoned calls in the thread that it happens to run in, whatever that holds."""
    table = Table()
    writing = writer(table)
    writing.add(1)

    def collecting():
        writing.add(2)
        return threading.Event()

    with monkeypatch.context() as patch:
        patch.setattr(module, "Event", collecting)
        closing = threading.Thread(target=writing.close, daemon=True)
        closing.start()
        closing.join(PATIENCE)
    assert not closing.is_alive()
    writing.close()
    assert table.items == [1, 2]


def test_many_threads_add():
    """None is lost, none is written twice, and there is one thread for all."""
    table = Table()
    before = set(threading.enumerate())  # other ledgers' threads, which end by themselves
    writing = writer(table, interval=SOON, most_pending=100_000)
    threads = [
        threading.Thread(target=lambda first=first: [writing.add(first + item) for item in range(500)])
        for first in range(0, 4000, 500)
    ]
    for thread in threads:
        thread.start()
    begun = set(threading.enumerate()) - before
    assert len([thread for thread in begun if thread.name == "overcoat-ledger"]) <= 1
    for thread in threads:
        thread.join()
    writing.close()
    assert sorted(table.items) == list(range(4000))
