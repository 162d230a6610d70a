"""Holds `Meter(ledger=...)` to writing every call of a stack, at no call's expense."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overcoat import Backoff, Fallback, LLMEvent, LLMStatusError, Meter, Retry, Trace, capture, stack, tags
from overcoat.ledger import Ledger, LedgerError, total
from overcoat.pricing.rates import Rates, Tier
from overcoat.record import PolicyStamp
from overcoat.testing import Answer, ScriptedClient, run

from .calls import abandon

HELLO = [{"role": "user", "content": "hello, my key is sk-secret"}]
RATES = Rates((Tier(0, Decimal("0.0000000375"), Decimal("0.00000015")),), "test 1")
AT_ONCE = Retry(max_attempts=3, backoff=Backoff(base=0))


def prices(model, now):
    return RATES if model != "mine" else None


def meter(ledger) -> Meter:
    return Meter(prices=prices, ledger=ledger)


def event() -> LLMEvent:
    return LLMEvent(prompt=HELLO, type="test")


def ask(client) -> None:
    with suppress(LLMStatusError):
        run(client.call(HELLO, None, event()))


STEPS = st.one_of(
    st.builds(Answer, st.just("hi"), st.integers(0, 10**6), st.integers(0, 10**6)),
    st.builds(lambda status: LLMStatusError("down", status), st.sampled_from([400, 503])),
)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["m", "mine"]), st.lists(STEPS, min_size=3, max_size=3)), max_size=5))
def test_the_dollars_are_those_of_the_records(scripts):
    """Exactly, as `capture` has them: retried, failed, unpriced and wasted calls included."""
    with Ledger() as ledger, capture() as calls:
        for model, steps in scripts:
            ask(stack(ScriptedClient(*steps, model_name=model), AT_ONCE, meter(ledger)))
        rows = ledger.costs(["model"])
    found = total(rows)
    assert found.calls == len(calls) == len(scripts)
    assert found.attempts == sum(len(call.attempts) for call in calls)
    for column in ("billed", "saved", "wasted"):
        known = [getattr(call.cost, column) for call in calls if getattr(call.cost, column) is not None]
        assert (getattr(found, column) or 0) == sum(known)
    assert found.unpriced == sum(call.cost.billed is None for call in calls)
    usage = calls.usage
    assert (found.input_tokens or 0) == (usage.input_tokens if usage else 0)


def test_what_a_call_was_is_in_its_row(tmp_path):
    path = tmp_path / "costs.db"
    client = stack(
        ScriptedClient(LLMStatusError("sk-secret", 503), Answer("sk-secret", 10, 1), model_name="openai/gpt-4o"),
        Trace(),
        AT_ONCE,
        meter(str(path)),
        policy=PolicyStamp("fast", "abc"),
    )
    with tags(tenant="acme"):
        ask(client)
    with Ledger.shared(path) as ledger:
        (row,) = ledger.costs(["policy", "digest", "outcome", "client", "price_source", "cache", "tag.tenant"])
    assert list(row.by.values()) == ["fast", "abc", "ok", "ScriptedClient", "test 1", None, "acme"]
    assert row.attempts == 2
    assert b"sk-secret" not in path.read_bytes()


def test_a_fallback_is_one_call():
    other = ScriptedClient(Answer("hi", 10, 1), model_name="other")
    client = ScriptedClient(LLMStatusError("down", 503), model_name="m")
    with Ledger() as ledger:
        ask(stack(client, Fallback([other]), meter(ledger)))
        assert {row.by["model"]: (row.calls, row.attempts) for row in ledger.costs(["model"])} == {
            "m": (1, 1),
            "other": (0, 1),
        }


def test_a_call_that_was_cancelled_is_one():
    async def main(client):
        task = asyncio.create_task(client.call(HELLO, None, event()))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with Ledger() as ledger:
        run(main(stack(ScriptedClient(Answer("hi", 1, 1, delay=60), model_name="m"), meter(ledger))))
        assert [row.by["outcome"] for row in ledger.costs(["outcome"])] == ["cancelled"]


def test_the_service_is_the_application_s(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    with Ledger() as ledger, Ledger(service="till") as other:
        for each in (ledger, other):
            ask(stack(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter(each)))
        assert [each.costs(["service"])[0].by["service"] for each in (ledger, other)] == ["shop", "till"]


def test_a_ledger_that_is_away_harms_no_call(tmp_path, caplog):
    (tmp_path / "costs.db").mkdir()
    ledger = Ledger(tmp_path / "costs.db")
    client = stack(ScriptedClient(Answer("hi", 1, 1), model_name="m"), meter(ledger))
    assert run(client.call(HELLO, None, event())) == "hi"
    with pytest.raises(LedgerError):
        ledger.flush()
    assert (ledger.pending, ledger.dropped) == (1, 0)
    abandon(ledger)


class TestShared:
    def test_a_url_is_one_ledger(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        ledger = Ledger.shared("sqlite:///costs.db")
        assert ledger is Ledger.shared(tmp_path / "costs.db")
        assert ledger is meter("costs.db").observer(ScriptedClient("hi"))
        assert ledger is not Ledger.shared("other.db")

    def test_a_ledger_of_one_s_own_is_used_as_it_is(self):
        ledger = Ledger()
        assert meter(ledger).observer(ScriptedClient("hi")) is ledger

    def test_without_one_nothing_is_observed(self):
        assert Meter(prices=prices).observer(ScriptedClient("hi")) is None

    def test_a_mistake_in_the_url_is_told_when_it_is_stacked(self):
        with pytest.raises(LedgerError, match="cannot be kept in mysql"):
            stack(ScriptedClient("hi", model_name="m"), meter("mysql://u:secret@h/d"))


def test_a_meter_does_not_show_the_password():
    assert "secret" not in repr(meter("postgresql://u:secret@h/d"))
