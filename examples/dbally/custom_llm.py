"""db-ally's how-to for a custom LLM, step by step, with overcoat's layers around its client.

    python examples/dbally/custom_llm.py

The steps are those of https://db-ally.deepsense.ai/how-to/llms/custom/, in the order in which Python needs them. It
needs no key and no network: what answers is a provider on this machine that replies as a model would, and that refuses
the first request. What is asked about is a library in a SQLite database.
"""

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from overcoat import Cache, Call, Meter, Retry, Trace, capture, stack
from overcoat.testing import Provider, Received, Step, answer, rate_limited

try:
    import dbally
    import litellm
    import sqlalchemy
    from dbally.audit.events import LLMEvent
    from dbally.collection import Collection
    from dbally.llms.base import LLM
    from dbally.llms.clients.base import LLMClient, LLMOptions
    from dbally.prompt.template import ChatFormat, PromptTemplate
    from dbally.views.freeform.text2sql import BaseText2SQLView, ColumnConfig, TableConfig

    from overcoat.dbally import LiteLLM, report, trace
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}. This example needs db-ally, and that needs Python 3.11: pip install 'overcoat[dbally]'")

litellm.suppress_debug_info = True  # else it prints advice at every error, those that are retried included


# Customising LLM options: what `LiteLLMOptions` does not have, or should not.


@dataclass
class MyLLMOptions(LLMOptions):
    """What my model can be told; at a temperature above 0 it answers anew each time, and `Cache` keeps nothing."""

    temperature: float
    max_tokens: int = 4096


# Step 2: Create the custom LLM client.


class MyLLMClient(LLMClient[MyLLMOptions]):
    """Makes one request a call, and says on the event what it used; everything else is for the layers around it."""

    def __init__(self, model_name: str, *, base_url: str | None = None, api_key: str | None = None) -> None:
        super().__init__(model_name)
        self.base_url = base_url
        self.api_key = api_key

    async def call(
        self, conversation: ChatFormat, options: MyLLMOptions, event: LLMEvent, json_mode: bool = False
    ) -> str:
        """Return the model's answer, or raise what litellm raises.

        litellm's errors need no translation: `Retry` knows them, and db-ally would repeat its own `LLMError` at once.
        """
        response = await litellm.acompletion(
            model=self.model_name,
            messages=[{"role": message["role"], "content": message["content"]} for message in conversation],
            response_format={"type": "json_object"} if json_mode else None,
            base_url=self.base_url,
            api_key=self.api_key,
            max_retries=0,  # the SDK's own retries would multiply with those of `Retry`, unseen
            **options.dict(),
        )
        event.prompt_tokens = response.usage.prompt_tokens
        event.completion_tokens = response.usage.completion_tokens
        event.total_tokens = response.usage.total_tokens
        report(event, finish_reason=response.choices[0].finish_reason, response_model=response.model)
        return response.choices[0].message.content


# Step 1: Define the subclass. Step 3: Use a tokenizer to count tokens.


class MyLLM(LLM[MyLLMOptions]):
    """Returns the client in its layers, and counts tokens as the model does."""

    _options_cls = MyLLMOptions

    def __init__(
        self, model_name: str, options: MyLLMOptions, *, base_url: str | None = None, api_key: str | None = None
    ) -> None:
        super().__init__(model_name, options)
        self.base_url = base_url
        self.api_key = api_key

    @cached_property
    def client(self) -> MyLLMClient:
        """The one stack of this LLM: a plain property would make one for every call, with an empty cache."""
        client = MyLLMClient(self.model_name, base_url=self.base_url, api_key=self.api_key)
        return stack(client, Trace(), Cache(ttl="1h"), Retry(max_attempts=4), Meter())

    def count_tokens(self, prompt: PromptTemplate[Any]) -> int:
        """Count by the model's own tokenizer; db-ally counts characters, and finds results too long that are not."""
        model = self.model_name.rpartition("/")[2]  # with "openai/" before it, litellm takes the tokenizer of GPT-4
        return sum(litellm.token_counter(model=model, text=message["content"]) for message in prompt.chat)


# Or, in place of all of that, for what litellm calls: db-ally's own `LiteLLM`, its client in layers.


def ready_made(base_url: str | None = None, api_key: str | None = None) -> LiteLLM:
    """Return one that does what the class above does; `policy="overcoat.yaml"` would take the layers from a file."""
    layers = (Trace(), Cache(ttl="1h"), Retry(max_attempts=4), Meter())
    return LiteLLM("openai/gpt-4o-mini", base_url=base_url, api_key=api_key, layers=layers)


# What is asked about: a library. The model chooses between a view whose filters and aggregations are ours, and one
# for which it writes the SQL.

SHELF = [
    ("Solaris", "Polish", 1961),
    ("The Cyberiad", "Polish", 1965),
    ("Flights", "Polish", 2007),
    ("The Left Hand of Darkness", "English", 1969),
    ("Roadside Picnic", "Russian", 1972),
]
LOANS = [("Ada", "Solaris"), ("Ada", "Flights"), ("Alan", "Roadside Picnic")]

metadata = sqlalchemy.MetaData()
books = sqlalchemy.Table(
    "books",
    metadata,
    sqlalchemy.Column("title", sqlalchemy.String),
    sqlalchemy.Column("language", sqlalchemy.String),
    sqlalchemy.Column("year", sqlalchemy.Integer),
)
loans = sqlalchemy.Table(
    "loans", metadata, sqlalchemy.Column("reader", sqlalchemy.String), sqlalchemy.Column("title", sqlalchemy.String)
)


class Books(dbally.SqlAlchemyBaseView):
    """The books of the library: titles, languages and years of publication."""

    def get_select(self) -> sqlalchemy.Select[Any]:
        """Return what filters and aggregations start from."""
        return sqlalchemy.select(books)

    @dbally.decorators.view_filter()
    def in_language(self, language: str) -> sqlalchemy.ColumnElement[bool]:
        """Keep the books that are written in *language*, such as "Polish"."""
        return books.c.language == language

    @dbally.decorators.view_filter()
    def published_before(self, year: int) -> sqlalchemy.ColumnElement[bool]:
        """Keep the books from before *year*."""
        return books.c.year < year

    @dbally.decorators.view_aggregation()
    def count_by_language(self) -> sqlalchemy.Select[Any]:
        """Count the books in each language."""
        found = self.select.subquery()
        return (
            sqlalchemy.select(found.c.language, sqlalchemy.func.count().label("count"))
            .group_by(found.c.language)
            .order_by(found.c.language)
        )


class Loans(BaseText2SQLView):
    """Who has borrowed which book."""

    def get_tables(self) -> list[TableConfig]:
        """Return what the model gets to see of the database."""
        return [TableConfig("loans", [ColumnConfig("reader", "VARCHAR"), ColumnConfig("title", "VARCHAR")])]


def library(shelf: Sequence[tuple[str, str, int]] = SHELF) -> sqlalchemy.Engine:
    """Return a database in memory, with *shelf* (title, language, year) in it."""
    engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(books.insert(), [{"title": t, "language": lang, "year": year} for t, lang, year in shelf])
        connection.execute(loans.insert(), [{"reader": reader, "title": title} for reader, title in LOANS])
    return engine


def collection_of(llm: LLM[Any], engine: sqlalchemy.Engine) -> Collection:
    """Return the two views on *engine*, which can be asked by way of *llm*."""
    collection = dbally.create_collection("my_collection", llm)
    collection.add(Books, lambda: Books(engine))
    collection.add(Loans, lambda: Loans(engine))
    return collection


# What answers in place of a model: a script that looks at what db-ally asks.

OLD_POLISH = "Which Polish books were published before 1970?"
BY_LANGUAGE = "How many books are there in each language?"
BORROWED = "What has Ada borrowed?"

REPLIES = {  # by a phrase of db-ally's prompt; then by the question, where that makes a difference
    "select a class to query": {OLD_POLISH: "Books", BY_LANGUAGE: "Books", BORROWED: "Loans"},
    "requires data filtering": {OLD_POLISH: "... Decision: True", BY_LANGUAGE: "... Decision: False"},
    "requires data aggregation": {OLD_POLISH: "... Decision: False", BY_LANGUAGE: "... Decision: True"},
    "joined with logic operators": {OLD_POLISH: 'in_language("Polish") AND published_before(1970)'},
    "a SINGLE aggregation": {BY_LANGUAGE: "count_by_language()"},
    "Create SQL query": {
        BORROWED: json.dumps(
            {
                "sql": "SELECT title FROM loans WHERE reader = :reader ORDER BY title",
                "parameters": [{"name": "reader", "value": "Ada", "table": "loans", "column": "reader"}],
            }
        )
    },
    "based on the table provided": {
        OLD_POLISH: "There are two: Solaris and The Cyberiad.",
        BY_LANGUAGE: "One in English, three in Polish, one in Russian.",
        BORROWED: "Ada has borrowed Flights and Solaris.",
    },
    "describe a table generated by a query": {
        OLD_POLISH: "The list is too long to print: it has the Polish books from before 1970."
    },
}


def reply(request: Received) -> Step:
    """Answer *request* as a model would: a token for every four characters, as English has them."""
    prompt = " ".join(message["content"] for message in request.body["messages"])
    by_question = next(replies for phrase, replies in REPLIES.items() if phrase in prompt)
    text = next(text for question, text in by_question.items() if question in prompt)
    return answer(text, prompt_tokens=len(prompt) // 4, completion_tokens=len(text) // 4)


# Using the custom LLM.


async def main() -> None:
    """Ask three questions, and the first one again."""
    with Provider(reply) as provider:
        provider.script(rate_limited(retry_after=0.1))
        llm = MyLLM("openai/gpt-4o-mini", MyLLMOptions(temperature=0.0), base_url=provider.url, api_key="none")
        collection = trace(collection_of(llm, library()))  # each ask is one trace
        for question in (OLD_POLISH, BY_LANGUAGE, BORROWED, OLD_POLISH):
            before = len(provider)
            with capture() as calls:
                result = await collection.ask(question, return_natural_response=True)
            print(f"{question}\n  {result.textual_response}")
            for row in result.results:
                print("   ", *row.values())
            print(f"  {len(provider) - before} requests for {summary(calls)}\n")


def summary(calls: Sequence[Call]) -> str:
    """Say what *calls* took."""
    cached = sum(call.cache is not None and call.cache.served for call in calls)
    retried = sum(max(0, len(call.attempts) - 1) for call in calls)
    billed = dollars(call.cost.billed for call in calls)
    saved = dollars(call.cost.saved for call in calls)
    return f"{len(calls)} calls: {cached} from the cache, {retried} retried; {billed} billed, {saved} saved"


def dollars(amounts: Iterable[Decimal | None]) -> str:
    """Add *amounts* up; one that is not known makes the sum unknown."""
    total = Decimal(0)
    for amount in amounts:
        if amount is None:
            return "unknown"
        total += amount
    return f"${total:.6f}"


if __name__ == "__main__":
    asyncio.run(main())
