"""Why a custom LLM should count tokens as its model does: it decides whether the model sees the rows that were found.

    python examples/dbally/count_tokens.py

db-ally's `NLResponder` puts the rows into its prompt where that comes to 4096 tokens at the most; else it has the model
describe the query, without a single row. By default db-ally counts characters, and errs in both directions. It needs no
key and no network: the tokenizer is one that litellm brings along.
"""

import asyncio
import sys
from functools import cached_property
from typing import Any

from overcoat import capture, stack
from overcoat.pricing.tokens import TokenCounter, counter_for

try:
    import dbally
    import pandas as pd
    from dbally.audit.events import LLMEvent
    from dbally.collection import Collection
    from dbally.llms.base import LLM
    from dbally.llms.clients.base import LLMClient, LLMOptions
    from dbally.prompt.template import ChatFormat, PromptTemplate

    from overcoat.dbally import trace
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}. This example needs db-ally, and that needs Python 3.11: pip install 'overcoat[dbally]'")


class Model(LLMClient[LLMOptions]):
    """In place of a model: it says what it got to see."""

    async def call(
        self,
        conversation: ChatFormat,
        options: LLMOptions,  # noqa: ARG002 - db-ally's interface
        event: LLMEvent,  # noqa: ARG002
        json_mode: bool = False,  # noqa: ARG002
    ) -> str:
        """Answer without looking at anything but the prompt."""
        prompt = conversation[0]["content"] + conversation[-1]["content"]
        if "requires data" in prompt:
            return "Decision: False"
        return f"I was shown {prompt.count('The Star Diaries') + prompt.count('𒀀' * 300)} rows."


class ByCharacters(LLM[LLMOptions]):
    """As db-ally has it."""

    _options_cls = LLMOptions

    @cached_property
    def client(self) -> LLMClient[LLMOptions]:
        """The client in a stack, whose calls are recorded."""
        return stack(Model(self.model_name))


class ByTokens(ByCharacters):
    """The same with the model's own tokenizer."""

    @cached_property
    def counter(self) -> TokenCounter:
        """What counts: loading it takes a moment, once."""
        return counter_for(self.model_name)

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Return what the prompt comes to, with what is sent around its messages."""
        return self.counter.count(prompt).tokens


def shelf(books: list[str], llm: LLM[Any]) -> Collection:
    """Return a collection with one view of these *books*."""

    class Books(dbally.DataFrameBaseView):
        """The books of the library."""

        @dbally.decorators.view_filter()
        def titled(self, title: str) -> "pd.Series[bool]":
            """Keep the books of that title."""
            return self.df["title"] == title

    collection = dbally.create_collection("shelf", llm)
    collection.add(Books, lambda: Books(pd.DataFrame({"title": books})))
    return trace(collection)


async def main() -> None:
    """Ask about many short rows, and about a few in a script of which a tokenizer makes several tokens a sign."""
    for what, books in {
        "90 titles": ["The Star Diaries: further reminiscences"] * 90,
        "4 clay tablets": ["𒀀" * 300] * 4,
    }.items():
        for llm in (ByCharacters("openai/gpt-4o"), ByTokens("openai/gpt-4o")):
            with capture() as calls:
                result = await shelf(books, llm).ask("What is there?", return_natural_response=True)
            print(f"{what}, {type(llm).__name__}: {calls[-1].tags['template']}. {result.textual_response}")


if __name__ == "__main__":
    asyncio.run(main())
