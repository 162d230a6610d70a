"""`Policy.watch`: files that change under clients in use, in virtual time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import (
    Cache,
    CircuitOpen,
    Fallback,
    LLMEvent,
    LLMStatusError,
    PolicyError,
    RateLimited,
    Trace,
    UnknownPrice,
    capture,
    explain,
    stack,
)
from overcoat.layers.rate_limit import Limiter
from overcoat.policy import Policy, PolicyWatch, watching, wrap
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, VirtualTimeLoop, run

CONVERSATION = [{"role": "user", "content": "hello"}]
DOWN = LLMStatusError("down", 503)
LONG_AGO = 10**18  # nanoseconds: 2001, so that a file has been left alone for long enough
SECOND = 10**9


class Changing:
    """A policy file whose changes can be told apart, however soon they come one after the other."""

    def __init__(self, folder):
        self.path = folder / "policy.yaml"
        self._written = LONG_AGO

    def write(self, text, *, version=True):
        """Write in place."""
        self.path.write_text(f"version: 1\n{text}" if version else text)
        self.age()

    def age(self):
        self._written += SECOND
        os.utime(self.path, ns=(self._written, self._written))


@pytest.fixture
def file(tmp_path):
    file = Changing(tmp_path)
    file.write("policies: {default: {deadline: 60s}}\n")
    return file


async def ask(client, **arguments):
    with capture() as calls:
        await client.call(CONVERSATION, None, LLMEvent([], "test"), **arguments)
    return calls[0]


async def look(client):
    """Have a call look at the file, and let what it finds take effect."""
    await asyncio.sleep(1)
    call = await ask(client)
    await asyncio.sleep(0.001)  # which is not over before the thread is done
    return call


def deadline_of(client):
    return client.explain().worst.seconds.value


def test_a_change_holds_without_a_restart(file):
    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch(file.path))
        before = await ask(client)
        file.write("policies: {default: {deadline: 5s}}\n")
        assert (await look(client)).policy == before.policy  # nobody waits for the file
        after = await ask(client)
        assert after.policy.name == "default"
        assert after.policy.digest == Policy.load(file.path).for_model("scripted").digest != before.policy.digest
        assert deadline_of(client) == 5

    run(main())


def test_a_call_in_flight_keeps_its_version(file):
    async def main():
        client = wrap(ScriptedClient(Answer("slow", delay=30), "fast"), Policy.watch(file.path))
        slow = asyncio.create_task(ask(client))
        await asyncio.sleep(1)
        file.write("policies: {default: {deadline: 5s}}\n")
        await look(client)
        fast = await ask(client)
        assert (await slow).outcome == "ok"  # by the new one it would have had 5 s
        assert slow.result().policy != fast.policy

    run(main())


def test_the_file_is_looked_at_once_a_second_at_the_most(file, monkeypatch):
    looked = []
    at = watching._Look.at
    monkeypatch.setattr(watching._Look, "at", lambda path: looked.append(path) or at(path))

    async def main():
        policy = Policy.watch(file.path, every="2s")
        clients = [wrap(ScriptedClient("a"), policy) for _ in range(3)]
        looked.clear()
        for _ in range(8):
            await asyncio.gather(*map(ask, clients))
            await asyncio.sleep(0.5)

    run(main())
    assert looked == [str(file.path)] * 2


def test_no_call_waits_for_the_file(file, monkeypatch):
    """Not even while a disk takes its time; and it is read once, whoever else finds that it has changed."""
    go_on, loads = threading.Event(), []
    load = Policy.load

    def slowly(*arguments, **keywords):
        loads.append(threading.current_thread())
        assert go_on.wait(30)
        return load(*arguments, **keywords)

    async def main():
        policy = Policy.watch(file.path, every=0)
        clients = [wrap(ScriptedClient("a"), policy) for _ in range(2)]
        monkeypatch.setattr(Policy, "load", slowly)
        file.write("policies: {default: {deadline: 5s}}\n")
        asked = [await ask(client) for client in clients * 3]
        assert len({call.policy for call in asked}) == 1
        go_on.set()
        await asyncio.sleep(0.001)
        assert [deadline_of(client) for client in clients] == [5, 5]

    run(main())
    assert len(loads) == 1
    assert loads[0] is not threading.main_thread()


def test_a_file_is_read_when_nobody_writes_it_any_more(file):
    """Half of a policy may be a policy as well."""

    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch(file.path))
        await ask(client)
        for text in ("", "policies: {default: {}}\n", "policies: {default: {deadline: 5s}}\n"):
            file.path.write_text(f"version: 1\n{text}")
            fresh = time.time_ns() + 60 * SECOND + len(text)
            os.utime(file.path, ns=(fresh, fresh))
            await look(client)
            assert deadline_of(client) == 60
        await look(client)
        assert deadline_of(client) == 5

    run(main())


def test_a_file_that_is_put_in_its_place(file, tmp_path):
    """As editors and deployments do it: the new one comes under the old one's name, with the same size and time."""

    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch(file.path))
        other = tmp_path / "new.yaml"
        other.write_text(file.path.read_text().replace("60s", "50s"))
        was = file.path.stat()
        os.utime(other, ns=(was.st_mtime_ns, was.st_mtime_ns))
        other.replace(file.path)
        await look(client)
        assert deadline_of(client) == 50

    run(main())


def test_a_mounted_config_map(file, tmp_path):
    """Kubernetes points a link at another folder."""
    for version, deadline in (("1", "60s"), ("2", "5s")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "overcoat.yaml").write_text(
            f"version: 1\npolicies: {{default: {{deadline: {deadline}}}}}\n"
        )
        os.utime(tmp_path / version / "overcoat.yaml", ns=(LONG_AGO, LONG_AGO))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "overcoat.yaml").symlink_to("..data/overcoat.yaml")

    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch(tmp_path / "overcoat.yaml"))
        await ask(client)
        (tmp_path / "..tmp").symlink_to("2")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        await look(client)
        assert deadline_of(client) == 5

    run(main())


# Files that must not hold


def absent(file):
    file.path.unlink()


def folder(file):
    file.path.unlink()
    file.path.mkdir()


def pipe(file):
    file.path.unlink()
    os.mkfifo(file.path)


def dangling(file):
    file.path.unlink()
    file.path.symlink_to("nowhere.yaml")


def written(text):
    def write(file):
        file.write(text, version=False)

    return write


BROKEN = {
    "absent": (absent, "No such file"),
    "folder": (folder, "Is a directory"),
    "pipe": (pipe, "it is no regular file"),
    "dangling": (dangling, "No such file"),
    "empty": (written(""), "version"),
    "truncated": (written("version: 1\npolicies: {default: {dead"), "expected ',' or '}'"),
    "misspelt": (written("version: 1\npolicies: {default: {deadlin: 5s}}\n"), "did you mean 'deadline'?"),
    "no_text": (lambda file: file.path.write_bytes(b"\xff\xfe\x00"), "not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_last_good_one_goes_on(name, file, caplog):
    """It is said once, with the places; what comes after it holds all the same."""
    break_it, message = BROKEN[name]
    caplog.set_level(logging.ERROR, "overcoat")

    async def main():
        policy = Policy.watch(file.path)
        client = wrap(ScriptedClient("a"), policy)
        before = await ask(client)
        break_it(file)
        for _ in range(4):
            await look(client)
        assert (await ask(client)).policy == before.policy
        assert message in str(policy.rejected)
        if file.path.is_dir():
            file.path.rmdir()
        else:
            file.path.unlink(missing_ok=True)
        file.write("policies: {default: {deadline: 5s}}\n")
        for _ in range(2):
            await look(client)
        assert deadline_of(client) == 5
        assert policy.rejected is None

    run(main())
    (line,) = caplog.messages
    assert f"{file.path} is rejected, and the last good one goes on: {file.path}" in line
    assert message in line
    assert "\n" not in line


def test_what_became_of_a_change_is_on_the_next_call(file):
    """On its record, its span and the counter, and on one call only, whichever client makes it."""
    telemetry = InMemoryTelemetry()

    async def main():
        providers = {"tracer_provider": telemetry.tracer_provider, "meter_provider": telemetry.meter_provider}
        policy = Policy.watch(file.path)
        clients = [wrap(ScriptedClient("a"), policy, trace=providers) for _ in range(2)]
        told = []
        for text in ("deadline: 5s", "deadlin: 4s", "deadlin: 4s", "dedline: 3s", "deadline: 5s", "deadline: 2s"):
            file.write(f"policies: {{default: {{{text}}}}}\n")
            await look(clients[0])
            told += [(await ask(client)).reloads for client in clients[::-1]]
        return told

    told = run(main())
    first, last = ("applied",), ("rejected",)
    # What is as wrong as before is no news; that what was wrong is mended is.
    assert told == [first, (), last, (), (), (), last, (), first, (), first, ()]
    spans = [span.attributes.get("overcoat.policy.reload.result") for span in telemetry.named("overcoat.call")]
    assert [result for result in spans if result] == ["applied", "rejected", "rejected", "applied", "applied"]
    assert telemetry.points("overcoat.policy.reloads") == {
        frozenset({("overcoat.policy.reload.result", "applied")}): 3,
        frozenset({("overcoat.policy.reload.result", "rejected")}): 2,
    }


def test_a_file_that_was_only_touched_is_no_change(file):
    async def main():
        policy = Policy.watch(file.path)
        client = wrap(ScriptedClient("a"), policy)
        version = policy.policy
        file.age()
        await look(client)
        assert (await ask(client)).reloads == ()
        assert policy.policy is version

    run(main())


def test_the_environment_lies_over_every_version(file):
    async def main():
        environment = {"OVERCOAT_POLICIES__DEFAULT__DEADLINE": "7s"}
        client = wrap(ScriptedClient("a"), Policy.watch(file.path, environment=environment))
        file.write("policies: {default: {deadline: 5s, hedge: {after: 1s}}}\n")
        await look(client)
        assert [type(layer).__name__ for layer in client.layers] == ["Trace", "Deadline", "Hedge", "Meter"]
        assert deadline_of(client) == 7

    run(main())


def test_the_file_that_the_environment_names(file, monkeypatch):
    monkeypatch.setenv("OVERCOAT_CONFIG", str(file.path))

    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch())
        file.write("policies: {default: {deadline: 5s}}\n")
        await look(client)
        assert deadline_of(client) == 5

    run(main())


def test_a_file_that_makes_no_sense_at_first_is_an_error(file):
    file.write("policies: {default: {deadlin: 5s}}\n")
    with pytest.raises(PolicyError, match="did you mean 'deadline'"):
        Policy.watch(file.path)
    with pytest.raises(PolicyError, match="name one, or set OVERCOAT_CONFIG"):
        Policy.watch()
    with pytest.raises(ValueError, match=r"Policy\.watch\(every=\.\.\.\)"):
        Policy.watch(file.path, every=-1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("enforce: {max: {deadline: 10s}}\npolicies: {default: {deadline: 5s}}", "code: deadline: 20s is more than"),
        ("policies: {fast: {}}\nmodels: [{match: other, policy: fast}]", "no rule matches 'scripted'"),
    ],
)
def test_a_version_that_does_not_go_with_code_holds_for_nobody(text, message, file):
    """Also not for the client that it would go with: there is one version at a time."""

    async def main():
        policy = Policy.watch(file.path)
        strict, other = (
            wrap(ScriptedClient("a"), policy, deadline="20s"),
            wrap(ScriptedClient("b", model_name="other"), policy),
        )
        before = [(await ask(client)).policy for client in (strict, other)]
        file.write(f"{text}\n")
        await look(other)
        assert [(await ask(client)).policy for client in (strict, other)] == before
        assert message in str(policy.rejected)

    run(main())


def test_a_client_that_cannot_be_made_is_no_reason_to_fail(file, caplog):
    def client_for(name):
        raise ImportError("pip install it")

    async def main():
        policy = Policy.watch(file.path)
        client = wrap(ScriptedClient("a"), policy, client_for=client_for)
        file.write("fallbacks: [{from: '*', to: [b]}]\n")
        await look(client)
        assert (await ask(client)).reloads == ("rejected",)
        with pytest.raises(ImportError):
            await policy.reload()

    run(main())
    assert "pip install it" in caplog.text


# What an application can do by itself


def test_reload_waits_until_it_holds(file):
    async def main():
        policy = Policy.watch(file.path, every="1h")
        client = wrap(ScriptedClient("a"), policy)
        file.write("policies: {default: {deadline: 5s}}\n")
        await policy.reload()
        assert deadline_of(client) == 5
        file.write("policies: {default: {deadlin: 5s}}\n")
        with pytest.raises(PolicyError, match="did you mean 'deadline'"):
            await policy.reload()
        assert deadline_of(client) == 5
        assert (await ask(client)).reloads == ("applied", "rejected")

    run(main())


def test_check_now_is_for_signals(file):
    async def main():
        policy = Policy.watch(file.path, every="1h")
        client = wrap(ScriptedClient("a"), policy)
        await ask(client)
        file.write("policies: {default: {deadline: 5s}}\n")
        await look(client)
        assert deadline_of(client) == 60
        policy.check_now()
        await look(client)
        assert deadline_of(client) == 5

    run(main())


# What survives


def test_an_open_circuit_stays_open_when_its_settings_change(file):
    async def main():
        file.write("policies: {default: {breaker: b}}\nbreakers: {b: {min_calls: 2, open_for: 100s}}\n")
        broken = ScriptedClient(DOWN)
        client = wrap(broken, Policy.watch(file.path))
        for _ in range(2):
            with pytest.raises(LLMStatusError):
                await ask(client)
        file.write("policies: {default: {breaker: b}}\nbreakers: {b: {min_calls: 5, open_for: 1s}}\n")
        for _ in range(3):
            await asyncio.sleep(1)
            with pytest.raises(CircuitOpen):
                await ask(client)
        assert client.layers[1].min_calls == 5
        await asyncio.sleep(100)
        with pytest.raises(LLMStatusError):  # a probe; it opens again, by the new settings
            await ask(client)
        await asyncio.sleep(1)
        with pytest.raises(LLMStatusError):
            await ask(client)

    run(main())


def test_what_was_sent_counts_towards_a_new_limit(file):
    """And who is under way has a place among those that may be at once."""

    async def main():
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 9, max_wait: 0s}}\n")
        client = wrap(ScriptedClient("a", "b", Answer("slow", delay=30), "c"), Policy.watch(file.path))
        await ask(client)
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 4, concurrency: 1, max_wait: 0s}}\n")
        await look(client)
        slow = asyncio.create_task(ask(client))
        await asyncio.sleep(1)
        with pytest.raises(RateLimited):  # one at once
            await ask(client)
        await slow
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 3, max_wait: 0s}}\n")
        await look(client)  # the fourth of four
        with pytest.raises(RateLimited):  # the fifth of three
            await ask(client)
        await asyncio.sleep(60)
        await ask(client)

    run(main())


def test_a_version_that_does_not_hold_changes_no_limit(file):
    """Though its limit had been stacked already when something inside it could not be."""

    async def main():
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 2, max_wait: 0s}}\n")
        policy = Policy.watch(file.path)
        client = wrap(ScriptedClient("a", model_name="unknown"), policy)
        for requests in (9, 1):
            file.write(
                f"policies: {{default: {{limit: l}}}}\nlimits: {{l: {{requests: {requests}, max_wait: 0s}}}}\n"
                "meter: {on_unknown_price: raise}\n"
            )
            with pytest.raises(UnknownPrice):
                await policy.reload()
            await ask(client)
        with pytest.raises(RateLimited):
            await ask(client)

    run(main())


def test_who_waits_gets_what_a_new_limit_gives(file):
    async def main():
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 1, max_wait: 70s}}\n")
        policy = Policy.watch(file.path)
        client = wrap(ScriptedClient("a"), policy)
        await ask(client)
        waiting = asyncio.create_task(client.call(CONVERSATION, None, LLMEvent([], "test")))
        await asyncio.sleep(20)
        file.write("policies: {default: {limit: l}}\nlimits: {l: {requests: 5, max_wait: 70s}}\n")
        await policy.reload()
        assert await asyncio.wait_for(waiting, 1) == "a"

    run(main())


def test_what_was_retried_counts_towards_a_new_budget(file):
    budget = "policies: {{default: {{retry: {{max_attempts: 9, backoff: {{base: 0s}}}}, budget: b}}}}\n"

    async def main():
        file.write(budget.format() + "budgets: {b: {ratio: 0, min_per_second: 3, window: 1s, per: model}}\n")
        broken = ScriptedClient(DOWN)
        policy = Policy.watch(file.path)
        client = wrap(broken, policy)
        with pytest.raises(LLMStatusError):
            await ask(client)
        assert len(broken.calls) == 4
        file.write(budget.format() + "budgets: {b: {ratio: 0, min_per_second: 5, window: 1s, per: model}}\n")
        await policy.reload()
        with pytest.raises(LLMStatusError):
            await ask(client)
        assert len(broken.calls) == 4 + 1 + 2

    run(main())


def test_two_names_are_two_states(file):
    """Though their settings are the same; in another file, the same name is another's as well."""

    def limiter(client):
        return next(each.function.limiter for each in client.bound if hasattr(each.function, "limiter"))

    file.write(
        "policies: {default: {limit: a}, other: {limit: b}}\nlimits: {a: {requests: 1}, b: {requests: 1}}\n"
        "models: [{match: other, policy: other}]\n"
    )
    policy = Policy.load(file.path)
    copy = file.path.with_name("copy.yaml")
    copy.write_text(file.path.read_text())
    states = [
        limiter(wrap(ScriptedClient("x"), policy)),
        limiter(wrap(ScriptedClient("x"), Policy.load(os.path.relpath(file.path)))),
        limiter(wrap(ScriptedClient("x", model_name="other"), policy)),
        limiter(wrap(ScriptedClient("x"), copy)),
        limiter(wrap(ScriptedClient("x"), policy, limit={"requests": 2})),
    ]
    assert all(isinstance(each, Limiter) for each in states)
    assert states[0] is states[1]
    assert len(set(states)) == 4


def test_what_is_cached_stays_when_something_else_changes(file):
    async def main():
        file.write("cache: {ttl: 1h}\n")
        client = wrap(ScriptedClient("a", then="raise"), Policy.watch(file.path))
        await ask(client)
        file.write("cache: {ttl: 1h}\npolicies: {default: {deadline: 5s}}\n")
        await look(client)
        call = await ask(client)
        assert (call.cache.result, call.reloads) == ("hit", ("applied",))

    run(main())


def test_clients_of_fallbacks_are_made_once(file):
    made = []

    def client_for(name):
        made.append(name)
        return ScriptedClient(name, model_name=name)

    async def main():
        file.write("fallbacks: [{from: scripted, to: [b]}]\n")
        client = wrap(ScriptedClient(DOWN), Policy.watch(file.path), client_for=client_for)
        for text in ("fallbacks: [{from: scripted, to: [c, b]}]\n", "fallbacks: [{from: scripted, to: [b, c]}]\n"):
            file.write(text)
            await look(client)
        assert await client.call(CONVERSATION, None, LLMEvent([], "test")) == "b"

    run(main())
    assert made == ["b", "c"]


# Loops, threads and clients that come and go


def test_nothing_outlives_a_loop(file):
    """Neither a thread nor the loop itself, and the next one, whose clock begins anew, goes on watching."""
    policy = Policy.watch(file.path)
    client = wrap(ScriptedClient("a"), policy)
    threads = set(threading.enumerate())
    loops = []

    async def main(deadline):
        loops.append(weakref.ref(asyncio.get_running_loop()))
        file.write(f"policies: {{default: {{deadline: {deadline}s}}}}\n")
        await asyncio.sleep(1000 / deadline)
        await ask(client)

    for deadline in (5, 50):
        run(main(deadline))  # it ends while the file is being read
        assert deadline_of(client) == deadline
    assert set(threading.enumerate()) == threads
    gc.collect()
    assert [loop() for loop in loops] == [None, None]


def test_a_loop_that_takes_no_more_work(file, caplog):
    async def main():
        client = wrap(ScriptedClient("a"), Policy.watch(file.path))
        file.write("policies: {default: {deadline: 5s}}\n")
        await asyncio.get_running_loop().shutdown_default_executor()
        return await ask(client)

    assert run(main()).outcome == "ok"
    assert "is not read again: there is no thread for it" in caplog.text


def test_a_loop_that_was_closed_while_the_file_was_read(file):
    """It tells nobody that it is done, and the file is read again by the next one."""
    policy = Policy.watch(file.path)
    client = wrap(ScriptedClient("a"), policy)
    go_on, loop = threading.Event(), VirtualTimeLoop()
    with ThreadPoolExecutor(1) as busy:
        try:
            busy.submit(go_on.wait)
            loop.set_default_executor(busy)
            file.write("policies: {default: {deadline: 5s}}\n")
            loop.run_until_complete(ask(client))
            loop.close()
            run(look(client))
            assert deadline_of(client) == 5
        finally:
            go_on.set()
    assert deadline_of(client) == 5


def test_clients_that_are_made_while_the_file_is_read(file, monkeypatch):
    """They follow, too, and begin with the version that then holds."""
    clients = []

    async def main():
        policy = Policy.watch(file.path)
        clients.append(wrap(ScriptedClient("a"), policy))
        stacked = watching.Following.stacked

        def with_another(client, version):
            made = stacked(client, version)
            if len(clients) == 1:
                clients.append(None)
                clients[1] = wrap(ScriptedClient("b"), policy)
            return made

        monkeypatch.setattr(watching.Following, "stacked", with_another)
        file.write("policies: {default: {deadline: 5s}}\n")
        await policy.reload()

    run(main())
    assert [deadline_of(client) for client in clients] == [5, 5]


def test_a_version_that_comes_while_a_client_is_made(file, monkeypatch):
    policy = Policy.watch(file.path)
    stacked = watching.Following.stacked
    others = iter(["policies: {default: {deadline: 5s}}\n"])

    def meanwhile(client, version):
        for text in others:
            file.write(text)
            policy._reload()
        return stacked(client, version)

    monkeypatch.setattr(watching.Following, "stacked", meanwhile)
    assert deadline_of(wrap(ScriptedClient("a"), policy)) == 5


def test_a_client_that_is_gone_is_not_kept(file):
    policy = Policy.watch(file.path)
    client = weakref.ref(wrap(ScriptedClient("a"), policy))
    gc.collect()
    assert client() is None


# The client that is returned


def test_it_is_like_a_stack(file):
    policy = Policy.watch(file.path)
    client = wrap(ScriptedClient("a", model_name="m"), policy)
    assert isinstance(policy, PolicyWatch)
    assert client.model_name == "m"
    assert repr(client).startswith("stack(<")
    assert client.explain(now=0) == explain(client, now=0)
    with pytest.raises(AttributeError, match="a stack has `call`, `model_name` and `explain`, and no 'cal'"):
        client.cal  # noqa: B018 - the access is the test


def test_nothing_can_be_stacked_around_what_changes(file):
    client = wrap(ScriptedClient("a"), Policy.watch(file.path))
    with pytest.raises(TypeError, match=r"changes with its policy's file.* give these layers to its wrap\(\)"):
        stack(client, Cache())
    with pytest.raises(TypeError, match="or its fallbacks to the file"):
        stack(ScriptedClient("b"), Trace(), Fallback([client]))


# Over any sequence

VERSIONS = st.integers(1, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("valid"), VERSIONS),
        st.tuples(st.just("broken"), VERSIONS),
        st.tuples(st.just("absent"), st.none()),
        st.tuples(st.just("call"), st.sampled_from([0.2, 0.5, 1.0, 3.0])),
    ),
    max_size=25,
)


def policy_text(version):
    """Return a policy that says in two places which version it is."""
    return f"policies: {{default: {{deadline: {version}m, attempt_timeout: {version}s}}}}\n"


def version_of(client):
    deadline, timeout = (layer.after for layer in client.layers if hasattr(layer, "after"))
    assert deadline == 60 * timeout
    return int(timeout)


@given(steps=STEPS)
def test_every_call_is_made_by_the_newest_valid_version_at_the_last_look(tmp_path_factory, steps):
    """By that version as a whole, whatever the file was meanwhile."""
    file = Changing(tmp_path_factory.mktemp("policy"))
    file.write(policy_text(1))
    digests = {}
    for version in (1, 2, 3, 4):
        file.write(policy_text(version))
        digests[version] = Policy.load(file.path, environment={}).for_model("scripted").digest
    file.write(policy_text(1))

    async def main():
        clients = [wrap(ScriptedClient("a"), policy) for policy in [Policy.watch(file.path, environment={})] * 2]
        holds = there = 1  # `there` is None for a file that makes no sense, or is not there
        due = 0.0
        clock = asyncio.get_running_loop().time
        for index, (action, value) in enumerate(steps):
            if action == "valid":
                file.write(policy_text(value))
                there = value
            elif action == "broken":
                file.write(f"policies: {{default: {{deadlin: {value}s}}}}\n")
                there = None
            elif action == "absent":
                file.path.unlink(missing_ok=True)
                there = None
            else:
                client = clients[index % 2]
                call = await ask(client)
                assert call.policy.digest == digests[holds]  # as it was when the call began
                if clock() >= due:
                    due = clock() + 1
                    holds = there or holds
                await asyncio.sleep(value)
                assert [version_of(each) for each in clients] == [holds, holds]

    run(main())
