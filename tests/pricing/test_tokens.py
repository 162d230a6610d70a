"""Holds counters to the real tokenizers, to saying whether they are exact, and to never asking the network."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import pickle
import re
import shutil
import socket
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import PromptTemplate
from overcoat.llm import LiteLLM
from overcoat.pricing import tokens
from overcoat.pricing.tokens import (
    OFF_LOOP,
    ByteCounter,
    HuggingFaceCounter,
    LiteLLMCounter,
    TiktokenCounter,
    TokenCount,
    counter_for,
)

tiktoken = pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")
litellm_home = find_spec("litellm")
needs_litellm = pytest.mark.skipif(litellm_home is None, reason="litellm is not installed")

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
TEXTS = [
    "",
    "Why is the sky blue?",
    "def f(x):\n    return x ** 2\n",
    "Zażółć gęślą jaźń",
    "天空为什么是蓝色的",
    "🙂" * 9,
]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """A counter that connects anywhere fails its test."""

    def refuse(*arguments, **options):
        raise AssertionError("a token counter asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def file(tmp_path):
    """A tokenizer file such as weights come with: words, with an unknown one for what it has not seen."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0, "sky": 1, "blue": 2}, unk_token="?"))  # noqa: S106 - a word
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def _nothing_kept(monkeypatch, tmp_path):
    """No encoding is loaded yet, and none is kept where tiktoken keeps what it downloads."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(tokens.tempfile, "gettempdir", lambda: str(tmp_path / "nothing"))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)


@pytest.fixture
def _no_litellm(monkeypatch):
    found = tokens.importlib.util.find_spec
    monkeypatch.setattr(tokens.importlib.util, "find_spec", lambda name: None if name == "litellm" else found(name))


class TestBytes:
    @pytest.mark.parametrize(
        ("text", "count"), [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("天空", 2), ("\ud800", 1)]
    )
    def test_a_third_of_the_bytes(self, text, count):
        assert ByteCounter().count(text) == TokenCount(count, exact=False)

    @needs_litellm
    def test_the_guess_is_within_a_half_of_what_prose_comes_to(self):
        """The texts of docstrings: a file of prose that is always here."""
        prose = "".join(inspect.getdoc(value) or "" for value in vars(tokens).values())
        count = TiktokenCounter("o200k_base").count(prose).tokens
        assert count < ByteCounter().count(prose).tokens < 1.5 * count

    @given(st.text(), st.text())
    def test_more_text_is_not_fewer_tokens(self, text, more):
        assert ByteCounter().count(text).tokens <= ByteCounter().count(text + more).tokens

    def test_it_says_that_it_guesses(self):
        assert ByteCounter().exact is False
        assert "Guesses" in ByteCounter.__doc__


class TestWhatIsCounted:
    def test_messages_have_their_roles_and_what_is_around_them(self):
        texts = sum(
            ByteCounter().count(text).tokens for text in ("system", "Be brief.", "user", "Why is the sky blue?")
        )
        assert ByteCounter().count(MESSAGES) == TokenCount(texts + 2 * 3 + 3, exact=False)

    def test_a_prompt_is_its_messages(self):
        assert ByteCounter().count(PromptTemplate(chat=MESSAGES)) == ByteCounter().count(MESSAGES)

    def test_parts_are_their_texts(self):
        parts = [{"role": "user", "content": ["abc", {"type": "text", "text": "abc"}, {"type": "image_url"}]}]
        assert ByteCounter().count(parts).tokens == ByteCounter().count([{"role": "user"}]).tokens + 2

    @pytest.mark.parametrize("what", [None, 5, ["abc"], b"abc"])
    def test_anything_else_is_refused(self, what):
        with pytest.raises(TypeError, match="expected a text, a list of messages or a prompt"):
            ByteCounter().count(what)

    def test_no_count_of_messages_is_exact(self, file):
        """A chat template is a part of the model's server, and puts around them what it will."""
        assert HuggingFaceCounter(file).count("sky").exact
        assert not HuggingFaceCounter(file).count(MESSAGES).exact


class TestHuggingFace:
    def test_by_the_file(self, file):
        assert HuggingFaceCounter(file).count("sky blue green") == TokenCount(3, exact=True)
        assert HuggingFaceCounter(file, exact=False).count("sky") == TokenCount(1, exact=False)

    def test_half_a_character_is_counted_as_it_is_sent(self, file):
        assert HuggingFaceCounter(file).count("sky \ud800").tokens == 2

    def test_a_part_of_it_that_is_missing_is_another_matter(self, monkeypatch, file):
        """Installing the extra would not help, and is not advised."""

        def broken(name):
            raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

        monkeypatch.setattr(tokens.importlib, "import_module", broken)
        with pytest.raises(ModuleNotFoundError, match="numpy"):
            HuggingFaceCounter(file)

    @pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
    def test_what_is_no_tokenizer_is_refused_where_it_is_named(self, content, tmp_path):
        path = tmp_path / "tokenizer.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"HuggingFaceCounter(path={str(path)!r}): cannot be read")):
            HuggingFaceCounter(path)

    def test_it_may_be_needed_first(self, monkeypatch, file):
        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(ImportError, match=r"pip install 'overcoat\[tokens\]'"):
            HuggingFaceCounter(file)


@needs_litellm
@pytest.mark.usefixtures("_nothing_kept")
class TestTiktoken:
    @pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base", "p50k_base"])
    def test_by_what_litellm_comes_with(self, encoding):
        """And without importing it, or leaving a trace in the environment."""
        counter = TiktokenCounter(encoding)
        theirs = tiktoken.get_encoding(encoding)
        for text in [*TEXTS, "<|endoftext|>"]:
            assert counter.count(text) == TokenCount(len(theirs.encode(text, disallowed_special=())), exact=True)
        assert "TIKTOKEN_CACHE_DIR" not in os.environ

    def test_what_the_environment_says_comes_first_and_stays(self, monkeypatch, tmp_path):
        directory = next(iter(litellm_home.submodule_search_locations))
        shutil.copytree(Path(directory, "litellm_core_utils", "tokenizers"), tmp_path / "kept")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "kept"))
        monkeypatch.setattr(tokens.importlib.util, "find_spec", lambda name: None)
        assert TiktokenCounter("p50k_base").count("a b").tokens == 2
        assert os.environ["TIKTOKEN_CACHE_DIR"] == str(tmp_path / "kept")

    @pytest.mark.usefixtures("_no_litellm")
    def test_what_is_not_here_is_refused_and_not_downloaded(self):
        with pytest.raises(ValueError, match="its file is not on this machine"):
            TiktokenCounter("o200k_base")

    @pytest.mark.usefixtures("_no_litellm")
    def test_a_damaged_file_is_not_here(self, monkeypatch, tmp_path):
        """By itself tiktoken would delete it, and download another."""
        path = tmp_path / hashlib.sha1(tokens._URL.format("o200k_base").encode(), usedforsecurity=False).hexdigest()
        path.write_bytes(b"damaged")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        with pytest.raises(ValueError, match="its file is not on this machine"):
            TiktokenCounter("o200k_base")
        assert path.read_bytes() == b"damaged"

    def test_what_is_loaded_already_is_used(self):
        first = TiktokenCounter("p50k_base")
        assert TiktokenCounter("p50k_base")._encoding is first._encoding

    def test_there_is_no_such_encoding(self):
        with pytest.raises(ValueError, match="expected one of cl100k_base, o200k_base, o200k_harmony"):
            TiktokenCounter("o300k_base")

    @pytest.mark.parametrize(
        ("model", "encoding"),
        [
            ("gpt-4o", "o200k_base"),
            ("openai/gpt-4o-mini", "o200k_base"),
            ("azure/gpt-4o", "o200k_base"),
            ("gpt-3.5-turbo", "cl100k_base"),
        ],
    )
    def test_for_a_model(self, model, encoding):
        assert TiktokenCounter.for_model(model).encoding == encoding

    @pytest.mark.parametrize(
        "model", ["azure/my-deployment", "anthropic/claude-sonnet-4-5", "groq/gpt-4o", "llama3", "gemini-2.5-pro"]
    )
    def test_another_maker_s_model_has_none(self, model):
        """Whatever it is called: an encoding that is not the model's own would be a wrong count without a mark."""
        with pytest.raises(ValueError, match="tiktoken knows no tokenizer of it"):
            TiktokenCounter.for_model(model)

    def test_the_hashes_are_tiktoken_s(self):
        """A file whose hash tiktoken does not expect would be downloaded again."""
        source = inspect.getsource(import_module("tiktoken_ext.openai_public"))
        theirs = dict(re.findall(r'/encodings/(\w+)\.tiktoken",\s+expected_hash="(\w+)"', source))
        assert theirs == tokens._HASHES
        assert set(tokens._FILES) <= set(import_module("tiktoken_ext.openai_public").ENCODING_CONSTRUCTORS)


@needs_litellm
class TestLiteLLM:
    @pytest.mark.parametrize("model", ["openai/gpt-4o", "azure/gpt-4o", "gpt-3.5-turbo"])
    def test_openai_s_models_are_exact(self, model):
        for text in TEXTS[1:]:
            assert LiteLLMCounter(model).count(text) == TiktokenCounter.for_model(model).count(text)

    @pytest.mark.parametrize(
        "model", ["gemini/gemini-2.5-pro", "mistral/mistral-large-latest", "deepseek-chat", "azure/my-deployment",
                  "anthropic/claude-sonnet-4-5"],
    )  # fmt: skip
    def test_of_others_it_takes_another_s_and_that_is_said(self, model):
        count = LiteLLMCounter(model).count("Why is the sky blue?")
        assert (count.tokens > 0, count.exact) == (True, False)

    @pytest.mark.parametrize(
        "model", ["groq/llama-3.3-70b-versatile", "together_ai/meta-llama/Llama-3-8b", "replicate/x", "command-r-plus",
                  "meta-llama/Llama-2-7b"],
    )  # fmt: skip
    def test_what_would_ask_the_hub_is_refused(self, model):
        """The hub would be asked on every count, and the loop blocked for as long as it does not answer."""
        with pytest.raises(ValueError, match="use HuggingFaceCounter with the model's tokenizer"):
            LiteLLMCounter(model)
        prompt = PromptTemplate(chat=MESSAGES)
        assert LiteLLM(model).count_tokens(prompt) == sum(
            ByteCounter().count(message["content"]).tokens for message in MESSAGES
        )


class TestTheBest:
    def test_of_a_file(self, file):
        assert isinstance(counter_for("llama3", tokenizer_file=file), HuggingFaceCounter)

    @needs_litellm
    def test_of_openai(self):
        assert isinstance(counter_for("openai/gpt-4o"), TiktokenCounter)

    @pytest.mark.parametrize("model", ["llama3", "gemini-2.5-pro", "openai/unheard-of"])
    def test_else_a_guess(self, model):
        assert isinstance(counter_for(model), ByteCounter)

    @pytest.mark.usefixtures("_nothing_kept", "_no_litellm")
    def test_of_openai_without_the_file(self):
        assert isinstance(counter_for("openai/gpt-4o"), ByteCounter)

    def test_of_openai_without_tiktoken(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tiktoken", None)
        assert isinstance(counter_for("openai/gpt-4o"), ByteCounter)


class Threads(ByteCounter):
    """Remembers where it counted."""

    def __init__(self):
        self.counted_in = set()

    def count_text(self, text):
        self.counted_in.add(threading.current_thread())
        return super().count_text(text)


@pytest.mark.parametrize("length", [OFF_LOOP - 1, OFF_LOOP, 10 * OFF_LOOP])
def test_the_loop_does_not_wait_for_long_texts(length):
    counter = Threads()
    text = "x" * length
    assert asyncio.run(counter.count_async(text)) == ByteCounter().count(text)
    messages = [{"role": "", "content": text}]
    assert asyncio.run(counter.count_async(messages)) == ByteCounter().count(messages)
    assert (threading.main_thread() in counter.counted_in) == (length < OFF_LOOP)


def test_counters_read_like_the_code_that_made_them(file):
    assert repr(ByteCounter()) == "ByteCounter()"
    assert repr(HuggingFaceCounter(file)) == f"HuggingFaceCounter({str(file)!r}, exact=True)"
    assert pickle.loads(pickle.dumps(HuggingFaceCounter(file))).count("sky").tokens == 1  # noqa: S301 - our own bytes


@needs_litellm
def test_counters_with_names_read_so_too():
    assert repr(TiktokenCounter("p50k_base")) == "TiktokenCounter('p50k_base', exact=True)"
    assert repr(LiteLLMCounter("gpt-4o")) == "LiteLLMCounter('gpt-4o')"
