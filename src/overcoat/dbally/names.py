"""Every span and attribute name that db-ally's part of overcoat emits.

No `gen_ai.*` is among them: a Jaeger that finds one on a span takes it for a call to a model.
"""

from __future__ import annotations

from typing import Final

# Spans. All but the first are its children, and are there where db-ally tells of such a thing.
SPAN_ASK: Final = "overcoat.ask"
SPAN_VIEW_SELECTION: Final = "ask.view_selection"
SPAN_IQL: Final = "ask.iql"
SPAN_SQL: Final = "ask.sql"
SPAN_RESPONSE: Final = "ask.response"
SPAN_PROMPT: Final = "ask.prompt"  # from a template that is not db-ally's own
SPAN_SIMILARITY: Final = "ask.similarity"
SPAN_FALLBACK: Final = "ask.fallback"  # around what another collection does
SPAN_EVENT: Final = "ask.event"  # of a class that is not db-ally's own

# Attributes of an ask.
ASK: Final = "overcoat.ask.id"
COLLECTION: Final = "overcoat.ask.collection"
VIEW: Final = "overcoat.ask.view"
OUTCOME: Final = "overcoat.ask.outcome"  # ok, error, refused, cancelled
FALLBACK: Final = "overcoat.ask.fallback"  # the collection that was asked in its place; and on ask.fallback
EXECUTION_TIME: Final = "overcoat.ask.execution_time"  # seconds, as db-ally has them
EXECUTION_TIME_VIEW: Final = "overcoat.ask.execution_time_view"
ROWS: Final = "overcoat.ask.rows"
QUERY_ATTEMPTS: Final = "overcoat.ask.iql.attempts"  # how often IQL or SQL was generated
QUERIES_REFUSED: Final = "overcoat.ask.iql.refused"  # how much of it db-ally could not use

# The roll-up of the calls that an ask made.
CALLS: Final = "overcoat.ask.calls"
REQUESTS: Final = "overcoat.ask.requests"
RETRIES: Final = "overcoat.ask.retries"
CACHE_HITS: Final = "overcoat.ask.cache_hits"
INPUT_TOKENS: Final = "overcoat.ask.input_tokens"
OUTPUT_TOKENS: Final = "overcoat.ask.output_tokens"
COST: Final = "overcoat.ask.cost_usd"
COST_SAVED: Final = "overcoat.ask.cost_saved_usd"
COST_WASTED: Final = "overcoat.ask.cost_wasted_usd"

# Attributes of its children.
TEMPLATE: Final = "overcoat.ask.template"
ATTEMPT: Final = "overcoat.ask.attempt"  # of this template, from 1
STORE: Final = "overcoat.ask.similarity.store"
FETCHER: Final = "overcoat.ask.similarity.fetcher"
FOUND: Final = "overcoat.ask.similarity.found"
EVENT: Final = "overcoat.ask.event"

# Contents, where they are asked for.
QUESTION: Final = "overcoat.ask.question"
QUERY: Final = "overcoat.ask.query"
ANSWER: Final = "overcoat.ask.answer"
SIMILARITY_INPUT: Final = "overcoat.ask.similarity.input"
SIMILARITY_OUTPUT: Final = "overcoat.ask.similarity.output"

# Tags of the calls that an ask makes, on their spans and in the ledger.
TAG_ASK: Final = "ask"
TAG_COLLECTION: Final = "collection"
TAG_VIEW: Final = "view"
TAG_TEMPLATE: Final = "template"
