"""What a person sees in the terminal: exact lines for every way that a call can go, and when they are printed."""

import asyncio
import io
import logging
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, set_span_in_context

from overcoat import Cache, LiteLLMOptions, LLMEvent, LLMStatusError, Meter, Retry, Timeout, Trace, stack
from overcoat.pricing.rates import Rates, Tier
from overcoat.telemetry.tree import TreeSpanProcessor, dollars, render
from overcoat.testing import Answer, ScriptedClient, run

MODEL = "openai/gpt-4o-mini"


def context(number: int, trace: int = 0xABC << 116) -> SpanContext:
    return SpanContext(trace, number, is_remote=False)


def span(
    name: str,
    number: int,
    parent: int | None = None,
    *,
    at: float = 0.0,
    lasts: float = 0.0,
    error: str | None = None,
    links: Sequence[SpanContext] = (),
    trace: int = 0xABC << 116,
    **attributes: Any,
) -> ReadableSpan:
    """A span of *lasts* seconds; attributes are written with underscores for dots."""
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    if error is not None:
        named["error.type"] = error
    return ReadableSpan(
        name,
        context(number, trace),
        None if parent is None else context(parent, trace),
        attributes=named,
        links=[Link(link) for link in links],
        status=Status(StatusCode.UNSET if error is None else StatusCode.ERROR),
        start_time=round(at * 1e9),
        end_time=round((at + lasts) * 1e9),
    )


def call(number: int = 1, parent: int | None = None, *, outcome: str = "ok", **given: Any) -> ReadableSpan:
    return span("overcoat.call", number, parent, overcoat__model=MODEL, overcoat__outcome=outcome, **given)


def chat(number: int = 2, parent: int = 1, *, model: str = MODEL, **given: Any) -> ReadableSpan:
    conventions = {"gen_ai__operation__name": "chat", "gen_ai__request__model": model}
    return span(f"chat {model}", number, parent, **conventions, **given)


TOKENS = {"gen_ai__usage__input_tokens": 812, "gen_ai__usage__output_tokens": 96}
COST = {"overcoat__cost__usd": 0.00018}


def lines(*spans: ReadableSpan, **settings: Any) -> list[str]:
    return render(spans, **settings).plain.split("\n")


def attempt(number: int, span_number: int, parent: int = 2, **given: Any) -> ReadableSpan:
    return span("attempt", span_number, parent, overcoat__attempt__number=number, **given)


RETRIED = (
    call(lasts=1.24, overcoat__attempts=2, overcoat__cache__result="miss", **COST),
    chat(lasts=1.24, **TOKENS, **COST),
    attempt(2, 5, at=1.03, lasts=0.21),
    attempt(1, 3, lasts=0.006, error="rate_limited", http__response__status_code=429),
    span("backoff", 4, 2, at=0.006, lasts=1.02, overcoat__wait__source="server", overcoat__wait__asked=1.02),
)


def test_a_retried_call_shows_what_was_tried_and_what_was_waited_for():
    assert lines(*RETRIED) == [
        "call openai/gpt-4o-mini  ✓  1.24 s  miss  812→96 tok  $0.000180  ↻ 2 attempts",
        "└ chat                      1.24 s        812→96 tok  $0.000180",
        "  ├ attempt 1            ✗  6.0 ms  429 rate_limited",
        "  ├ backoff                 1.02 s  as the server asked",
        "  └ attempt 2            ✓  210 ms",
    ]


@pytest.mark.parametrize(
    "role", [("reask", "asked again"), ("fallback", "fallback"), ("hedge", "hedge"), ("new", "new")]
)
def test_a_further_inference_says_why_there_is_it(role):
    (_, second) = lines(call(), chat(lasts=1, overcoat__inference__role=role[0], **TOKENS, **COST))
    assert re.fullmatch(rf"└ chat +1.00 s +812→96 tok  \$0.000180 +{role[1]}", second)


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"overcoat__budget__result": "refused", "overcoat__budget__name": "team"}, "refused by the budget 'team'"),
        ({"overcoat__budget__result": "uncounted", "overcoat__budget__name": "a"}, "not counted by the budget 'a'"),
        (
            {"overcoat__budget__result": "overrun", "overcoat__budget__name": "a"},
            "more than was reserved of the budget 'a'",
        ),
        ({"overcoat__breaker__state": "half_open"}, "its circuit is now half open"),
        ({"overcoat__degraded": "breaker,retry"}, "shared store away: breaker, retry"),
        ({"links": [context(7, 0xDEF << 116)]}, "in the background, after trace def00000"),
    ],
)
def test_what_is_out_of_the_ordinary_is_said(given, note):
    assert lines(call(**given, **COST))[0].endswith(f"$0.000180  {note}")


def test_a_budget_that_let_it_pass_is_not_mentioned():
    (line,) = lines(call(overcoat__budget__result="settled", overcoat__budget__name="team", **COST))
    assert "team" not in line


def test_what_does_not_fit_the_terminal_stands_below_and_the_tree_goes_on_beside_it():
    assert lines(*RETRIED, width=75)[:3] == [
        "call openai/gpt-4o-mini  ✓  1.24 s  miss  812→96 tok  $0.000180",
        "│                                   ↻ 2 attempts",
        "└ chat                      1.24 s        812→96 tok  $0.000180",
    ]


def test_the_link_to_the_trace_is_printed_below():
    assert lines(*RETRIED, trace_url="http://jaeger/trace/{trace_id}")[-1] == f"http://jaeger/trace/abc{'0' * 29}"


@pytest.mark.parametrize(
    ("age", "saved", "links", "expected"),
    [
        (7200, 0.00018, (context(9),), "hit   saved $0.000180  from trace abc00000  2.0 h old"),
        (90, 0.00018, (context(9),), "hit   saved $0.000180  from trace abc00000  2 min old"),
        (0.2, 0.00018, (context(9),), "hit   saved $0.000180  from trace abc00000"),
        (5, 0.00018, (), "hit   saved $0.000180  5.00 s old"),
        (5, None, (), "hit   saving unknown  5.00 s old"),
    ],
)
def test_a_hit_shows_what_it_saved_and_where_its_answer_is_from(age, saved, links, expected):
    of = {} if saved is None else {"overcoat__cost__saved_usd": saved}
    spans = (
        call(lasts=0.0004, overcoat__cache__result="hit", overcoat__cost__usd=0.0, **of),
        span("cache.get", 2, 1, overcoat__cache__result="hit", overcoat__cache__age=age, links=links),
    )
    assert lines(*spans) == [f"call openai/gpt-4o-mini  ✓  0.4 ms  {expected}"]


def test_a_stale_answer_shows_what_it_made_up_for():
    saved, waste = {"overcoat__cost__saved_usd": 0.00018}, {"overcoat__cost__wasted_usd": 0.0001}
    spans = (
        call(lasts=0.2, overcoat__cache__result="stale", overcoat__cache__reason="if_error", **saved, **waste),
        span("cache.get", 2, 1, overcoat__cache__result="stale", overcoat__cache__age=90, links=(context(9),)),
        chat(3, lasts=0.2, error="server_error"),
    )
    assert lines(*spans)[:2] == [
        "call openai/gpt-4o-mini  ✓  200 ms  stale  saved $0.000180  $0.000100 wasted  from trace abc00000  2 min old",
        "└ chat                   ✗  200 ms  server_error",
    ]


def coalesced(number: int, *, error: str | None = None, **given: Any) -> tuple[ReadableSpan, ReadableSpan]:
    """A call that shared the answer of the span 2."""
    saved = {"overcoat__cost__saved_usd": 0.00018} if error is None else {}
    return (
        call(
            number,
            at=0.1,
            error=error,
            outcome="error" if error else "ok",
            overcoat__cache__result="coalesced",
            **saved,
        ),
        span("cache.get", number + 1, number, links=(context(2),), overcoat__cache__result="coalesced", **given),
    )


def test_calls_that_shared_one_answer_are_one_line():
    followers = [each for number in range(10, 30, 2) for each in coalesced(number)]
    assert lines(call(lasts=0.4, overcoat__cache__result="miss", **COST), chat(**TOKENS, **COST), *followers) == [
        "call openai/gpt-4o-mini  ✓  400 ms  miss       812→96 tok  $0.000180",
        "└ chat                      0.0 ms             812→96 tok  $0.000180",
        "10 calls                 ✓  0.0 ms  coalesced              saved $0.00180",
    ]
    assert lines(*followers) == ["10 calls                 ✓  0.0 ms  coalesced  saved $0.00180  from trace abc00000"]
    assert lines(*followers[:2]) == [
        "call openai/gpt-4o-mini  ✓  0.0 ms  coalesced  saved $0.000180  from trace abc00000"
    ]


def test_calls_that_shared_one_failure_saved_nothing_and_those_with_a_tree_of_their_own_stay_apart():
    failed = [each for number in (10, 12) for each in coalesced(number, error="overloaded")]
    assert lines(*failed) == ["2 calls                  ✗  0.0 ms  coalesced  overloaded  from trace abc00000"]
    traced = [*failed, span("redis GET", 20, 10), span("redis GET", 21, 12)]
    assert [line[:9] for line in lines(*traced)] == ["call open", "└ redis G", "call open", "└ redis G"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"overcoat__cache__result": "refused", "overcoat__cache__reason": "truncated"}, "not kept: truncated"),
        ({"overcoat__cache__result": "bypass", "overcoat__cache__reason": "sampled"}, "cache bypassed: sampled"),
        ({"overcoat__cache__result": "miss", "overcoat__cache__reason": "took_over"}, "miss: took_over"),
    ],
)
def test_what_the_cache_did_not_do_is_said_with_its_reason(attributes, expected):
    assert lines(call(**COST, **attributes)) == [f"call openai/gpt-4o-mini  ✓  0.0 ms  {expected}  $0.000180"]


def test_an_unknown_price_is_said_and_never_nothing():
    assert lines(call(), chat(**TOKENS)) == [
        "call openai/gpt-4o-mini  ✓  0.0 ms        812→96 tok  price unknown",
        "└ chat                      0.0 ms        812→96 tok  price unknown",
    ]


def test_tokens_of_several_inferences_are_summed_and_a_count_that_nobody_gave_stays_open():
    other = chat(3, at=1, model="anthropic/claude", gen_ai__usage__input_tokens=100)
    assert lines(call(overcoat__cost__wasted_usd=0.1, **COST), chat(gen_ai__usage__input_tokens=1, **COST), other) == [
        "call openai/gpt-4o-mini  ✓  0.0 ms        101→? tok  $0.000180      $0.100 wasted",
        "├ chat                      0.0 ms        1→? tok    $0.000180",
        "└ chat anthropic/claude     0.0 ms        100→? tok  price unknown",
    ]


@pytest.mark.parametrize(
    ("gave_up", "expected"),
    [
        ("non_retryable", "quota_exhausted, not retried"),
        ("deadline", "quota_exhausted, no time left to wait"),
        ("of_its_own", "quota_exhausted, of_its_own"),
        (None, "quota_exhausted"),
    ],
)
def test_a_failure_is_named_once_with_why_there_was_no_further_attempt(gave_up, expected):
    why = {} if gave_up is None else {"overcoat__gave_up": gave_up}
    spans = (
        call(outcome="error", error="quota_exhausted", overcoat__cost__usd=0.0, **why),
        chat(error="quota_exhausted", overcoat__cost__usd=0.0),
        attempt(1, 3, error="quota_exhausted", http__response__status_code=429),
    )
    assert lines(*spans) == [
        f"call openai/gpt-4o-mini  ✗  0.0 ms        $0  {expected}",
        "└ chat                   ✗  0.0 ms",
        "  └ attempt 1            ✗  0.0 ms  429 quota_exhausted",
    ]


def test_an_inference_that_failed_unlike_its_call_says_how():
    assert lines(call(**COST), chat(error="overloaded"), chat(3, at=1, **TOKENS, **COST))[1] == (
        "├ chat                   ✗  0.0 ms  overloaded"
    )


def test_what_an_inference_has_to_tell_stands_behind_it():
    details = {
        "gen_ai__output__type": "json",
        "gen_ai__usage__cache_read__input_tokens": 512,
        "gen_ai__usage__reasoning__output_tokens": 64,
        "gen_ai__response__finish_reasons": ("length",),
    }
    assert lines(call(**COST), chat(**details))[1] == (
        "└ chat                      0.0 ms  "
        "JSON mode  512 from the provider's cache  64 for reasoning  ended by length"
    )


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [
        ("policy", 2.0, "by the policy"),
        ("policy", 20.0, "by the policy  cut short, of 20.00 s"),
        ("limiter", None, "for our own limit"),
        ("moon", None, "moon"),
    ],
)
def test_a_wait_says_whose_idea_it_was(source, asked, expected):
    of = {} if asked is None else {"overcoat__wait__asked": asked}
    wait = span("rate_limit.wait", 3, 2, lasts=2.0, overcoat__wait__source=source, **of)
    assert lines(chat(), wait)[1] == f"└ rate_limit.wait           2.00 s  {expected}"


def test_spans_of_other_libraries_stand_where_they_lie():
    spans = (
        call(7, **COST),
        chat(8, 7, **TOKENS, **COST),
        attempt(1, 9, 8),
        span("POST", 10, 9, lasts=0.2, http__response__status_code=200),
        span("dns", 11, 10, error="gaierror"),
    )
    assert lines(*spans)[2:] == [
        "  └ attempt 1            ✓  0.0 ms",
        "    └ POST                  200 ms  200",
        "      └ dns              ✗  0.0 ms  gaierror",
    ]


def test_a_look_up_that_ended_nothing_is_a_span_as_any_other():
    assert lines(call(**COST), span("cache.get", 2, 1, lasts=0.03, overcoat__cache__result="miss"))[1] == (
        "└ cache.get                  30 ms"
    )


def test_long_names_move_the_columns_of_their_own_tree():
    long = span("overcoat.call", 1, overcoat__model="a-model-with-a-long-name", overcoat__outcome="ok", **COST)
    assert lines(long, chat(**TOKENS, **COST)) == [
        "call a-model-with-a-long-name ✓  0.0 ms        812→96 tok  $0.000180",
        "└ chat openai/gpt-4o-mini        0.0 ms        812→96 tok  $0.000180",
    ]


def test_nothing_is_nothing():
    assert lines(trace_url="http://jaeger/{trace_id}") == [""]


@given(st.decimals(min_value="1e-12", max_value="1e9", places=14))
def test_money_has_three_digits_that_say_something_and_no_exponent(amount):
    shown = dollars(amount)
    assert set(shown) <= set("$0123456789.")
    assert abs(Decimal(shown[1:]) - amount) <= amount * Decimal("0.006")


def test_no_money_is_no_money():
    assert dollars(0) == dollars(Decimal("0.000")) == "$0"


# The processor.


@pytest.fixture
def file():
    return io.StringIO()


@pytest.fixture
def processor(file):
    return TreeSpanProcessor(file)


@pytest.fixture
def tracer(processor):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    yield provider.get_tracer("test")
    provider.shutdown()


def started(tracer, name):
    return tracer.start_as_current_span(name)


def labels(file: io.StringIO) -> list[str]:
    """The labels that were printed, by line."""
    return [line[:24].rstrip() for line in file.getvalue().splitlines()]


def price(model: str, now: float) -> Rates:
    return Rates((Tier(0, Decimal("0.000001"), Decimal("0.000002")),), "test")


def test_a_stack_is_shown_as_it_works(file):
    """Through the real layers and the real SDK: what they put onto spans is what is read here."""
    provider = TracerProvider(shutdown_on_exit=False)
    processor = TreeSpanProcessor(file)
    provider.add_span_processor(processor)
    inner = ScriptedClient(
        LLMStatusError("slow down", 503),
        Answer("hi", prompt_tokens=100, completion_tokens=5, delay=0.5),
        Answer("ho", prompt_tokens=10, completion_tokens=5, delay=0.25),
        model_name=MODEL,
    )
    client = stack(
        inner,
        Trace(tracer_provider=provider),
        Cache(ttl="1h"),
        Retry(random=lambda: 0.5),
        Timeout(5),
        Meter(prices=price),
    )

    async def ask(text: str) -> None:
        await client.call([{"role": "user", "content": text}], LiteLLMOptions(), LLMEvent(prompt=text, type="test"))

    async def story() -> None:
        await ask("first")
        await ask("first")
        with processor.together():
            await asyncio.gather(*(ask("second") for _ in range(50)))

    run(story())
    printed = re.sub(r"trace [0-9a-f]{8}", "trace xxxxxxxx", file.getvalue()).splitlines()
    assert printed == [
        "call openai/gpt-4o-mini  ✓  1.50 s  miss  100→5 tok  $0.000110  ↻ 2 attempts",
        "└ chat                      1.50 s        100→5 tok  $0.000110",
        "  ├ attempt 1            ✗  0.0 ms  503 overloaded",
        "  ├ backoff                 1.00 s  by the policy",
        "  └ attempt 2            ✓  500 ms",
        "call openai/gpt-4o-mini  ✓  0.0 ms  hit   saved $0.000110  from trace xxxxxxxx",
        "call openai/gpt-4o-mini  ✓  250 ms  miss       10→5 tok  $0.0000200",
        "└ chat                      250 ms             10→5 tok  $0.0000200",
        "49 calls                 ✓  250 ms  coalesced            saved $0.000980",
    ]
    assert processor._owners == processor._trees == {}


def test_a_call_is_printed_when_it_is_over_and_what_surrounds_it_is_not(tracer, file):
    with started(tracer, "GET /search"), started(tracer, "SELECT"):
        with started(tracer, "overcoat.call"):
            with started(tracer, "chat"):
                pass
            assert file.getvalue() == ""
        assert labels(file) == ["call unknown", "└ chat"]


def test_a_call_inside_a_call_is_a_part_of_its_tree(tracer, file):
    with started(tracer, "overcoat.call"), started(tracer, "judge"), started(tracer, "overcoat.call"):
        pass
    assert labels(file) == ["call unknown", "└ judge", "  └ call unknown"]


def test_what_outlives_its_call_is_waited_for(tracer, file):
    """So it is with an inference that is shared, and whose first caller was cancelled."""
    with started(tracer, "overcoat.call"):
        late = tracer.start_span("chat")
    assert file.getvalue() == ""
    late.end()
    assert labels(file) == ["call unknown", "└ chat"]


def test_what_begins_after_its_call_was_printed_is_left_out(tracer, processor, file):
    with started(tracer, "overcoat.call") as ended:
        pass
    tracer.start_span("late", set_span_in_context(ended)).end()
    assert labels(file) == ["call unknown"]
    assert processor._owners == {}


def test_calls_that_never_end_cost_a_bounded_memory(file, caplog):
    provider = TracerProvider(shutdown_on_exit=False)
    processor = TreeSpanProcessor(file, max_spans=4)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("test")
    leaked = [tracer.start_span("overcoat.call") for _ in range(10)]
    assert len(processor._owners) == len(processor._trees) == 4
    assert {record.message for record in caplog.records} == {
        "a call is not printed: it has too many spans, or some that do not end"
    }
    leaked[0].end()
    assert file.getvalue() == ""
    leaked[-1].end()
    assert labels(file) == ["call unknown"]
    provider.shutdown()
    assert processor._owners == processor._trees == {}


def test_together_prints_what_ended_even_if_the_block_fails(tracer, processor, file):
    def fail() -> None:
        with processor.together(), started(tracer, "overcoat.call"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert labels(file) == ["call unknown"]


def test_together_prints_nothing_of_nothing(processor, file):
    with processor.together():
        pass
    assert file.getvalue() == ""


def test_colours_are_for_terminals(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def shown() -> str:
        file = Terminal()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(TreeSpanProcessor(file))
        with provider.get_tracer("test").start_as_current_span("overcoat.call"):
            pass
        return file.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m✗" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in shown()


def test_a_terminal_of_ascii_gets_ascii():
    raw = io.BytesIO()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TreeSpanProcessor(io.TextIOWrapper(raw, "ascii", write_through=True)))
    with started(provider.get_tracer("test"), "overcoat.call"), started(provider.get_tracer("test"), "chat"):
        pass
    assert raw.getvalue().decode("ascii").splitlines()[1].startswith("` chat")


class Broken(io.StringIO):
    """A file that cannot be written to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.tried = 0

    def write(self, text):
        self.tried += 1
        raise self.error


@pytest.mark.parametrize(("error", "tried", "logged"), [(BrokenPipeError(), 1, 0), (OSError("disk full"), 2, 2)])
def test_a_terminal_that_fails_fails_no_call(error, tried, logged, caplog):
    """A pipe whose reader has gone is the end of printing, without a word: there is nobody to hear it."""
    file = Broken(error)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TreeSpanProcessor(file))
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            with started(provider.get_tracer("test"), "overcoat.call"):
                pass
    assert (file.tried, len(caplog.records)) == (tried, logged)


def test_a_flush_has_nothing_to_wait_for(processor):
    assert processor.force_flush()
