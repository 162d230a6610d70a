"""A library that db-ally can be asked about, and a model without a network that answers what db-ally asks it."""

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import dbally
import sqlalchemy
from dbally.audit.event_handlers.base import EventHandler
from dbally.audit.events import LLMEvent
from dbally.llms.base import LLM
from dbally.llms.clients.base import LLMClient, LLMOptions
from dbally.similarity import SimilarityFetcher, SimilarityIndex, SimilarityStore
from dbally.views.freeform.text2sql import BaseText2SQLView, ColumnConfig, TableConfig

from overcoat import stack
from overcoat.dbally.templates import origin_of

BOOKS = [("Solaris", "Polish", 1961), ("Flights", "Polish", 2007), ("Roadside Picnic", "Russian", 1972)]
LOANS = [("Ada", "Solaris"), ("Alan", "Flights")]

POLISH, LOANED, UNKNOWN = "Which books are Polish?", "What has Ada borrowed?", "What is the weather?"

metadata = sqlalchemy.MetaData()
books = sqlalchemy.Table(
    "books",
    metadata,
    *(sqlalchemy.Column(name, kind) for name, kind in [("title", sqlalchemy.String), ("language", sqlalchemy.String)]),
    sqlalchemy.Column("year", sqlalchemy.Integer),
)
loans = sqlalchemy.Table(
    "loans", metadata, *(sqlalchemy.Column(name, sqlalchemy.String) for name in ("reader", "title"))
)


class Languages(SimilarityFetcher):
    async def fetch(self):
        return ["Polish", "Russian"]


class Folded(SimilarityStore):
    """Finds what differs in case only."""

    def __init__(self):
        self.values = {}

    async def store(self, data):
        self.values = {value.casefold(): value for value in data}

    async def find_similar(self, text):
        return self.values.get(text.casefold())


languages = SimilarityIndex(Folded(), Languages())


class Books(dbally.SqlAlchemyBaseView):
    """The books: titles, languages and years."""

    def get_select(self):
        return sqlalchemy.select(books.c.title)

    @dbally.decorators.view_filter()
    def in_language(self, language: Annotated[str, languages]) -> sqlalchemy.ColumnElement[bool]:
        """Keep the books in *language*."""
        return books.c.language == language

    @dbally.decorators.view_aggregation()
    def count(self) -> sqlalchemy.Select:
        """Count the books."""
        return sqlalchemy.select(sqlalchemy.func.count().label("count")).select_from(self.select.subquery())


class Loans(BaseText2SQLView):
    """Who has borrowed which book."""

    def get_tables(self):
        return [TableConfig("loans", [ColumnConfig("reader", "VARCHAR"), ColumnConfig("title", "VARCHAR")])]


class Anything(dbally.DataFrameBaseView):
    """What the library cannot answer."""


def engine():
    made = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.StaticPool)
    metadata.create_all(made)
    with made.begin() as connection:
        connection.execute(books.insert(), [{"title": t, "language": lang, "year": year} for t, lang, year in BOOKS])
        connection.execute(loans.insert(), [{"reader": reader, "title": title} for reader, title in LOANS])
    return made


SQL = json.dumps(
    {
        "sql": "SELECT title FROM loans WHERE reader = :reader",
        "parameters": [{"name": "reader", "value": "Ada", "table": "loans", "column": "reader"}],
    }
)
REPLIES = {  # by template, then by question
    "view_selection": {POLISH: "Books", LOANED: "Loans", UNKNOWN: "NoViewFoundError"},
    "filters_decision": {POLISH: "Decision: True"},
    "aggregation_decision": {POLISH: "Decision: False"},
    "filters_generation": {POLISH: 'in_language("POLISH")'},
    "aggregation_generation": {POLISH: "count()"},
    "sql_generation": {LOANED: SQL},
    "nl_response": {POLISH: "Solaris and Flights.", LOANED: "Solaris."},
    "query_explanation": {POLISH: "Polish books.", LOANED: "Ada's loans."},
}


@dataclass
class Options(LLMOptions):
    temperature: float = 0.0


class Model(LLMClient[Options]):
    """Answers from `REPLIES`, or by what stands in `instead`, one at a time: a text, an error, or a function.

    Attributes:
        instead: By template.
        seen: The template of each request, in order.
        during: Called in each request.
    """

    def __init__(self, during=None):
        super().__init__("openai/gpt-4o-mini")
        self.instead = defaultdict(list)
        self.seen = []
        self.during = during

    async def call(self, conversation, options, event, json_mode=False):
        template = origin_of(LLMEvent(prompt=conversation, type="?")).template
        self.seen.append(template)
        if self.during is not None:
            await self.during(template)
        event.prompt_tokens, event.completion_tokens, event.total_tokens = 100, 10, 110
        if self.instead[template]:
            step = self.instead[template].pop(0)
            if isinstance(step, BaseException):
                raise step
            return step
        text = " ".join(message["content"] for message in conversation)
        return next(reply for question, reply in REPLIES[template].items() if question in text)


class Asked(LLM[Options]):
    """An LLM as the documentation has it, around any model."""

    _options_cls = Options

    def __init__(self, model, *layers):
        super().__init__(model.model_name)
        self.model = model
        self.around = layers

    @cached_property
    def client(self):
        return stack(self.model, *self.around)


class Told(EventHandler):
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    async def request_start(self, user_request):
        self.told.append(("request", user_request.collection_name, user_request.question))
        return len(self.told)

    async def event_start(self, event, request_context):
        self.told.append(("start", type(event).__name__, request_context))
        return len(self.told)

    async def event_end(self, event, request_context, event_context):
        self.told.append(("end", type(event).__name__, request_context, event_context))

    async def request_end(self, output, request_context):
        self.told.append(("answer", output.result.view_name, request_context))


def collection(llm, *views, name="library", handlers=()):
    """Return a collection of *views*, by default of both, on a database of its own."""
    made = dbally.create_collection(name, llm, event_handlers=list(handlers))
    data = engine()
    for view in views or (Books, Loans):
        made.add(view, lambda view=view: view(data))
    return made
