"""Holds the upper bound of a request to being one: no usage within its limits costs more, whatever the prices."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import LLMOptions, Request, Usage
from overcoat.pricing.estimate import LONGEST_ANSWER, Estimate
from overcoat.pricing.rates import Rates, Tier
from overcoat.pricing.tokens import ByteCounter, TokenCounter

M = Decimal(1_000_000)
PLAIN = Rates((Tier(0, Decimal(1), Decimal(10)),), "test")


def request(*messages: Any, json_mode: bool = False, **options: Any) -> Request:
    conversation = [{"role": "user", "content": each} for each in messages or ("hello",)]
    return Request(conversation, options, None, json_mode, None)


def most_input_tokens(asked: Request, rates: Rates | None = None, counter: TokenCounter | None = None) -> int | None:
    return Estimate.of(asked, counter).input_tokens(rates)


def most_output_tokens(asked: Request, rates: Rates | None = None, *, default: int) -> int:
    return Estimate.of(asked).output_tokens(rates, default=default)


def most_dollars(asked: Request, rates: Rates, *, default: int) -> Decimal | None:
    return Estimate.of(asked).dollars(rates, default=default)


_rate = st.decimals(0, Decimal("0.001"), places=8)
_maybe = st.none() | _rate


@st.composite
def _tables(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, 2000), max_size=3)))]
    return tuple(Tier(start, draw(_rate), draw(_rate), draw(_maybe), draw(_maybe), draw(_maybe)) for start in starts)


@st.composite
def _usages(draw, tokens_in, tokens_out):
    used_in, used_out = draw(st.integers(0, tokens_in)), draw(st.integers(0, tokens_out))
    read = draw(st.none() | st.integers(0, used_in))
    created = draw(st.none() | st.integers(0, used_in - (read or 0)))
    return Usage(used_in, used_out, None, read, created, draw(st.none() | st.integers(0, used_out)))


@given(
    st.data(),
    _tables(),
    _tables(),
    st.lists(st.text(max_size=300), min_size=1, max_size=4),
    st.none() | st.integers(1, 500),
    st.sampled_from([None, "auto", "flex", "priority"]),
)
def test_no_usage_within_the_limits_costs_more(data, standard, priority, texts, limit, service):
    """Whatever is cached or reasoned, in whatever tier it ends, and by whichever service it was served."""
    rates = Rates(standard, "test", Decimal("0.002"), {"priority": priority})
    asked = request(*texts, max_tokens=limit, service_tier=service)
    most = most_dollars(asked, rates, default=100)
    tokens_in, tokens_out = most_input_tokens(asked), most_output_tokens(asked, default=100)
    assert tokens_out == (limit or 100)
    usage = data.draw(_usages(tokens_in, tokens_out))
    assert rates.cost(usage) <= most
    if service in ("auto", "priority"):
        assert rates.cost(usage, "priority") <= most


@given(_tables(), st.text(max_size=200), st.text(max_size=200), st.integers(1, 500), st.integers(0, 500))
def test_more_never_costs_less(tiers, text, more, limit, longer):
    rates = Rates(tiers, "test")
    less = most_dollars(request(text, max_tokens=limit), rates, default=1)
    assert less <= most_dollars(request(text + more, max_tokens=limit), rates, default=1)
    assert less <= most_dollars(request(text, more, max_tokens=limit), rates, default=1)
    assert less <= most_dollars(request(text, max_tokens=limit + longer), rates, default=1)


class Words(TokenCounter):
    """A tokenizer that counts words."""

    def __init__(self, *, exact: bool) -> None:
        self.exact = exact

    def count_text(self, text: str) -> int:
        return len(text.split())


@given(st.text())
def test_a_token_is_at_least_a_byte(text):
    """With what templates add, and beside what is added for the request itself."""
    overhead = most_input_tokens(request(""))
    assert most_input_tokens(request(text)) >= len(text.encode("utf-8", "surrogatepass")) + overhead


def test_what_normal_forms_make_longer_counts_as_long_as_it_gets():
    """Some tokenizers normalise first: this one character of 3 bytes is 18 characters then, of 33 bytes."""
    assert most_input_tokens(request("\ufdfa" * 100)) >= 3300


def test_an_exact_counter_counts_in_place_of_the_bytes_and_a_guess_does_not():
    asked = request("these are four words")
    assert most_input_tokens(asked, counter=Words(exact=True)) == most_input_tokens(request("")) + 4
    assert most_input_tokens(asked, counter=Words(exact=False)) == most_input_tokens(asked)
    assert most_input_tokens(asked, counter=ByteCounter()) == most_input_tokens(asked)


IMAGE = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]


def test_what_is_not_text_fills_the_context_window():
    """How many tokens an image is depends on its size, which is elsewhere."""
    assert most_input_tokens(request(IMAGE)) is None
    assert most_dollars(request(IMAGE), PLAIN, default=1) is None
    windowed = Rates(PLAIN.tiers, "test", context_window=128_000)
    assert most_input_tokens(request(IMAGE), windowed) == 128_000
    assert most_dollars(request(IMAGE), windowed, default=1) == 128_010


def test_the_text_of_parts_is_text():
    parts = [{"type": "text", "text": "x" * 1000}, "y" * 1000]
    assert 2000 < most_input_tokens(request(parts)) < 2300
    assert most_input_tokens(request(None)) == most_input_tokens(request(""))


def test_tools_schemas_and_names_are_sent_as_well():
    tools = [{"type": "function", "function": {"name": "f" * 500, "parameters": {"type": "object", "n": 10**40}}}]
    plain = most_input_tokens(request())
    assert most_input_tokens(request(tools=tools)) > plain + 500
    assert most_input_tokens(request(json_mode=True)) > plain
    assert most_input_tokens(request(stop="x" * 100)) > plain + 100
    named = Request([{"role": "user", "content": "hello", "name": "n" * 100}], {}, None, False, None)
    assert most_input_tokens(named) > plain + 100


@dataclass
class Options(LLMOptions):
    max_tokens: int | None = None
    n: int | None = None


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, 100),
        (None, 100),
        ({"max_tokens": 7}, 7),
        (Options(max_tokens=7, n=3), 21),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_output_tokens": 9}, 9),
        ({"n": 5}, 500),
        ({"max_tokens": 7, "n": 2, "best_of": 4}, 28),
        ({"max_tokens": 10**30}, LONGEST_ANSWER),
        # What no provider takes for a limit is none:
        *(({"max_tokens": hostile}, 100) for hostile in (-1, 0, "7", True, 7.5, float("nan"), [7])),
        *(({"n": hostile}, 100) for hostile in (-1, 0, "7", True)),
        (object(), 100),  # options whose fields cannot be listed
    ],
)
def test_how_long_answers_can_get(options, tokens):
    asked = request()._replace(options=options)
    assert most_output_tokens(asked, default=100) == tokens


@pytest.mark.parametrize(("window", "longest", "tokens"), [(None, 50, 50), (60, None, 60), (60, 50, 50), (60, 90, 60)])
def test_no_answer_is_longer_than_the_model_can_give(window, longest, tokens):
    """A caller who asks for a billion gets, and reserves, what there is."""
    rates = Rates(PLAIN.tiers, "test", context_window=window, max_output_tokens=longest)
    assert most_output_tokens(request(max_tokens=10**9), rates, default=1) == tokens
    assert most_output_tokens(request(), rates, default=10**9) == tokens


def test_all_tokens_together():
    asked = request("hello", max_tokens=50, n=2)
    assert Estimate.of(asked).all_tokens(default=1) == most_input_tokens(asked) + 100
    assert Estimate.of(request(IMAGE)).all_tokens(default=1) is None


def dollars(asked: Request, *tiers: Tier, **others: Any) -> Decimal | None:
    return most_dollars(asked, Rates(tiers, "test", **others), default=100)


def test_the_dearest_kind_and_tier_that_can_be_reached():
    asked, tokens = request(), most_input_tokens(request())
    low, high = Tier(0, Decimal(1), Decimal(2)), Tier(tokens - 1, Decimal(5), Decimal(7))
    assert dollars(asked, low) == tokens + 200
    assert dollars(asked, low, high) == 5 * tokens + 700
    assert dollars(asked, low, Tier(tokens, Decimal(5), Decimal(7))) == tokens + 200
    assert dollars(asked, Tier(0, Decimal(1), Decimal(2), cache_creation=Decimal(3))) == 3 * tokens + 200
    assert dollars(asked, Tier(0, Decimal(1), Decimal(2), reasoning=Decimal(4))) == tokens + 400
    assert dollars(asked, low, per_request=Decimal(9)) == tokens + 209


def test_rates_of_what_a_request_cannot_be_do_not_count():
    """Sound, and what is cached for an hour, are there only where they are asked for."""
    tier = Tier(
        0, Decimal(1), Decimal(2), cache_creation_1h=Decimal(50), audio_input=Decimal(60), audio_output=Decimal(70)
    )
    tokens = most_input_tokens(request())
    assert dollars(request(), tier) == tokens + 200
    kept = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert dollars(request(kept), tier) == 50 * most_input_tokens(request(kept)) + 200
    assert dollars(request(IMAGE), tier, context_window=1000) == 60_000 + 200
    assert dollars(request(modalities=["text", "audio"]), tier) == tokens + 7000


def test_services():
    """What is asked for may be had, or be replaced by the standard; what has no rates has no bound."""
    cheap, dear = (Tier(0, Decimal(1), Decimal(0)),), (Tier(0, Decimal(3), Decimal(0)),)
    rates = Rates((Tier(0, Decimal(2), Decimal(0)),), "test", services={"flex": cheap, "priority": dear})

    def most(**options):
        asked = request(**options)
        cost = most_dollars(asked, rates, default=1)
        return cost and cost / most_input_tokens(asked)

    assert (most(), most(service_tier="default"), most(service_tier="flex"), most(service_tier="batch")) == (2, 2, 2, 2)
    assert (most(service_tier="priority"), most(service_tier="auto")) == (3, 3)
    assert most(service_tier="ultra") is None


@pytest.mark.parametrize("tier", [Tier(0, None, Decimal(1)), Tier(0, Decimal(1), None)])
def test_a_rate_that_may_be_needed_and_is_not_known_leaves_no_bound(tier):
    assert dollars(request(), tier) is None


def test_a_rate_that_cannot_be_needed_need_not_be_known():
    """Embeddings have no output, and no price for it."""
    rates = Rates((Tier(0, Decimal(1), None),), "test")
    assert most_dollars(request(), rates, default=0) == most_input_tokens(request())


def test_what_is_no_json_is_not_text_only():
    """What the SDK sends for an object of its own is not ours to see."""
    assert most_input_tokens(request(tools=[{"strict": None, "weight": 0.5}])) is not None
    assert most_input_tokens(request(tools=[object()])) is None


def test_free_is_free():
    assert dollars(request(), Tier(0, Decimal(0), Decimal(0))) == 0
