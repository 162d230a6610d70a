"""Holds the store in a file to its ceiling, and to going on whatever happens to file, disk and processes."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest

from overcoat.errors import PolicyError, StoreUnavailable
from overcoat.stores.envelope import Answer, pack, unpack
from overcoat.stores.sqlite import SQLiteStore
from overcoat.testing import run

MIB = 2**20
WORKER = Path(__file__).with_name("sqlite_worker.py")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.db"


def work(*arguments, **options):
    command = [sys.executable, "-W", "error", str(WORKER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finished(worker):
    try:
        return worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()


def with_store(path, main, **options):
    async def inside():
        store = SQLiteStore(path, **options)
        try:
            return await main(store)
        finally:
            await store.close()

    return run(inside())


def corpses(path):
    return sorted(other.name for other in path.parent.iterdir() if ".corrupt-" in other.name)


# --- Its file ---


def test_its_files_are_the_users_alone(path):
    async def main(store):
        await store.set("n", "key", b"value", 60)
        files = [*path.parent.iterdir()]
        assert {file.name for file in files} == {"answers.db", "answers.db-wal", "answers.db-shm"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    with_store(path, main)
    assert [file.name for file in path.parent.iterdir()] == ["answers.db"]  # closing leaves no log


def test_a_file_is_made_when_it_is_first_used(path):
    async def main(store):
        assert not path.exists()
        assert await store.get("n", "key") is None
        assert path.exists()

    with_store(path, main)


def test_entries_outlive_the_process_that_closed_nothing(path):
    assert finished(work("die_without_closing", path)) == ("", "")
    assert [file.name for file in path.parent.iterdir()] == ["answers.db"]  # it was closed all the same
    assert with_store(path, lambda store: store.get("n", "key")) == b"value"


def test_a_store_that_is_thrown_away_closes_its_file(path):
    async def main():
        store = SQLiteStore(path)
        await store.set("n", "key", b"value", 60)
        return store._thread

    run(main()).shutdown(wait=True)  # it may hold what it did last for a moment
    gc.collect()
    assert [file.name for file in path.parent.iterdir()] == ["answers.db"]


def test_a_ceiling_that_holds_nothing_is_refused(path):
    with pytest.raises(PolicyError, match="at least 1048576 bytes, not 1048575"):
        SQLiteStore(path, max_bytes=MIB - 1)


def test_it_says_where_it_is(path):
    assert repr(SQLiteStore(path)) == f"SQLiteStore({str(path)!r})"


# --- Time ---


def test_an_entry_lives_as_long_as_its_ttl_also_in_the_next_process(path):
    now = 1e9

    async def write(store):
        await store.set("n", "key", b"value", 60)

    with_store(path, write, now=lambda: now)
    for moment, expected in [(now + 59.9, b"value"), (now + 60, None)]:
        assert with_store(path, lambda store: store.get("n", "key"), now=lambda moment=moment: moment) == expected


def test_expired_entries_go_little_by_little(path):
    now = 0.0

    async def main(store):
        nonlocal now
        for index in range(100):
            await store.set("n", str(index), b"value", 60)
        now = 60.0
        left = []
        for index in range(8):
            await store.set("n", f"new {index}", b"value", 60)
            left.append(sum([entry.state == "expired" async for entry in store.scan()]))
        return left

    assert with_store(path, main, now=lambda: now) == [84, 68, 52, 36, 20, 4, 0, 0]


def test_a_lease_ends_by_itself(path):
    now = 0.0

    async def main(store):
        nonlocal now
        first = await store.acquire("n", "key", 10)
        now = 9.9
        assert await store.acquire("n", "key", 10) is None
        now = 10.0
        second = await store.acquire("n", "key", 10)
        assert second not in (None, first)
        await store.release("n", "key", first)
        assert await store.acquire("n", "key", 10) is None
        await store.acquire("n", "of the dead", 10)
        now = 100.0
        await store.release("n", "another", "token")
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT count(*) FROM leases").fetchone() == (0,)

    with_store(path, main, now=lambda: now)


# --- Its ceiling ---


@pytest.mark.parametrize("length", [0, 500, 3000, 20_000, 250_000])
def test_the_file_stays_under_its_ceiling_and_keeps_what_is_newest(path, length):
    """In bytes of the disk: what SQLite loses between entries is counted as well."""

    async def main(store):
        count = min(10 * MIB // (length + 1000), 5000)
        for index in range(count):
            await store.set("n", f"{index:064x}", bytes(length), 3600)
        assert await store.get("n", f"{count - 1:064x}") == bytes(length)
        kept = [entry async for entry in store.scan()]
        assert [entry.key for entry in kept] == [f"{index:064x}" for index in range(count - len(kept), count)]
        assert sum(len(entry.value) + 200 for entry in kept) > 0.4 * MIB

    with_store(path, main, max_bytes=MIB)
    assert path.stat().st_size <= 1.1 * MIB + 2 * length


def test_what_is_read_stays(path):
    now = 0.0

    async def main(store):
        nonlocal now
        for index in range(400):
            now += 1
            await store.set("n", str(index), bytes(10_000), 3600)
            assert await store.get("n", "0") is not None
        assert await store.get("n", "1") is None

    with_store(path, main, max_bytes=MIB, now=lambda: now)


@pytest.mark.parametrize("hits", [1, 300])
def test_reading_is_remembered_in_the_next_process(path, hits):
    """Not at each hit, which would make a write of each read; at the latest when the file is closed."""
    now = 0.0

    def clock():
        nonlocal now
        now += 1
        return now

    async def write(store):
        for index in range(10):
            await store.set("n", str(index), b"value", 3600)

    async def read(store):
        for _ in range(hits):
            await store.get("n", "0")

    with_store(path, write, now=clock)
    with_store(path, read, now=clock)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT key FROM entries ORDER BY used DESC").fetchone() == ("0",)


def test_many_hits_are_written_before_the_file_is_closed(path):
    now = 0.0

    async def main(store):
        nonlocal now
        for index in range(256):
            await store.set("n", str(index), b"value", 3600)
        now = 100.0
        for index in range(256):
            await store.get("n", str(index))
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT min(used) FROM entries").fetchone() == (100.0,)

    with_store(path, main, now=lambda: now)


def test_a_value_too_large_is_not_kept_and_neither_is_what_it_should_replace(path):
    async def main(store):
        await store.set("n", "key", b"old", 60)
        await store.set("n", "other", b"other", 60)
        await store.set("n", "key", bytes(MIB // 4 + 1), 60)
        assert [await store.get("n", "key"), await store.get("n", "other")] == [None, b"other"]

    with_store(path, main, max_bytes=MIB)


def test_compacting_gives_the_space_back(path):
    async def main(store):
        secret = b"what nobody is to find on the disk " * 1000
        for index in range(50):
            await store.set("n", str(index), secret, 3600)
        for index in range(50):
            await store.delete("n", str(index))
        await store.compact()
        files = [*path.parent.iterdir()]
        assert sum(file.stat().st_size for file in files if file.suffix != ".db-shm") < 200_000
        assert not any(secret[:35] in file.read_bytes() for file in files)

    with_store(path, main)


# --- Other processes ---


def test_being_killed_loses_nothing_that_was_stored(path):
    worker = work("write_until_killed", path)
    stored = [line.strip() for line in islice(worker.stdout, 200)]
    worker.kill()
    stored += worker.communicate()[0].split()
    assert len(stored) >= 200

    async def main(store):
        for key in stored:
            assert await store.get("n", key) == key.encode() * 200
        await store.set("n", "after", b"after", 60)

    with_store(path, main)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert corpses(path) == []


def test_processes_that_begin_a_file_at_once_share_it(path):
    workers = [work("write_and_read", path, step) for step in (1, 7, 11)]
    outputs = [finished(worker) for worker in workers]
    assert [errors for _, errors in outputs] == [""] * 3
    assert all(int(found) >= 300 for found, _ in outputs)  # each key is read twice
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("SELECT count(*) FROM entries").fetchone() == (300,)


def test_a_fork_opens_the_file_for_itself(path):
    """As gunicorn does with what is made before its workers are."""
    assert finished(work("fork", path)) == ("b'child'\n", "")


def test_a_file_that_is_deleted_or_moved_is_begun_anew(path):
    async def main(store):
        await store.set("n", "key", b"value", 60)
        path.rename(path.with_name("elsewhere"))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).rename(path.with_name("elsewhere" + suffix))
        assert await store.get("n", "key") is None
        await store.set("n", "key", b"new", 60)
        assert await store.get("n", "key") == b"new"

    with_store(path, main)
    assert path.exists()


# --- What holds it up ---


def test_a_full_disk_is_said_and_what_is_there_stays_readable(path):
    output, errors = finished(work("fill_the_disk", path))
    assert errors == ""
    assert output.startswith("full the store in answers.db: ")


@pytest.mark.parametrize("place", ["file/answers.db", "missing/answers.db", ""], ids=["a file", "nothing", "a folder"])
def test_where_no_file_can_be(tmp_path, place):
    """Not by modes, which root does not care for."""
    (tmp_path / "file").touch()

    async def main(store):
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.get("n", "key")
            with pytest.raises(StoreUnavailable):
                await store.set("n", "key", b"value", 60)

    with_store(tmp_path / place, main)


def test_a_locked_file_can_be_read_and_writing_fails_soon(path):
    async def main(store):
        await store.set("n", "key", b"value", 60)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match=r"^the store in answers\.db: database is locked$"):
                await store.set("n", "key", b"new", 60)
            with pytest.raises(
                StoreUnavailable, match=r"^writing to the store in answers\.db has just failed; it is left"
            ):
                await store.set("n", "key", b"new", 60)
            assert await store.get("n", "key") == b"value"
            other.execute("ROLLBACK")
        await asyncio.sleep(0.3)
        await store.set("n", "key", b"new", 60)
        assert await store.get("n", "key") == b"new"

    with_store(path, main)


def test_of_a_thousand_that_would_wait_for_a_lock_one_does(path):
    """Each waits for 50 ms, and they stand in a queue, with the readers behind them."""

    async def main(store):
        await store.set("n", "key", b"value", 60)
        loop = asyncio.get_running_loop()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = loop.time()
            writers = [asyncio.ensure_future(store.set("n", str(index), b"", 60)) for index in range(1000)]
            reader = asyncio.ensure_future(store.get("n", "key"))
            turns = 0
            while not reader.done():
                await asyncio.sleep(0)
                turns += 1
            assert loop.time() - began < 5  # and not 50
            results = await asyncio.gather(*writers, return_exceptions=True)
        assert turns > 50  # the loop was free meanwhile
        assert {type(result) for result in results} == {StoreUnavailable}
        assert [str(result) for result in results].count("the store in answers.db: database is locked") == 1
        assert await reader == b"value"
        await store.close()

    asyncio.run(main(SQLiteStore(path)))


def test_a_lock_does_not_keep_a_hit_from_its_caller(path, caplog):
    """That the file is to be told what was used is no reason to wait or to fail."""

    async def main(store):
        for index in range(256):
            await store.set("n", str(index), b"value", 60)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert [await store.get("n", str(index)) for index in range(256)] == [b"value"] * 256

    with caplog.at_level(logging.DEBUG, "overcoat"):
        with_store(path, main)
    assert "the store in answers.db does not know what was used last: database is locked" in caplog.text


def test_a_reader_that_keeps_the_file_from_having_a_log_is_no_hindrance(path):
    """As two processes that begin a file together are to each other."""

    async def write(store):
        await store.set("n", "key", b"value", 60)

    with_store(path, write)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN")
        other.execute("SELECT * FROM entries").fetchone()
        assert with_store(path, lambda store: store.get("n", "key")) == b"value"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE theirs (x)", "it is the database of another program"),
        ("PRAGMA application_id = 1; CREATE TABLE theirs (x)", "it is the database of another program"),
        ("PRAGMA application_id = 1870029665; PRAGMA user_version = 2; CREATE TABLE x (x)", "of another version"),
    ],
)
def test_other_databases_are_left_alone(path, statement, said):
    with closing(sqlite3.connect(path)) as file:
        file.executescript(statement)
    before = path.read_bytes()

    async def main(store):
        with pytest.raises(StoreUnavailable, match=said):
            await store.get("n", "key")
        with pytest.raises(StoreUnavailable):
            await store.set("n", "key", b"value", 60)

    with_store(path, main)
    assert path.read_bytes() == before
    assert corpses(path) == []


# --- Corruption ---


def filled(path):
    """A file with 50 answers; return what was stored, by key."""
    values = {
        f"{index:064x}": pack(
            f"The answer is {index}. " * 20, key=f"{index:064x}", created=0, fresh_until=1,
            fields={}, usage=None, cost=Decimal(index), span=None,
        )
        for index in range(50)
    }  # fmt: skip

    async def main(store):
        for key, value in values.items():
            await store.set("n", key, value, 1e9)

    with_store(path, main)
    return values


@pytest.mark.parametrize("damage", ["no database at all " * 1000, "SQLite format 3\0" + "x" * 10_000, "short"])
def test_a_file_that_is_none_is_put_aside_and_a_new_one_begun(path, caplog, damage):
    filled(path)
    path.write_text(damage)

    async def main(store):
        assert await store.get("n", f"{0:064x}") is None
        await store.set("n", "key", b"value", 60)
        assert await store.get("n", "key") == b"value"
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT key FROM entries").fetchall() == [("key",)]

    with_store(path, main, now=lambda: 1e9)
    assert corpses(path) == ["answers.db.corrupt-1000000000"]
    assert path.with_name("answers.db.corrupt-1000000000").read_text() == damage
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "is corrupt (file is not a database)" in said[0].getMessage()


def test_what_another_process_has_put_aside_is_not_put_aside_again(path):
    filled(path)

    async def main(one):
        other = SQLiteStore(path)
        for store in (one, other):
            assert await store.get("n", f"{0:064x}") is not None
        content = path.read_bytes()
        path.write_bytes(content[:100] + bytes(len(content) - 100))
        for store in (one, other, one, other):
            await store.set("n", "key", b"value", 60)
            assert await store.get("n", "key") == b"value"
        await other.close()

    with_store(path, main)
    assert len([name for name in corpses(path) if not name.endswith(("-wal", "-shm"))]) == 1


def test_a_file_that_another_process_has_begun_meanwhile_is_not_put_aside(path):
    """Both find the damage; the slower one must not take the new file for the old one."""
    filled(path)

    async def main(store):
        await store.get("n", "key")
        path.rename(path.with_name("put aside by another"))
        path.write_bytes(b"the new one")
        store._quarantine(sqlite3.DatabaseError())
        assert path.read_bytes() == b"the new one"

    with_store(path, main)
    assert corpses(path) == []


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_a_miss_and_never_another_answer(path, seed):
    """SQLite has no checksums, so that it may return what was never stored: the envelope finds that."""
    values = filled(path)
    chance = random.Random(seed)  # noqa: S311 - for reproducible damage
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 10, 1000])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)

    async def main(store):
        for key, value in values.items():
            try:
                stored = await store.get("n", key)
            except StoreUnavailable:
                continue
            answer = None if stored is None else unpack(stored, key)
            assert not isinstance(answer, Answer) or answer == unpack(value, key)
            try:
                await store.set("n", key, value, 60)
                again = await store.get("n", key)
            except StoreUnavailable:
                await asyncio.sleep(60)
            else:
                assert again in (value, None)

    with_store(path, main)
