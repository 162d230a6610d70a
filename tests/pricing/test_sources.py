"""Holds the chain of price sources to its order, and litellm's map to what in it is a price, where it is loaded."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import PolicyError, Usage
from overcoat.pricing import genai, litellm_map
from overcoat.pricing.rates import Rates, Tier
from overcoat.pricing.sources import DEFAULT, Chain, price_source

NOW = 1_790_000_000.0
ONE = Rates((Tier(0, Decimal(1), Decimal(1)),), "one")
TWO = Rates((Tier(0, Decimal(2), Decimal(2)),), "two")
FREE = Rates((Tier(0, Decimal(0), Decimal(0)),), "free")


@pytest.fixture
def loaded(monkeypatch):
    """Return a function that has litellm loaded, with a map of prices of the test's own."""

    def load(**entries: Any) -> None:
        monkeypatch.setitem(sys.modules, "litellm", SimpleNamespace(model_cost=entries))

    return load


class TestChain:
    def test_the_first_that_knows(self):
        chain = price_source([lambda model, now: None, lambda model, now: ONE, lambda model, now: TWO])
        assert chain("m", NOW) is ONE

    def test_a_declared_price_of_0_is_one(self):
        assert price_source([lambda model, now: FREE, lambda model, now: ONE])("m", NOW) is FREE

    def test_nobody_knows(self):
        assert price_source([])("m", NOW) is None
        assert price_source([lambda model, now: None])("m", NOW) is None

    def test_a_function_is_asked_alone(self):
        assert price_source(DEFAULT[0]) is genai.rates

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_table_is_asked_before_the_libraries(self, tmp_path, kind):
        path = tmp_path / "prices.yaml"
        path.write_text("version: 1\nprices: [{match: gpt-4o, input: 1, output: 1}]\n")
        source = price_source(kind(path))
        assert source("gpt-4o", NOW).source.startswith("prices.yaml:2 ")
        assert source("gpt-4o-mini", NOW).source.startswith("genai-prices ")

    def test_a_table_in_a_sequence_is_asked_in_its_place_and_no_library_is(self, tmp_path):
        path = tmp_path / "prices.yaml"
        path.write_text("version: 1\nprices: [{match: '*', input: 1, output: 1}]\n")
        assert price_source([lambda model, now: TWO, path])("gpt-4o", NOW) is TWO
        assert price_source([path, lambda model, now: TWO])("gpt-4o", NOW).source.startswith("prices.yaml")
        assert price_source((path,))("gpt-4o", NOW).source.startswith("prices.yaml")

    def test_a_table_with_mistakes(self, tmp_path):
        with pytest.raises(PolicyError, match=re.escape("none.yaml: cannot be read")):
            price_source(tmp_path / "none.yaml")

    @pytest.mark.parametrize("prices", [None, 0.01, {"gpt-4o": 1}, [None], [{"gpt-4o": 1}], object()])
    def test_what_is_no_source_is_refused(self, prices):
        with pytest.raises(TypeError, match=r"^Meter\(prices=.*expected a function"):
            price_source(prices)

    def test_by_default_genai_prices_comes_before_litellm(self, loaded):
        loaded(**{"gpt-4o": {"input_cost_per_token": 1, "output_cost_per_token": 1, "litellm_provider": "openai"}})
        assert Chain(DEFAULT)("gpt-4o", NOW).source.startswith("genai-prices ")


def priced(**fields: Any) -> dict[str, Any]:
    return {"input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06, "litellm_provider": "test", **fields}


class TestLiteLLM:
    def test_it_is_not_imported_for_its_prices(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "litellm", raising=False)
        assert litellm_map.rates("gpt-4o", NOW) is None
        assert "litellm" not in sys.modules

    @pytest.mark.parametrize("half", [SimpleNamespace(), SimpleNamespace(model_cost=None)])
    def test_another_thread_may_be_importing_it(self, monkeypatch, half):
        monkeypatch.setitem(sys.modules, "litellm", half)
        assert litellm_map.rates("gpt-4o", NOW) is None

    def test_every_kind_and_tier_and_service(self, loaded):
        loaded(
            **{
                "x/m": priced(
                    cache_read_input_token_cost=1e-07,
                    cache_creation_input_token_cost=1.25e-06,
                    cache_creation_input_token_cost_above_1hr=2e-06,
                    output_cost_per_reasoning_token=5e-06,
                    input_cost_per_audio_token=1e-05,
                    output_cost_per_audio_token=2e-05,
                    input_cost_per_token_above_200k_tokens=2e-06,
                    cache_creation_input_token_cost_above_1hr_above_200k_tokens=4e-06,
                    input_cost_per_token_batches=5e-07,
                    output_cost_per_token_batches=2e-06,
                    input_cost_per_token_above_200k_tokens_priority=9e-06,
                    input_cost_per_token_cache_hit=7,  # not a kind that we have
                    input_cost_per_request=0.01,
                    max_input_tokens=1000,
                    max_output_tokens=100,
                )
            }
        )
        rates = litellm_map.rates("x/m", NOW)
        kinds = ("0.000001", "0.000004", "1E-7", "0.00000125", "0.000005", "0.000002", "0.00001", "0.00002")
        low = Tier(0, *map(Decimal, kinds))
        assert rates.tiers[0] == low
        high = {"above": 200_000, "input": Decimal("0.000002"), "cache_creation_1h": Decimal("0.000004")}
        assert rates.tiers[1:] == (replace(low, **high, cache_creation=None),)  # which would be less than the input
        assert rates.per_request == Decimal("0.01")
        assert (rates.context_window, rates.max_output_tokens) == (1000, 100)
        assert set(rates.services) == {"batch", "priority"}
        assert [tier.input for tier in rates.services["batch"]] == [Decimal("5E-7"), Decimal("0.000002")]
        assert [tier.output for tier in rates.services["batch"]] == [Decimal("0.000002")] * 2
        assert [tier.input for tier in rates.services["priority"]] == [Decimal("0.000001"), Decimal("0.000009")]

    @given(st.decimals(Decimal("1e-12"), Decimal("0.001"), places=12))
    def test_a_float_is_what_was_written(self, rate):
        """342 of its rates are no whole nano-dollars; none gets the digits that the binary has behind them."""
        assert litellm_map._dollars(float(rate)) == rate

    @pytest.mark.parametrize(
        "entry",
        [
            {},
            {"litellm_provider": "test", "mode": "chat"},
            priced(input_cost_per_token=0, output_cost_per_token=0),
            priced(input_cost_per_token=0),
            priced(output_cost_per_token=0),
            priced(input_cost_per_token=None),
            priced(input_cost_per_token=[1e-06]),
            priced(input_cost_per_token=True),
            priced(input_cost_per_token=-1),
            priced(input_cost_per_token=float("nan")),
            priced(tiered_pricing=[{"range": [0, 1000]}]),
            None,
            "free",
        ],
    )  # fmt: skip
    def test_what_is_no_price_of_tokens_is_unknown(self, loaded, entry):
        """Zeros stand for what is free today, unknown, or sold by the second: for what an invoice may say otherwise."""
        loaded(**{"x/m": entry})
        assert litellm_map.rates("x/m", NOW) is None

    @pytest.mark.parametrize("rate", [0.0, 1e-07])
    def test_no_write_to_a_cache_is_cheaper_than_what_is_written(self, loaded, rate):
        """Where the map says so, it means nothing on top of the input, or what keeping it costs."""
        loaded(**{"x/m": priced(cache_creation_input_token_cost=rate)})
        rates = litellm_map.rates("x/m", NOW)
        assert rates.cost(Usage(100, 0, cache_creation_input_tokens=100)) == Decimal("0.0001")

    def test_embeddings_have_no_output(self, loaded):
        loaded(**{"x/m": priced(output_cost_per_token=0.0, mode="embedding")})
        assert litellm_map.rates("x/m", NOW).cost(Usage(10, 0)) == Decimal("0.00001")

    def test_a_bare_name_is_another_provider_s_only_where_the_map_says_so(self, loaded):
        loaded(
            **{
                "gpt-4o": priced(litellm_provider="openai"),
                "claude-x": priced(litellm_provider="anthropic"),
                "anthropic.claude-x-v1:0": priced(litellm_provider="bedrock_converse"),
                "gemini-x": priced(litellm_provider="vertex_ai-language-models"),
                "llama3": priced(litellm_provider="together_ai"),
            }
        )
        known = [
            "gpt-4o",
            "openai/gpt-4o",
            "anthropic/claude-x",
            "bedrock/anthropic.claude-x-v1:0",
            "vertex_ai/gemini-x",
        ]
        known.append("anthropic.claude-x-v1:0")
        for model in known:
            assert litellm_map.rates(model, NOW) is not None, model
        for model in ("openai/claude-x", "azure/gpt-4o", "gemini/gemini-x", "llama3", "bedrock/gpt-4o", "openai/x", ""):
            assert litellm_map.rates(model, NOW) is None, model

    def test_the_source_and_its_version_are_stamped(self, loaded, monkeypatch):
        loaded(**{"x/m": priced()})
        litellm_map._version.cache_clear()
        monkeypatch.setattr(litellm_map, "version", lambda name: "1.2.3")
        assert litellm_map.rates("x/m", NOW).source == "litellm 1.2.3"
        litellm_map._version.cache_clear()

        def unknown(name):
            raise PackageNotFoundError(name)

        monkeypatch.setattr(litellm_map, "version", unknown)
        assert litellm_map.rates("x/m", NOW).source == "litellm of unknown version"
        litellm_map._version.cache_clear()
