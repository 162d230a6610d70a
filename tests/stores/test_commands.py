"""The command `overcoat cache`: what it prints and removes, its exit codes, and what it keeps to itself."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal

import pytest

from overcoat.accounting import Usage
from overcoat.cli import main
from overcoat.stores.commands import _size
from overcoat.stores.envelope import pack
from overcoat.stores.inspection import findings
from overcoat.stores.sqlite import SQLiteStore

KEYS = [f"{digit * 3}{index:061x}" for index, digit in enumerate("abcd")]
DAY = 86_400.0


def packed(key, now, **changes):
    answer = {
        "text": "The secret answer",
        "key": key,
        "created": now,
        "fresh_until": now + 3600,
        "model": "openai/gpt-4o",
        "fields": {"response_id": "secret id"},
        "usage": Usage(1000, 200, 1200),
        "cost": Decimal("0.0045"),
        "span": (1, 2),
    }
    return pack(**(answer | changes))


@pytest.fixture
def url(tmp_path):
    """A store with an answer that is fresh, one that is stale, one that was invalidated, and one of another version."""
    now = time.time()

    async def fill():
        store = SQLiteStore(tmp_path / "answers.db")
        await store.set("old", KEYS[2], packed(KEYS[2], now - DAY), 10 * DAY)
        await store.invalidate("old")
        await store.set("tenant", KEYS[0], packed(KEYS[0], now), 10 * DAY)
        await store.set("tenant", KEYS[1], packed(KEYS[1], now - 8 * DAY, cost=None, span=None), 10 * DAY)
        await store.set("tenant", KEYS[3], b"oc\x09\0of a later version", 10 * DAY)
        await store.close()

    asyncio.run(fill())
    return f"sqlite:///{tmp_path}/answers.db"


def said(capsys, *arguments, code=0):
    assert main(["cache", *arguments]) == code
    shown = capsys.readouterr()
    assert bool(shown.err) == bool(code)
    return shown.err if code else shown.out


def read(capsys, *arguments):
    return json.loads(said(capsys, *arguments, "--format", "json"))


def test_stats(url, capsys):
    old, tenant = read(capsys, "stats", url)
    conditions = {"fresh": 0, "stale": 0, "expired": 0, "invalidated": 0, "unreadable": 0}
    assert {name: old[name] for name in conditions} == conditions | {"invalidated": 1}
    assert {name: tenant[name] for name in conditions} == conditions | {"fresh": 1, "stale": 1, "unreadable": 1}
    assert (tenant["namespace"], tenant["entries"], tenant["cost"]) == ("tenant", 3, "0.0045")
    assert tenant["reasons"] == {"version": 1}
    assert tenant["bytes"] > 300
    assert tenant["oldest"] < tenant["newest"]


def test_stats_as_a_table(url, capsys):
    lines = said(capsys, "stats", url).splitlines()
    assert lines[0].split() == [
        *("namespace", "entries", "size"),
        *("fresh", "stale", "expired", "invalidated", "unreadable"),
        *("oldest", "newest", "cost"),
    ]
    assert lines[2].split()[:2] == ["tenant", "3"]
    assert lines[2].split()[-1] == "$0.0045"


def test_ls(url, capsys):
    entries = read(capsys, "ls", url)
    assert [entry["key"] for entry in entries] == [KEYS[0], KEYS[2], KEYS[1], KEYS[3]]
    assert entries[0]["usage"] == {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200}
    assert (entries[2]["cost"], entries[3]["reason"]) == (None, "version")
    assert "secret" not in json.dumps(entries)


def test_ls_as_a_table(url, capsys):
    lines = said(capsys, "ls", url).splitlines()
    assert lines[1].split() == [
        KEYS[0][:12], "tenant", "openai/gpt-4o", "fresh", "0", "s", "10", "d", *lines[1].split()[8:10],
        "1000", "+", "200", "$0.0045",
    ]  # fmt: skip
    assert "unreadable: version" in lines[4]
    assert "8 d" in lines[3]


def test_ls_of_some(url, capsys):
    assert len(read(capsys, "ls", url, "--limit", "2")) == 2
    assert said(capsys, "ls", url, "--limit", "2").endswith("the newest 2 of 4 entries\n")
    assert [entry["key"] for entry in read(capsys, "ls", url, "--namespace", "old")] == [KEYS[2]]
    assert said(capsys, "ls", url, "--namespace", "nobody's") == "no entries\n"


def test_show_keeps_the_content_to_itself(url, capsys):
    shown = said(capsys, "show", "aaa", url)
    assert "secret" not in shown
    assert "characters   17" in shown
    assert f"trace_id     {1:032x}" in shown
    assert "secret" not in json.dumps(read(capsys, "show", "aaa", url))


def test_show_prints_the_content_when_asked(url, capsys):
    shown = said(capsys, "show", "aaa", url, "--content")
    assert shown.endswith("\n\nThe secret answer\n")
    assert 'fields       {"response_id": "secret id"}' in shown
    entry = read(capsys, "show", KEYS[0], url, "--content")
    assert (entry["text"], entry["fields"]) == ("The secret answer", {"response_id": "secret id"})


def test_show_what_cannot_be_read(url, capsys):
    assert read(capsys, "show", "ddd", url, "--content")["reason"] == "version"


@pytest.mark.parametrize(
    ("key", "expected"),
    [("e", "overcoat: no entries begin with 'e'\n"), ("", "overcoat: 4 entries begin with ''\n  ")],
)
def test_show_needs_one(url, capsys, key, expected):
    assert said(capsys, "show", key, url, code=1).startswith(expected)


def test_show_of_a_namespace(url, capsys):
    assert read(capsys, "show", "", url, "--namespace", "old")["key"] == KEYS[2]


@pytest.mark.parametrize(
    ("arguments", "removed", "left"),
    [
        (["--all"], 4, set()),
        (["--namespace", "tenant"], 3, {KEYS[2]}),
        (["--older-than", "7d"], 1, {KEYS[0], KEYS[2], KEYS[3]}),
        (["--older-than", "0s"], 3, {KEYS[3]}),
        (["--older-than", "0s", "--namespace", "tenant"], 2, {KEYS[2], KEYS[3]}),
        (["--namespace", "nobody's"], 0, set(KEYS)),
    ],
)
def test_purge(url, tmp_path, capsys, arguments, removed, left):
    assert read(capsys, "purge", url, *arguments) == {"removed": removed}
    assert {entry["key"] for entry in read(capsys, "ls", url)} == left
    assert (b"secret" in (tmp_path / "answers.db").read_bytes()) == bool(left & set(KEYS[:3]))


@pytest.mark.parametrize(("older", "expected"), [("9d", "0 entries removed\n"), ("7d", "1 entry removed\n")])
def test_purge_says_how_many(url, capsys, older, expected):
    assert said(capsys, "purge", url, "--older-than", older) == expected


def test_what_others_are_about_to_set_is_purged_as_well(url, tmp_path, capsys):
    async def before(store):
        assert await store.get("tenant", "slow") is None

    async def after(store):
        await store.set("tenant", "slow", b"of the world before", 60)
        assert await store.get("tenant", "slow") is None
        await store.close()

    store = SQLiteStore(tmp_path / "answers.db")
    asyncio.run(before(store))
    said(capsys, "purge", url, "--namespace", "tenant")
    asyncio.run(after(store))


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "--namespace", "tenant"], ["--all", "--older-than", "7d"], ["--older-than", "7"]]
)
def test_purge_wants_to_know_what(url, capsys, arguments):
    said(capsys, "purge", url, *arguments, code=2)
    assert len(read(capsys, "ls", url)) == 4


@pytest.mark.parametrize("command", [["stats"], ["ls"], ["show", "a"], ["purge", "--all"]])
@pytest.mark.parametrize(
    ("url", "code", "expected"),
    [
        ("answers.db", 2, "no store is called a text without a scheme; expected"),
        ("memory://", 2, "a store in memory is its process's alone"),
        ("sqlite:////nowhere/answers.db", 1, "there is no /nowhere/answers.db"),
        ("redis://u:geheim@127.0.0.1:1/0", 1, "redis://127.0.0.1:1/0: ConnectionError (Error "),
    ],
)
def test_a_store_that_is_none(capsys, command, url, code, expected):
    if url.startswith("redis"):
        pytest.importorskip("redis")
    shown = said(capsys, *command, url, code=code)
    assert shown.startswith(f"overcoat: {expected}")
    assert "geheim" not in shown


def test_redis_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "redis.asyncio.connection", None)
    assert "pip install 'overcoat[redis]'" in said(capsys, "stats", "redis://host/0", code=1)


def test_nothing_that_a_terminal_would_obey_is_printed(tmp_path, capsys):
    """Models and tenants write what is shown here, and rich would take brackets for styles."""
    now, evil = time.time(), "\x1b]0;evil\x07[red]"
    url = f"sqlite:///{tmp_path}/answers.db"

    async def fill():
        store = SQLiteStore(tmp_path / "answers.db")
        value = packed(evil, now, text=f"one\n\ttwo{evil}", model=evil, fields={evil: evil})
        await store.set(evil, evil, value, 60)
        await store.close()

    asyncio.run(fill())
    for command in (["stats"], ["ls"], ["show", ""], ["show", "", "--content"], ["show", "x"]):
        main(["cache", *command, url])
        shown = "".join(capsys.readouterr())
        assert not {"\x1b", "\x07"} & set(shown)
        assert "[red]" in shown or command == ["show", "x"]
    said(capsys, "show", "", url)
    assert "one\n\ttwo" in said(capsys, "show", "", url, "--content")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**41, "2048.0 GiB"),
    ],
)
def test_sizes_are_shown_so_that_they_can_be_read(size, shown):
    assert _size(size) == shown


def test_an_entry_that_expires_after_the_last_year_is_shown(tmp_path, capsys):
    async def fill():
        store = SQLiteStore(tmp_path / "answers.db")
        await store.set("n", "key", packed("key", 0.0, fresh_until=1e300), 1e300)
        found = [each async for each in findings(store, 0.0)]
        await store.close()
        return found

    (found,) = asyncio.run(fill())
    assert found.condition == "fresh"
    assert read(capsys, "show", "key", f"sqlite:///{tmp_path}/answers.db")["fresh_until"] == "1e+300"
    said(capsys, "ls", f"sqlite:///{tmp_path}/answers.db")
