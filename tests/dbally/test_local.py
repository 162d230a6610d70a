"""db-ally's `LocalLLM`, the real class over weights that are none: its client goes into a stack as any other does."""

from __future__ import annotations

import sys
from functools import cached_property
from types import ModuleType, SimpleNamespace

import pytest

from overcoat import Cache, Retry, Trace, capture, stack
from overcoat.testing import run

from ..real.parts import need


class Ids(list):
    """Tokens, as torch has them: a row of them in a batch."""

    @property
    def shape(self):
        return (1, len(self))

    def to(self, device):
        return self

    def __getitem__(self, index):
        return Ids(super().__getitem__(index)) if isinstance(index, slice) else super().__getitem__(index)


class Tokenizer:
    """A token for each word."""

    eos_token_id = 0

    @classmethod
    def from_pretrained(cls, name, token=None):
        return cls()

    def apply_chat_template(self, chat, **kwargs):
        return Ids(word for message in chat for word in message["content"].split())

    def decode(self, ids, *, skip_special_tokens):
        return " ".join(ids)


class Weights:
    """Says the prompt's last word backwards."""

    device = "cpu"
    given = ()

    @classmethod
    def from_pretrained(cls, name, **kwargs):
        return cls()

    def generate(self, input_ids, *, eos_token_id, **options):
        type(self).given = options
        return [Ids([*input_ids, input_ids[-1][::-1]])]


@pytest.fixture
def local(monkeypatch):
    """db-ally's modules for local models, with stand-ins for torch and transformers below them."""
    need("dbally")
    torch, transformers = ModuleType("torch"), ModuleType("transformers")
    torch.bfloat16 = "bfloat16"
    transformers.AutoModelForCausalLM, transformers.AutoTokenizer = Weights, Tokenizer
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    for name in ("dbally.llms.clients.local", "dbally.llms.local"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = SimpleNamespace(llm=need("dbally.llms.local").LocalLLM, client=need("dbally.llms.clients.local"))
    yield found
    for name in ("dbally.llms.clients.local", "dbally.llms.local"):
        sys.modules.pop(name, None)


def test_its_client_works_in_a_stack(local):
    prompt = need("dbally.prompt.template").PromptTemplate(
        [{"role": "system", "content": "Be brief ."}, {"role": "user", "content": "Say stop"}]
    )

    class Wrapped(local.llm):
        @cached_property
        def client(self):
            return stack(super().client, Trace(), Cache(sampled=True), Retry())

    llm = Wrapped("a/model", local.client.LocalLLMOptions(max_new_tokens=5))
    assert llm.count_tokens(prompt) == local.llm("a/model").count_tokens(prompt) == 5
    with capture() as calls:
        answers = [run(llm.generate_text(prompt)) for _ in range(2)]
    assert answers == ["pots", "pots"]
    assert Weights.given["max_new_tokens"] == 5
    first, second = calls
    assert (first.usage.input_tokens, first.usage.output_tokens) == (5, 1)
    assert (first.cache.result, second.cache.result) == ("miss", "hit")
    assert first.model == "a/model"
