"""Holds URLs of stores to naming one, or to an error that says why not and keeps what is secret in them."""

import asyncio
import sys
import traceback

import pytest

from overcoat.errors import PolicyError, StoreUnavailable
from overcoat.stores import open_store
from overcoat.stores.memory import MemoryStore
from overcoat.stores.sqlite import DEFAULT_BYTES, SQLiteStore

HIDDEN = "geheim"


def test_a_store_is_returned_as_it_is():
    store = MemoryStore(1)
    assert open_store(store) is store


@pytest.mark.parametrize(("url", "expected"), [("memory://", 64 * 2**20), ("memory://?max_bytes=1MiB", 2**20)])
def test_memory(url, expected):
    store = open_store(url)
    assert isinstance(store, MemoryStore)
    assert store._max_bytes == expected
    assert open_store(url) is not store


def test_a_relative_file_is_of_the_folder_that_the_process_began_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///my%20answers.db")
    monkeypatch.chdir("/")
    assert isinstance(store, SQLiteStore)
    assert store.path == tmp_path / "my answers.db"
    assert store._max_bytes == DEFAULT_BYTES
    assert not store.path.exists()


def test_an_absolute_file(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/answers.db?max_bytes=2MiB")
    assert isinstance(store, SQLiteStore)
    assert (store.path, store._max_bytes) == (tmp_path / "answers.db", 2**21)


def test_a_process_has_one_store_for_each_url(tmp_path):
    url = f"sqlite:///{tmp_path}/answers.db"
    assert open_store(url) is open_store(url)
    assert open_store(url) is not open_store(f"{url}2")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "no store is called a text without a scheme; expected memory://, sqlite:///FILE, redis://"),
        ("answers.db", "no store is called a text without a scheme; expected"),
        ("postgres://u:geheim@host/db", 'no store is called "postgres://..."; expected memory://, sqlite:///FILE,'),
        ("geheim-and-more://x", "no store is called a text without a scheme; expected"),
        ("memory:", "no store is called a text without a scheme; expected"),
        ("memory://geheim", 'no store is called "memory://..."; expected'),
        ("memory://?max_byte=1", "memory:// takes max_bytes, and not 'max_byte'"),
        ("memory://?max_bytes=lots", "memory://?max_bytes=: 'lots' is no size"),
        ("sqlite://answers.db", "sqlite:// needs a file: sqlite:///relative.db or sqlite:////absolute.db"),
        ("sqlite:///", "sqlite:// needs a file"),
        ("sqlite://", "sqlite:// needs a file"),
        ("sqlite:///:memory:", "sqlite:// needs a file"),
        ("sqlite:///a.db?mode=ro", "sqlite:// takes max_bytes, and not 'mode'"),
        ("sqlite:///a.db?max_bytes=1000", "a store in a file needs at least 1048576 bytes, not 1000"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url, said):
    with pytest.raises(PolicyError) as refused:
        open_store(url)
    assert str(refused.value).startswith(said)
    assert HIDDEN not in "".join(traceback.format_exception(refused.value))


# --- Redis, as far as no server is needed ---

pytest.importorskip("redis")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://u:geheim@host:6379/0", "redis://host:6379/0"),
        ("rediss://:geheim@host/0?ssl_cert_reqs=none", "rediss://host/0"),
        ("redis://host?password=geheim", "redis://host"),
        ("redis://host?password=a@geheim", "redis://..."),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("unix://u:geheim@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_a_redis_store_shows_where_it_is_and_no_secret(url, shown):
    assert repr(open_store(url)) == f"RedisStore('{shown}')"
    assert open_store(url) is open_store(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://u:ge/geheim@host", "redis://... is no URL of a Redis server"),
        ("redis://u:ge?geheim@host", "redis://... is no URL of a Redis server"),
        ("redis://u:ge#geheim@host", "redis://... is no URL of a Redis server"),
        ("redis://:geheim", "redis://... is no URL of a Redis server"),
        ("redis://host:port/0", "redis://... is no URL of a Redis server"),
        ("redis://host?geheim=1", "redis://host has a parameter that redis-py does not know"),
        ("redis://host?socket_timeout=soon", "redis://host is no URL of a Redis server"),
        ("redis://host?decode_responses=1", "redis://host: decode_responses is not for stores to choose"),
        ("redis://host?protocol=3", "redis://host: protocol is not for stores to choose"),
    ],
)
def test_a_wrong_redis_url_says_what_is_wrong_and_keeps_the_secret(url, said):
    with pytest.raises(PolicyError) as refused:
        open_store(url)
    assert str(refused.value) == said
    assert HIDDEN not in "".join(traceback.format_exception(refused.value))


def test_a_failure_keeps_the_secret(caplog):
    store = open_store("redis://geheim:geheim@127.0.0.1:1/0")

    async def main():
        with pytest.raises(StoreUnavailable) as failed:
            await store.get("", "key")
        return failed.value

    assert HIDDEN not in "".join(traceback.format_exception(asyncio.run(main()))) + caplog.text


def test_redis_is_only_needed_for_redis(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(ImportError, match=r"pip install 'overcoat\[redis\]'"):
        open_store("redis://host/0")
