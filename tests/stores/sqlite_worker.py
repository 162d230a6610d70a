"""What the tests of the store in a file run in processes of their own."""

from __future__ import annotations

import asyncio
import os
import resource
import sys

from overcoat.errors import StoreUnavailable
from overcoat.stores import sqlite
from overcoat.testing import run

PATH = sys.argv[2]


def value_of(key: str) -> bytes:
    return key.encode() * 200


async def write_until_killed() -> None:
    """Say which keys are stored, one a line."""
    store, index = sqlite.SQLiteStore(PATH), 0
    while True:
        await store.set("n", str(index), value_of(str(index)), 3600)
        print(index, flush=True)
        index += 1


async def write_and_read() -> None:
    """Share 300 keys with whoever does the same; say how many reads found something."""
    sqlite._PATIENCE = sqlite._FIRST_PATIENCE = 20  # the machine may be slow; what is tested is that nothing breaks
    store, found = sqlite.SQLiteStore(PATH), 0
    for turn in range(600):
        key = str(turn * int(sys.argv[3]) % 300)
        stored = await store.get("n", key)
        assert stored in (None, value_of(key)), stored
        found += stored is not None
        await store.set("n", key, value_of(key), 3600)
    await store.close()
    print(found)


async def fill_the_disk() -> None:
    """Write until there is no room, as `ulimit -f` and quotas have it; then make room."""
    store, index = sqlite.SQLiteStore(PATH), 0
    await store.set("n", "first", b"first", 3600)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
    try:
        while True:
            await store.set("n", str(index), value_of(str(index)), 3600)
            index += 1
    except StoreUnavailable as error:
        print("full", error)
    assert index > 10
    assert await store.get("n", "first") == b"first"
    assert await store.get("n", str(index - 1)) == value_of(str(index - 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await asyncio.sleep(1)  # of virtual time, after which it is tried again
    await store.set("n", "last", b"last", 3600)
    assert await store.get("n", "last") == b"last"
    await store.close()


def fork() -> None:
    """Use a store, and use it again in a child, which has none of its parent's threads."""
    store = sqlite.SQLiteStore(PATH)
    asyncio.run(store.set("n", "parent", b"parent", 3600))
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        print(asyncio.run(store.get("n", "child")))
        asyncio.run(store.close())
    else:
        asyncio.run(store.set("n", "child", b"child", 3600))
        assert asyncio.run(store.get("n", "parent")) == b"parent"
        asyncio.run(store.close())
        os._exit(0)  # as multiprocessing does: the parent's connection is not the child's to close


def die_without_closing() -> None:
    asyncio.run(sqlite.SQLiteStore(PATH).set("n", "key", b"value", 3600))


{
    "write_until_killed": lambda: asyncio.run(write_until_killed()),
    "write_and_read": lambda: asyncio.run(write_and_read()),
    "fill_the_disk": lambda: run(fill_the_disk()),
    "fork": fork,
    "die_without_closing": die_without_closing,
}[sys.argv[1]]()
