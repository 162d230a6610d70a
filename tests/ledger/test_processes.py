"""Holds a ledger to losing nothing that it can keep when processes end, fork, are killed, or are many."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal

import pytest

from overcoat.ledger import Ledger, total

# What the programs below begin with: `add` puts calls of a tenth of a cent into the ledger.
BEGIN = """
import os, sys
from decimal import Decimal
from overcoat import Attempt, Call, Inference, Usage
from overcoat.ledger import Ledger, LedgerError

def add(ledger, number):
    for _ in range(number):
        call = Call("Client", "m", False, {"process": str(os.getpid())}, 0.0, 1795435200.0, ended=1.0, outcome="ok")
        attempt = Attempt(1, "m", 0.0, ended=1.0, usage=Usage(1, 1), cost=Decimal("0.001"))
        call.inferences.append(Inference("m", 0.0, attempts=[attempt], ended=1.0))
        call.settle(attempt)
        ledger.add(call, attempt)

"""
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def start(program, path) -> subprocess.Popen[str]:
    # Forking with threads is what is tested; Python 3.12 warns of it.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + program, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(program, path) -> None:
    with start(program, path) as process:
        assert process.wait(60) == 0


def summed(path):
    whole = total(Ledger.read(path).costs())
    return whole.calls, whole.billed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "costs.db"


def test_the_end_of_a_process_writes_what_is_left(path):
    run("add(Ledger(sys.argv[1]), 3)", path)
    assert summed(path) == (3, Decimal("0.003"))


# A stack on an event loop whose calls the ledger observes; the program ends it in its own way.
CALLING = """
import asyncio, signal, time
from overcoat import LLMEvent, Meter, stack
from overcoat.pricing.rates import Rates, Tier
from overcoat.testing import Answer, ScriptedClient

CENT = Rates((Tier(0, Decimal("0.005"), Decimal("0.005")),), "test")
meter = Meter(prices=lambda model, now: CENT, ledger=sys.argv[1])
client = stack(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter)

async def calls(number):
    for _ in range(number):
        await client.call([{"role": "user", "content": "hello"}], {}, LLMEvent([], "test"))

"""


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        ("sys.exit(3)", {3}),
        ("raise ValueError('not foreseen')", {1}),
        ("signal.raise_signal(signal.SIGINT); await asyncio.sleep(60)", {1, 130, -signal.SIGINT}),
        ("await asyncio.to_thread(meter.observer(client).flush); os._exit(4)", {4}),
    ],
)
def test_however_a_process_ends_its_calls_are_written(path, end, codes):
    """By Ctrl-C too, whose code depends on Python's version; only who leaves by `os._exit` has to flush first."""
    program = f"{CALLING}async def main():\n    await calls(5)\n    {end}\n\nasyncio.run(main())\n"
    command = [sys.executable, "-W", "error", "-c", BEGIN + program, str(path)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode in codes, ended.stderr
    assert summed(path) == (5, Decimal("0.05"))


def test_what_is_not_flushed_is_lost_where_a_process_leaves_at_once(path):
    """That is what `os._exit` means; what was flushed is there, and whole."""
    program = """
ledger = Ledger(sys.argv[1])
add(ledger, 2)
ledger.flush()
ledger._writer._stop.set()  # or the thread might write the rest in time
add(ledger, 3)
os._exit(0)
"""
    run(program, path)
    assert summed(path) == (2, Decimal("0.002"))


def test_eight_threads_with_loops_of_their_own_write_one_ledger(path):
    """Through stacks, at the same time; each call is there once, and the dollars are exact."""
    program = f"""{CALLING}
from threading import Thread

threads = [Thread(target=lambda: asyncio.run(calls(200))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    run(program, path)
    assert summed(path) == (1600, Decimal(16))


def test_closing_while_others_add_forgets_no_end(path):
    """The thread that begins while another ends is still told when the process ends."""
    program = """
from threading import Event, Thread
from overcoat.ledger.writer import Writer

writing, go, written = Event(), Event(), []

def write(rows):
    writing.set()
    assert go.wait(60)
    written.extend(rows)
    print(written, flush=True)

writer = Writer(lambda item: [item], write, name="the ledger", interval=0.001, most_pending=10)
writer.add(1)
assert writing.wait(60)
writer._interval = 1000
closing = Thread(target=writer.close)
closing.start()
while writer._thread is not None:
    pass
writer.add(2)
go.set()
closing.join()
writer.add(3)
"""
    with start(program, path) as process:
        assert process.stdout.read().splitlines()[-1] == "[1, 2, 3]"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_a_process_that_is_killed_has_lost_nothing_that_was_flushed(path):
    """Killed as it writes, at a moment of chance: whole batches are there, all those at least that it knew of."""
    program = """
ledger = Ledger(sys.argv[1])
while True:
    add(ledger, 10)
    ledger.flush()
    print("flushed", flush=True)
"""
    with start(program, path) as process:
        flushed = [process.stdout.readline() for _ in range(20)]
        process.kill()
        flushed += process.stdout.readlines()
    calls, _ = summed(path)
    assert calls % 10 == 0
    assert calls >= 10 * flushed.count("flushed\n") >= 200
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@forks
def test_ten_processes_at_once_make_and_write_one_ledger(path):
    """Forked from one that has a ledger with a thread and a call that is not written yet."""
    program = """
ledger = Ledger.shared(sys.argv[1])
add(ledger, 1)
children = []
for _ in range(10):
    child = os.fork()
    if not child:
        assert ledger.pending == 0
        assert Ledger.shared(sys.argv[1]) is ledger
        for _ in range(10):
            add(ledger, 20)
            try:
                ledger.flush()
            except LedgerError as busy:  # what is left is written at the end
                print(busy)
        sys.exit()
    children.append(child)
assert {os.waitpid(child, 0)[1] for child in children} == {0}
"""
    run(program, path)
    calls, _ = summed(path)
    assert calls == 1 + 10 * 200
    assert len(Ledger.read(path).costs(["tag.process"])) == 11


@forks
def test_a_child_of_multiprocessing_writes_what_is_left(path):
    """Before Python 3.13, such children end without the functions that atexit has."""
    program = """
import multiprocessing
ledger = Ledger(sys.argv[1])
add(ledger, 1)
process = multiprocessing.get_context("fork").Process(target=add, args=(ledger, 2))
process.start()
process.join()
"""
    run(program, path)
    assert summed(path)[0] == 3


def test_a_meter_without_a_ledger_needs_no_database():
    program = "import sys; from overcoat import Meter; Meter(); sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_cannot_be_written_at_the_end_is_told(path):
    path.mkdir()
    program = "import logging; logging.basicConfig(stream=sys.stdout); add(Ledger(sys.argv[1]), 3)"
    with start(program, path) as process:
        told = process.stdout.read()
    assert "unable to open database file; calls that are lost: 3" in told
