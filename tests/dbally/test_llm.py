"""`LiteLLM` is db-ally's in every place where db-ally takes one, with layers around its client."""

from __future__ import annotations

import copy
import pickle
import sys
from dataclasses import fields

import pytest

from overcoat import Cache, Meter, Policy, Retry, Trace

from ..real.parts import need

POLICY = """
version: 1
policies:
  default: {attempt_timeout: 20s, retry: {max_attempts: 5}}
cache: {ttl: 1h}
models:
  - {match: "*", policy: default}
"""


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "overcoat.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def original():
    return need("dbally.llms.litellm")


def names(client):
    return [type(layer).__name__ for layer in client.layers]


def test_it_is_one_of_db_ally_s(od, original):
    from dbally.llms import LiteLLM
    from dbally.llms.base import LLM

    llm = od.LiteLLM("openai/gpt-4o", base_url="http://x/v1", api_key="k", api_version="v")
    assert isinstance(llm, LiteLLM)
    assert isinstance(llm, LLM)
    theirs = LiteLLM("openai/gpt-4o", base_url="http://x/v1", api_key="k", api_version="v")
    assert vars(theirs).items() <= vars(llm).items()
    assert od.LiteLLM().model_name == LiteLLM().model_name
    assert (llm.client.model_name, llm.client.client.base_url) == ("openai/gpt-4o", "http://x/v1")
    assert (llm.client.client.api_key, llm.client.client.api_version) == ("k", "v")


def test_without_a_policy_it_traces_retries_and_prices(od):
    assert od.LiteLLM("openai/gpt-4o").client.layers == (Trace(), Retry(), Meter())


def test_layers_of_one_s_own(od):
    assert od.LiteLLM("openai/gpt-4o", layers=[Cache(), Retry()]).client.layers == (Cache(), Retry())
    assert od.LiteLLM("openai/gpt-4o", layers=[]).client.layers == ()


@pytest.mark.parametrize("given", [str, Policy.load, lambda path: path])
def test_a_policy_makes_the_layers(od, policy, given):
    client = od.LiteLLM("openai/gpt-4o", policy=given(policy)).client
    assert names(client) == ["Trace", "Cache", "Retry", "Timeout", "Meter"]
    assert client.policy.name == "default"
    with pytest.raises(TypeError, match="one of the two"):
        od.LiteLLM("openai/gpt-4o", policy=given(policy), layers=[])


def test_fallbacks_raise_db_ally_s_errors(od, tmp_path):
    path = tmp_path / "overcoat.yaml"
    path.write_text(POLICY + 'fallbacks:\n  - {from: "*", to: [openai/gpt-4o-mini], when: [overloaded]}\n')
    layers = od.LiteLLM("openai/gpt-4o", policy=path).client.layers
    (fallback,) = (layer for layer in layers if type(layer).__name__ == "Fallback")
    assert [type(target.innermost) for target in fallback.targets] == [od.LiteLLMClient]


def test_the_client_is_one_for_good(od):
    """db-ally's property makes a new one for each call, with an empty cache and a closed breaker."""
    llm = od.LiteLLM("openai/gpt-4o")
    assert llm.client is llm.client


def test_options_are_merged_as_ever(od, original):
    options = original.LiteLLMOptions(temperature=0.5, max_tokens=7)
    llm = od.LiteLLM("openai/gpt-4o", options)
    assert llm.default_options is options
    assert (llm.default_options | original.LiteLLMOptions(max_tokens=9)).max_tokens == 9
    assert type(od.LiteLLM().default_options) is original.LiteLLMOptions
    assert {field.name for field in fields(od.LiteLLM._options_cls)} == {
        field.name for field in fields(original.LiteLLMOptions)
    }


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda llm: pickle.loads(pickle.dumps(llm))])  # noqa: S301
def test_a_copy_is_as_good(od, policy, copied, used):
    """db-ally's can be pickled; with a client in it, no stack could."""
    llm = od.LiteLLM("openai/gpt-4o", base_url="http://x/v1", policy=str(policy))
    if used:
        assert llm.client
    other = copied(llm)
    other.base_url = "http://y/v1"
    assert type(other) is od.LiteLLM
    assert other.default_options.dict() == llm.default_options.dict()
    assert vars(other).keys() == vars(llm).keys() - {"client"}
    assert (other.model_name, other.policy) == (llm.model_name, llm.policy)
    assert (llm.client.client.base_url, other.client.client.base_url) == ("http://x/v1", "http://y/v1")


def test_its_repr_says_what_it_was_made_from_and_no_key(od, policy):
    llm = od.LiteLLM("openai/gpt-4o", base_url="http://x/v1", api_key="secret", policy=str(policy))
    shown = repr(llm)
    assert shown.startswith("LiteLLM('openai/gpt-4o', LiteLLMOptions(")
    assert shown.endswith(f"policy={str(policy)!r}, base_url='http://x/v1')")
    assert "secret" not in shown + repr(llm.client)


def test_it_counts_as_the_model_does(od, original):
    """db-ally's takes the tokenizer of GPT-4 for a model with its provider before it."""
    chat = [{"role": "system", "content": "Zażółć gęślą jaźń"}, {"role": "user", "content": "🦉📚" * 10}]
    prompt = need("dbally.prompt.template").PromptTemplate(chat)
    exact = original.LiteLLM("gpt-4o").count_tokens(prompt)
    assert od.LiteLLM("openai/gpt-4o").count_tokens(prompt) == od.LiteLLM("gpt-4o").count_tokens(prompt) == exact
    assert original.LiteLLM("openai/gpt-4o").count_tokens(prompt) != exact


def test_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dbally", None)
    for name in [name for name in sys.modules if name.startswith("overcoat.dbally")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"pip install 'overcoat\[dbally\]'"):
        import overcoat.dbally  # noqa: F401


def test_what_db_ally_itself_misses_is_not_blamed_on_db_ally(od, monkeypatch):
    class WithoutPandas:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "dbally":
                raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(sys, "meta_path", [WithoutPandas, *sys.meta_path])
    for name in [name for name in sys.modules if name == "dbally" or name.startswith("overcoat.dbally")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match="pandas"):
        import overcoat.dbally  # noqa: F401
