"""The tree of spans in every case that there is, and how one would search for it in Jaeger."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from overcoat import (
    Backoff,
    Breaker,
    Budget,
    Cache,
    Deadline,
    Fallback,
    Hedge,
    LiteLLMOptions,
    LLMEvent,
    LLMStatusError,
    Meter,
    OvercoatError,
    Policy,
    RateLimit,
    Retry,
    Timeout,
    Trace,
    Validate,
    capture,
    stack,
    tags,
    wrap,
)
from overcoat.budgets.memory import MemoryBudgets
from overcoat.testing import Answer, InMemoryTelemetry, ScriptedClient, run

DOWN = LLMStatusError("down", 503)
ANSWER = Answer("42", prompt_tokens=1000, completion_tokens=100)
PRICED = Answer("42", prompt_tokens=1000, completion_tokens=100, cached_tokens=0)
RETRY = Retry(max_attempts=2, backoff=Backoff(base="1s"), random=lambda: 0.5, errors={})
OPTIONS = LiteLLMOptions(max_tokens=200)
MODEL = "openai/gpt-4o-mini"
CHAT = f"chat {MODEL}"
LIVE = {"overcoat.outcome": "ok"}


class Case:
    """One kind of call, and all that was emitted for it and for what it needed before."""

    def __init__(self) -> None:
        self.telemetry = InMemoryTelemetry()
        self.begun = 0

    @property
    def providers(self) -> Trace:
        return Trace(
            tracer_provider=self.telemetry.tracer_provider,
            meter_provider=self.telemetry.meter_provider,
            logger_provider=self.telemetry.logger_provider,
        )

    def stack(self, *steps: Any, layers: Any = (), model: str = MODEL) -> Any:
        return stack(ScriptedClient(*steps, model_name=model), self.providers, *layers)

    async def ask(self, client: Any, text: str = "?", *, json_mode: bool = False) -> None:
        with suppress(LLMStatusError, OvercoatError, TimeoutError):
            await client.call([{"role": "user", "content": text}], OPTIONS, LLMEvent([], "test"), json_mode)
        assert not trace.get_current_span().get_span_context().is_valid

    def tree(self, root: Any) -> list[str]:
        """Return the spans inside *root* as lines, with their error types."""
        spans = sorted(self.telemetry.spans, key=lambda span: (span.start_time, span.end_time))

        def below(span: Any, depth: int) -> Any:
            error = span.attributes.get("error.type")
            yield "  " * depth + span.name + (f" ✗ {error}" if error else "")
            for child in spans:
                if child.parent is not None and child.parent.span_id == span.context.span_id:
                    yield from below(child, depth + 1)

        return list(below(root, 0))


async def success(case: Case) -> None:
    with tags(tenant="acme"):
        await case.ask(case.stack(ANSWER, layers=[Meter()]))


async def retried(case: Case) -> None:
    await case.ask(case.stack(DOWN, ANSWER, layers=[RETRY, Meter()]))


async def failed(case: Case) -> None:
    await case.ask(case.stack(DOWN, DOWN, layers=[RETRY, Meter()]))


async def not_retried(case: Case) -> None:
    await case.ask(case.stack(LLMStatusError("no", 401), layers=[RETRY]))


async def cancelled(case: Case) -> None:
    task = asyncio.ensure_future(case.ask(case.stack(Answer("late", delay=9), layers=[RETRY])))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])


async def timed_out(case: Case) -> None:
    await case.ask(case.stack(Answer("late", delay=9), ANSWER, layers=[RETRY, Timeout("1s"), Meter()]))


async def out_of_time(case: Case) -> None:
    await case.ask(case.stack(Answer("late", delay=9), layers=[Deadline("1s")]))


async def hit(case: Case) -> None:
    client = case.stack(ANSWER, layers=[Cache(), Meter()])
    await case.ask(client)
    await case.ask(client)


async def stale(case: Case) -> None:
    """And asked anew in the background, by a call that is linked to the one in whose wake it is."""
    client = case.stack(ANSWER, ANSWER, layers=[Cache(ttl="1m", jitter=0, stale_while_revalidate="1h"), Meter()])
    await case.ask(client)
    await asyncio.sleep(90)
    await case.ask(client)
    await asyncio.sleep(1)


async def stale_if_error(case: Case) -> None:
    client = case.stack(ANSWER, DOWN, layers=[Cache(ttl="1m", jitter=0, stale_if_error="1h"), Meter()])
    await case.ask(client)
    await asyncio.sleep(90)
    await case.ask(client)


async def coalesced(case: Case) -> None:
    client = case.stack(Answer("42", 1000, 100, delay=1), layers=[Cache(), Meter()])
    await asyncio.gather(case.ask(client), case.ask(client))


async def asked_again(case: Case) -> None:
    await case.ask(
        case.stack(Answer("Sure!", 10, 2), Answer("{}", 10, 2), layers=[Validate(), Meter()]), json_mode=True
    )


async def fell_back(case: Case) -> None:
    other = ScriptedClient(ANSWER, model_name="anthropic/claude-3-5-haiku-latest")
    await case.ask(case.stack(DOWN, layers=[Fallback(to=[other]), Meter()]))


async def hedged(case: Case) -> None:
    await case.ask(case.stack(Answer("late", delay=9), ANSWER, layers=[Hedge(after="1s"), Meter()]))


async def circuit_opened(case: Case) -> None:
    client = case.stack(DOWN, DOWN, layers=[Breaker(min_calls=2)])
    await case.ask(client)
    await case.ask(client)


async def circuit_open(case: Case) -> None:
    client = case.stack(DOWN, DOWN, layers=[Breaker(min_calls=2)])
    for _ in range(3):
        await case.ask(client)


async def rate_limited(case: Case) -> None:
    client = case.stack(Answer("1", 10, 1, delay=1), Answer("2", 10, 1), layers=[RateLimit(concurrency=1), Meter()])
    await asyncio.gather(case.ask(client), case.ask(client))


async def turned_away(case: Case) -> None:
    client = case.stack(Answer("1", delay=9), layers=[RateLimit(concurrency=1, max_wait="1s")])
    first = asyncio.ensure_future(case.ask(client))
    await asyncio.sleep(1)
    await case.ask(client)
    await first


async def over_budget(case: Case) -> None:
    client = case.stack(PRICED, layers=[Budget(usd=0.00025, name="pocket"), Meter()])
    await case.ask(client)
    await case.ask(client)


async def waited_for_budget(case: Case) -> None:
    store = MemoryBudgets(lambda: 1.8e9 + asyncio.get_running_loop().time())
    budget = Budget(usd=0.00025, window="1m", name="pocket", on_limit="wait", max_wait="1h", store=store)
    client = case.stack(PRICED, PRICED, layers=[budget, Meter()])
    await case.ask(client)
    await case.ask(client)


CASES: dict[Any, tuple[list[str], dict[str, Any]]] = {
    success: (["overcoat.call", f"  {CHAT}"], {**LIVE, "overcoat.tag.tenant": "acme", "overcoat.cost.tier": "low"}),
    retried: (
        ["overcoat.call", f"  {CHAT}", "    attempt ✗ overloaded", "    backoff", "    attempt"],
        {**LIVE, "overcoat.retried": True, "overcoat.attempts": 2},
    ),
    failed: (
        [
            "overcoat.call ✗ overloaded",
            f"  {CHAT} ✗ overloaded",
            "    attempt ✗ overloaded",
            "    backoff",
            "    attempt ✗ overloaded",
        ],
        {"overcoat.outcome": "error", "error.type": "overloaded", "overcoat.gave_up": "attempts"},
    ),
    not_retried: (
        ["overcoat.call ✗ auth", f"  {CHAT} ✗ auth", "    attempt ✗ auth"],
        {"overcoat.outcome": "error", "error.type": "auth", "overcoat.gave_up": "non_retryable"},
    ),
    cancelled: (
        ["overcoat.call ✗ cancelled", f"  {CHAT} ✗ cancelled", "    attempt ✗ cancelled"],
        {"overcoat.outcome": "cancelled"},
    ),
    timed_out: (
        ["overcoat.call", f"  {CHAT}", "    attempt ✗ timeout", "    backoff", "    attempt"],
        {**LIVE, "overcoat.retried": True},
    ),
    out_of_time: (
        ["overcoat.call ✗ deadline_exceeded", f"  {CHAT} ✗ deadline_exceeded", "    attempt ✗ deadline_exceeded"],
        {"overcoat.outcome": "error", "error.type": "deadline_exceeded"},
    ),
    hit: (
        ["overcoat.call", "  cache.get"],
        {**LIVE, "overcoat.cache.result": "hit", "overcoat.attempts": 0, "overcoat.cost.usd": 0.0},
    ),
    stale: (
        ["overcoat.call", "  cache.get"],
        {**LIVE, "overcoat.cache.result": "stale", "overcoat.cache.reason": "while_revalidate"},
    ),
    stale_if_error: (
        ["overcoat.call", f"  {CHAT} ✗ overloaded", "    attempt ✗ overloaded", "  cache.get"],
        {**LIVE, "overcoat.cache.result": "stale", "overcoat.cache.reason": "if_error"},
    ),
    coalesced: (["overcoat.call", "  cache.get"], {**LIVE, "overcoat.cache.result": "coalesced"}),
    asked_again: (["overcoat.call", f"  {CHAT}", f"  {CHAT}"], {**LIVE, "overcoat.attempts": 2}),
    fell_back: (
        [
            "overcoat.call",
            f"  {CHAT} ✗ overloaded",
            "    attempt ✗ overloaded",
            "  chat anthropic/claude-3-5-haiku-latest",
        ],
        {**LIVE, "overcoat.attempts": 2},
    ),
    hedged: (
        ["overcoat.call", f"  {CHAT} ✗ cancelled", "    attempt ✗ cancelled", f"  {CHAT}"],
        {**LIVE, "overcoat.attempts": 2},
    ),
    circuit_opened: (
        ["overcoat.call ✗ overloaded", f"  {CHAT} ✗ overloaded", "    attempt ✗ overloaded"],
        {"overcoat.breaker.circuit": "openai/gpt-4o-mini", "overcoat.breaker.state": "open"},
    ),
    circuit_open: (
        ["overcoat.call ✗ breaker_open", f"  {CHAT} ✗ breaker_open"],
        {"overcoat.outcome": "refused", "error.type": "breaker_open"},
    ),
    rate_limited: (["overcoat.call", f"  {CHAT}", "    rate_limit.wait"], {**LIVE, "overcoat.attempts": 1}),
    turned_away: (
        ["overcoat.call ✗ limit_reached", f"  {CHAT} ✗ limit_reached", "    rate_limit.wait"],
        {"overcoat.outcome": "refused", "error.type": "limit_reached"},
    ),
    over_budget: (
        ["overcoat.call ✗ budget_exceeded"],
        {
            "overcoat.outcome": "refused",
            "error.type": "budget_exceeded",
            "overcoat.budget.name": "pocket",
            "overcoat.budget.result": "refused",
            "overcoat.budget.reason": "limit",
        },
    ),
    waited_for_budget: (
        ["overcoat.call", "  budget.wait", f"  {CHAT}"],
        {**LIVE, "overcoat.budget.name": "pocket"},
    ),
}


@pytest.fixture(params=CASES, ids=lambda case: case.__name__)
def performed(request, monkeypatch):
    """A case that is over, the calls of the application, and what is expected of the last of them to begin."""
    clock = SimpleNamespace(time=lambda: 1.8e9 + asyncio.get_running_loop().time())
    monkeypatch.setattr("overcoat.client.time", clock)  # stored answers age by the calendar's clock
    case = Case()
    case.telemetry.tracer_provider.add_span_processor(
        SimpleNamespace(
            on_start=lambda span, parent_context=None: setattr(case, "begun", case.begun + 1),
            on_end=lambda span: None,
            _on_ending=lambda span: None,
            shutdown=lambda: None,
            force_flush=lambda timeout_millis=0: True,
        )
    )
    with capture() as calls:
        run(request.param(case))
    asked = sorted((call for call in calls if call.origin is None), key=lambda call: call.started)
    return case, asked[-1], CASES[request.param]


def span_of(case: Case, call: Any) -> Any:
    return next(span for span in case.telemetry.spans if (span.context.trace_id, span.context.span_id) == call.span)


def test_the_tree(performed):
    case, call, (tree, _) = performed
    assert case.tree(span_of(case, call)) == tree


def test_one_search_finds_it(performed):
    """All that Jaeger compares is on one span, and none of it is an array or would need "more than"."""
    case, call, (_, wanted) = performed
    found = [span for span in case.telemetry.named("overcoat.call") if wanted.items() <= span.attributes.items()]
    assert span_of(case, call) in found
    assert all(isinstance(value, (str, bool, int, float)) for value in span_of(case, call).attributes.values())


def test_all_that_began_has_ended(performed):
    case, _, _ = performed
    assert len(case.telemetry.spans) == case.begun > 0


def test_a_failure_is_one_by_status_type_and_outcome(performed):
    case, call, _ = performed
    span = span_of(case, call)
    assert (
        (call.outcome == "ok") == (span.status.status_code is StatusCode.UNSET) == ("error.type" not in span.attributes)
    )


def test_links_lead_to_what_made_the_answer_or_the_call(performed):
    """A served answer's to the inference that made it; that of a call in the background to the call before it."""
    case, _, _ = performed
    by_id = {span.context.span_id: span for span in case.telemetry.spans}
    for span in case.telemetry.spans:
        linked = [by_id[link.context.span_id].name for link in span.links]
        assert linked in ([], ["overcoat.call"] if span.parent is None else [CHAT])
        served = span.name == "cache.get"
        assert bool(linked) == (served or (span.parent is None and span.links != ())), span.name


def test_a_failed_inference_is_one_event_and_a_cancelled_one_is_none(performed):
    case, _, _ = performed
    failed = [span for span in case.telemetry.named("chat") if "error.type" in span.attributes]
    warned = {span.context.span_id for span in failed if span.attributes["error.type"] != "cancelled"}
    events = case.telemetry.events("gen_ai.client.operation.exception")
    assert {event.log_record.span_id for event in events} == warned
    assert len(events) == len(warned)


def test_a_call_in_the_background_is_a_trace_of_its_own():
    case = Case()
    with pytest.MonkeyPatch.context() as patch, capture() as calls:
        clock = SimpleNamespace(time=lambda: 1.8e9 + asyncio.get_running_loop().time())
        patch.setattr("overcoat.client.time", clock)
        run(stale(case))
    (refresh,) = (call for call in calls if call.origin is not None)
    span = span_of(case, refresh)
    assert span.parent is None
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [refresh.origin]
    assert span.context.trace_id != refresh.origin[0]
    assert case.tree(span) == ["overcoat.call", f"  {CHAT}"]
    assert (span.attributes["overcoat.cache.result"], span.attributes["overcoat.cache.reason"]) == ("miss", "refresh")


def test_a_policy_that_is_off_leaves_nothing(monkeypatch, tmp_path):
    """No layers and no spans: it is as if overcoat were not there."""
    monkeypatch.setenv("OVERCOAT_ENABLED", "false")
    file = tmp_path / "overcoat.yaml"
    file.write_text("version: 1\npolicies: {default: {retry: {}}}\n")
    case = Case()
    client = wrap(ScriptedClient(ANSWER, model_name=MODEL), Policy.load(file), trace=case.providers)
    run(case.ask(client))
    assert case.telemetry.spans == []
    assert case.telemetry.points("overcoat.calls") == {}
