"""Counts tokens on this machine, says whether the count is exact, and never asks the network for a tokenizer.

A custom LLM says with one of these what its prompts come to:

```python
class MyLLM(LLM[MyOptions]):
    counter = counter_for("openai/gpt-4o")             # or HuggingFaceCounter("tokenizer.json")

    def count_tokens(self, prompt):
        return self.counter.count(prompt).tokens
```

Make counters at start: tokenizers take up to a second to load. A count takes a millisecond for 10 kB; `count_async`
does it in a thread where it is more than a loop should wait for.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, cast

from overcoat.models import parse_model

Countable = Any
"""A text, a list of messages with "role" and "content", or a prompt with such a list as its `chat`."""

OFF_LOOP = 4096
"""Characters from which `count_async` counts in a thread: about half a millisecond."""

# OpenAI's cookbook, "How to count tokens with tiktoken", for gpt-3.5 and gpt-4: 3 tokens around each message beside its
# role's, and 3 that begin the answer.
_A_MESSAGE = 3
_A_REQUEST = 3


class TokenCount(NamedTuple):
    """How many `tokens`, and whether that is `exact`: counted by the model's own tokenizer, and nothing guessed.

    What chat templates put around messages is a guess, so that only the count of a bare text is ever exact.
    """

    tokens: int
    exact: bool


class TokenCounter(ABC):
    """Counts tokens of texts; a subclass says how, and whether it is the model's own tokenizer that does it."""

    exact: bool

    @abstractmethod
    def count_text(self, text: str) -> int:
        """Return the tokens of *text* alone."""

    def count(self, what: Countable) -> TokenCount:
        """Return the tokens of a text, or of messages with what a chat template is likely to put around them.

        Raises:
            TypeError: *what* is neither a text, nor messages, nor a prompt.
        """
        if isinstance(what, str):
            return TokenCount(self.count_text(what), self.exact)
        messages = list(_messages(what))
        texts = sum(self.count_text(text) for message in messages for text in _texts(message))
        return TokenCount(texts + _A_MESSAGE * len(messages) + _A_REQUEST, exact=False)

    async def count_async(self, what: Countable) -> TokenCount:
        """Return what `count` does, and keep the event loop free where it takes long."""
        if isinstance(what, str):
            size = len(what)
        else:
            size = sum(len(text) for message in _messages(what) for text in _texts(message))
        return self.count(what) if size < OFF_LOOP else await asyncio.to_thread(self.count, what)


class ByteCounter(TokenCounter):
    """Guesses: a token for every three bytes of UTF-8. Most texts come to fewer, names and rare languages to more."""

    exact = False

    def count_text(self, text: str) -> int:
        """Return a third of the bytes of *text*, rounded up."""
        return -(-len(text.encode("utf-8", "surrogatepass")) // 3)

    def __repr__(self) -> str:
        return "ByteCounter()"


class HuggingFaceCounter(TokenCounter):
    """Counts by a tokenizer file (`tokenizer.json`), which comes with the weights of open models.

    Args:
        path: Of the file.
        exact: Whether it is the model's own; of a relative's, say False.

    Raises:
        ImportError: tokenizers is not installed.
        ValueError: There is no such file, or it is no tokenizer.
    """

    def __init__(self, path: str | os.PathLike[str], *, exact: bool = True) -> None:
        tokenizers = _import("tokenizers")
        self.path = os.fspath(path)
        self.exact = exact
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(self.path)
        except Exception as error:  # it raises nothing but Exception itself
            raise ValueError(f"HuggingFaceCounter(path={self.path!r}): cannot be read: {error}") from error

    def count_text(self, text: str) -> int:
        """Return the tokens of *text*, without those that mark its beginning and end."""
        return len(self._tokenizer.encode(_plain(text), add_special_tokens=False).ids)

    def __repr__(self) -> str:
        return f"HuggingFaceCounter({self.path!r}, exact={self.exact!r})"


class TiktokenCounter(TokenCounter):
    """Counts by one of OpenAI's encodings, where its file is on this machine: tiktoken alone would download it.

    It is looked for where tiktoken keeps what it has downloaded (TIKTOKEN_CACHE_DIR, DATA_GYM_CACHE_DIR, or the
    temporary directory), and in litellm, which comes with some.

    Args:
        encoding: Such as "o200k_base"; see `for_model`.
        exact: Whether it is the model's own.

    Raises:
        ImportError: tiktoken is not installed.
        ValueError: There is no such encoding, or its file is not here.
    """

    def __init__(self, encoding: str, *, exact: bool = True) -> None:
        tiktoken = _import("tiktoken")
        self.encoding = encoding
        self.exact = exact
        self._encoding = _load_encoding(tiktoken, encoding)

    @classmethod
    def for_model(cls, model: str) -> TiktokenCounter:
        """Return the counter of one of OpenAI's models, also as Azure serves it.

        Raises:
            ImportError: tiktoken is not installed.
            ValueError: It is another maker's model, or one that tiktoken does not know, or the encoding is not here.
        """
        provider, name = parse_model(model)
        tiktoken = _import("tiktoken")
        if provider in _OPENAI:
            try:
                return cls(tiktoken.encoding_name_for_model(name))
            except KeyError:
                pass  # reported below, with the models of others
        raise ValueError(f"TiktokenCounter.for_model({model!r}): tiktoken knows no tokenizer of it")

    def count_text(self, text: str) -> int:
        """Return the tokens of *text*; what looks like a special token in it is counted as the text that it is."""
        return len(self._encoding.encode(_plain(text), disallowed_special=()))

    def __repr__(self) -> str:
        return f"TiktokenCounter({self.encoding!r}, exact={self.exact!r})"


class LiteLLMCounter(TokenCounter):
    """Counts as litellm does, which is exact for OpenAI's models; for most others it takes one of OpenAI's encodings.

    Args:
        model: As litellm names it.

    Raises:
        ImportError: litellm is not installed.
        ValueError: For this model litellm would ask the Hugging Face hub for a tokenizer, on every count, and wait.
    """

    def __init__(self, model: str) -> None:
        if asks_the_hub(model):
            raise ValueError(
                f"LiteLLMCounter({model!r}): litellm would ask the Hugging Face hub for its tokenizer on every count; "
                f"use HuggingFaceCounter with the model's tokenizer.json"
            )
        from overcoat.llm.litellm import import_litellm  # noqa: PLC0415 - which imports this module

        self.model = model
        provider, name = parse_model(model)
        # litellm knows OpenAI's encodings by the bare name only, and takes an older one for "openai/gpt-4o".
        self._model = name if provider in _OPENAI else model
        self.exact = provider in _OPENAI and _is_known(name)
        self._count = import_litellm().token_counter

    def count_text(self, text: str) -> int:
        """Return the tokens of *text*."""
        return int(self._count(model=self._model, text=_plain(text)))

    def __repr__(self) -> str:
        return f"LiteLLMCounter({self.model!r})"


def counter_for(model: str, *, tokenizer_file: str | os.PathLike[str] | None = None) -> TokenCounter:
    """Return the best counter of *model* that this machine has: its own tokenizer, or one that guesses and says so.

    Args:
        model: As the client names it.
        tokenizer_file: The model's `tokenizer.json`.

    Raises:
        ImportError: A *tokenizer_file* is given, and tokenizers is not installed.
        ValueError: The *tokenizer_file* cannot be read.
    """
    if tokenizer_file is not None:
        return HuggingFaceCounter(tokenizer_file)
    try:
        return TiktokenCounter.for_model(model)
    except (ImportError, ValueError):
        return ByteCounter()


def asks_the_hub(model: str) -> bool:
    """Say whether litellm would look for the tokenizer of *model* on the Hugging Face hub."""
    name = model.lower()
    return any(part in name for part in ("llama-2", "llama-3", "replicate", "command-r"))


_OPENAI = ("openai", "azure.ai.openai")

# The files of encodings, by their names, with their hashes (tiktoken_ext/openai_public.py): one that does not have its
# hash is thrown away by tiktoken, and downloaded again.
_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_HASHES = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
}
_FILES = {**{name: name for name in _HASHES}, "o200k_harmony": "o200k_base", "p50k_edit": "p50k_base"}
_CACHE_DIR = "TIKTOKEN_CACHE_DIR"
_loading = Lock()


def _load_encoding(tiktoken: Any, name: str) -> Any:
    with _loading:
        if name in tiktoken.registry.ENCODINGS:
            return tiktoken.get_encoding(name)
        if name not in _FILES:
            raise ValueError(f"TiktokenCounter({name!r}): expected one of {', '.join(sorted(_FILES))}")
        directory = _directory_of(_FILES[name])
        if directory is None:
            raise ValueError(
                f"TiktokenCounter({name!r}): its file is not on this machine; run tiktoken.get_encoding({name!r}) "
                f"where there is a network, and set {_CACHE_DIR} to where it is kept"
            )
        before = os.environ.get(_CACHE_DIR)
        os.environ[_CACHE_DIR] = directory  # tiktoken has no other way to be told
        try:
            return tiktoken.get_encoding(name)
        finally:
            if before is None:
                del os.environ[_CACHE_DIR]
            else:
                os.environ[_CACHE_DIR] = before


def _directory_of(file: str) -> str | None:
    """Return where the *file* of an encoding is, whole."""
    key = hashlib.sha1(_URL.format(file).encode(), usedforsecurity=False).hexdigest()  # how tiktoken names files
    for directory in _directories():
        path = Path(directory, key)
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _HASHES[file]:
            return directory
    return None


def _directories() -> Iterator[str]:
    for variable in (_CACHE_DIR, "DATA_GYM_CACHE_DIR"):
        if directory := os.environ.get(variable):
            yield directory
    yield str(Path(tempfile.gettempdir(), "data-gym-cache"))
    litellm = importlib.util.find_spec("litellm")  # which does not import it
    for directory in (litellm.submodule_search_locations or ()) if litellm is not None else ():
        yield str(Path(directory, "litellm_core_utils", "tokenizers"))


def _is_known(name: str) -> bool:
    try:
        _import("tiktoken").encoding_name_for_model(name)
    except KeyError:
        return False
    return True


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"counting tokens by {name} needs it: pip install 'overcoat[tokens]'", name=name) from error


def _messages(what: Any) -> Sequence[Mapping[str, Any]]:
    messages = getattr(what, "chat", what)
    if not isinstance(messages, (list, tuple)) or not all(
        isinstance(message, Mapping) for message in cast("Sequence[Any]", messages)
    ):
        raise TypeError(f"count({what!r:.80}): expected a text, a list of messages or a prompt")
    return cast("Sequence[Mapping[str, Any]]", messages)


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of a message, its role and those inside lists of parts included."""
    for value in message.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)):
            for part in cast("Sequence[Any]", value):
                if isinstance(part, str):
                    yield part
                elif isinstance(part, Mapping) and isinstance(text := cast("Any", part).get("text"), str):
                    yield text


def _plain(text: str) -> str:
    """Return *text* with a mark in place of each half of a character, as they are sent: tokenizers refuse those."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
