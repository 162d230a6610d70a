"""All of it: a library in SQLite that db-ally is asked about, each ask one trace, by a policy that operations own.

    python examples/dbally/library.py

Two views, one with filters of our own and one for which the model writes SQL; a similarity index, which knows how
languages are written; and a second collection, which is asked what the first has no view for. The provider is on this
machine: it is busy at first, and its model makes mistakes. Where a Jaeger listens (on port 4317, or where
OTEL_EXPORTER_OTLP_ENDPOINT says), the traces are in it.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import overcoat.telemetry
from overcoat import capture
from overcoat.testing import Provider, Received, Step, answer, error, rate_limited

try:
    import dbally
    import litellm
    import sqlalchemy
    from dbally.collection import Collection
    from dbally.similarity import SimilarityIndex, SimpleSqlAlchemyFetcher
    from dbally.similarity.sqlalchemy_base import CaseInsensitiveSqlAlchemyStore
    from dbally.views.freeform.text2sql import BaseText2SQLView, ColumnConfig, TableConfig

    import overcoat.dbally
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}. This example needs db-ally, and that needs Python 3.11: pip install 'overcoat[dbally]'")

litellm.suppress_debug_info = True  # else it prints advice at every error, those that are retried included

POLICY = Path(__file__).with_name("overcoat.yaml")

# The database.

BOOKS = [("Solaris", "Polish", 1961), ("The Cyberiad", "Polish", 1965), ("Roadside Picnic", "Russian", 1972)]
LOANS = [("Ada", "Solaris"), ("Ada", "Roadside Picnic"), ("Alan", "The Cyberiad")]
HOURS = [("Monday", "9 to 17"), ("Sunday", "closed")]

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
hours = sqlalchemy.Table(
    "hours", metadata, sqlalchemy.Column("day", sqlalchemy.String), sqlalchemy.Column("open", sqlalchemy.String)
)
engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
metadata.create_all(engine)
with engine.begin() as connection:
    for table, rows in ((books, BOOKS), (loans, LOANS), (hours, HOURS)):
        connection.execute(table.insert(), [dict(zip(table.columns.keys(), row, strict=True)) for row in rows])

# The views.

languages = SimilarityIndex(
    CaseInsensitiveSqlAlchemyStore(engine, "languages"), SimpleSqlAlchemyFetcher(engine, books.c.language, books)
)


class Books(dbally.SqlAlchemyBaseView):
    """The books of the library: titles, languages and years of publication."""

    def get_select(self) -> sqlalchemy.Select[Any]:
        """Return what filters and aggregations start from."""
        return sqlalchemy.select(books)

    @dbally.decorators.view_filter()
    def in_language(self, language: Annotated[str, languages]) -> sqlalchemy.ColumnElement[bool]:
        """Keep the books that are written in *language*, such as "Polish"."""
        return books.c.language == language

    @dbally.decorators.view_aggregation()
    def count(self) -> sqlalchemy.Select[Any]:
        """Count the books."""
        return sqlalchemy.select(sqlalchemy.func.count().label("count")).select_from(self.select.subquery())


class Loans(BaseText2SQLView):
    """Who has borrowed which book."""

    def get_tables(self) -> list[TableConfig]:
        """Return what the model gets to see of the database."""
        return [TableConfig("loans", [ColumnConfig("reader", "VARCHAR"), ColumnConfig("title", "VARCHAR")])]


class Hours(BaseText2SQLView):
    """When the library is open."""

    def get_tables(self) -> list[TableConfig]:
        """Return what the model gets to see of the database."""
        return [TableConfig("hours", [ColumnConfig("day", "VARCHAR"), ColumnConfig("open", "VARCHAR")])]


def collection_of(llm: overcoat.dbally.LiteLLM) -> Collection:
    """Return the catalogue, which falls back to the front desk; an ask may take 20 seconds and 30 requests."""
    catalogue = dbally.create_collection("catalogue", llm)
    catalogue.add(Books, lambda: Books(engine))
    catalogue.add(Loans, lambda: Loans(engine))
    desk = dbally.create_collection("front desk", llm)
    desk.add(Hours, lambda: Hours(engine))
    catalogue.set_fallback(desk)
    return overcoat.dbally.trace(catalogue, deadline="20s", max_requests=30)


# What answers in place of a model: a script that looks at what db-ally asks.

POLISH = "Which books are Polish?"
BORROWED = "What has Ada borrowed?"
OPEN = "When are you open on Monday?"


def sql(text: str) -> str:
    """Return the JSON that db-ally expects around a query."""
    return json.dumps({"sql": text, "parameters": []})


REPLIES = {  # by a phrase of db-ally's prompt, then by the question
    "select a class to query": {POLISH: "Books", BORROWED: "Loans", OPEN: "NoViewFoundError"},
    "requires data filtering": {POLISH: "Decision: True"},
    "requires data aggregation": {POLISH: "Decision: False"},
    "joined with logic operators": {POLISH: 'written_in("POLISH")'},  # no such filter: db-ally says so, and asks again
    "Create SQL query": {
        BORROWED: sql("SELECT title FROM loans WHERE reader = 'Ada' ORDER BY title"),
        OPEN: sql("SELECT open FROM hours WHERE day = 'Monday'"),
    },
    "based on the table provided": {
        POLISH: "Solaris and The Cyberiad.",
        BORROWED: "Roadside Picnic and Solaris.",
        OPEN: "From 9 to 17.",
    },
}


def reply(request: Received) -> Step:
    """Answer as a model would: a token for every four characters, as English has them."""
    prompt = " ".join(message["content"] for message in request.body["messages"])
    if "generated IQL is not valid" in prompt:
        text = 'in_language("POLISH")'
    else:
        by_question = next(replies for phrase, replies in REPLIES.items() if phrase in prompt)
        text = next(text for question, text in by_question.items() if question in prompt)
    return answer(text, prompt_tokens=len(prompt) // 4, completion_tokens=len(text) // 4)


async def main() -> None:
    """Ask three questions, and the first one again."""
    with Provider(reply) as provider, overcoat.telemetry.setup("library") as telemetry:
        provider.script(rate_limited(retry_after=0.1), error(503))
        llm = overcoat.dbally.LiteLLM("openai/gpt-4o-mini", base_url=provider.url, api_key="none", policy=POLICY)
        collection = collection_of(llm)
        await collection.update_similarity_indexes()
        for question in (POLISH, BORROWED, OPEN, POLISH):
            before = len(provider)
            with capture() as calls:
                result = await collection.ask(question, return_natural_response=True)
            hits = sum(call.cache is not None and call.cache.served for call in calls)
            print(f"{question} {result.textual_response}")
            print(f"  {result.view_name}: {len(calls)} calls, {hits} of them hits; {len(provider) - before} requests")
        where = "is not exported: nothing listens" if telemetry.endpoint is None else f"is at {telemetry.endpoint}"
        print(f"The trace of each {where}")
    await litellm.close_litellm_async_clients()


if __name__ == "__main__":
    asyncio.run(main())
