"""The ledger's two tables, the same in every database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

VERSION: Final = 1
"""Of these tables. A ledger of another version is neither read nor written, and never altered."""

metadata = MetaData()
_Json = JSON().with_variant(JSONB, "postgresql")  # which can be grouped by, as text can in SQLite

versions = Table("overcoat_ledger_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

entries = Table(
    "overcoat_ledger",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),  # of the call
    Column("entry", SmallInteger, primary_key=True, autoincrement=False),  # 0 is the call's own model
    Column("started", BigInteger, nullable=False),  # Unix time, UTC, in milliseconds
    Column("service", Text),  # OTEL_SERVICE_NAME
    Column("client", Text, nullable=False),
    Column("model", Text),
    Column("provider", Text),
    Column("policy", Text),
    Column("digest", Text),  # of the effective policy
    Column("outcome", Text, nullable=False),
    Column("error_type", Text),
    Column("cache", Text),
    Column("tags", _Json, nullable=False),  # an object; see `tag_key` for its keys
    Column("attempts", Integer, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cache_read_input_tokens", BigInteger),
    Column("cache_creation_input_tokens", BigInteger),
    Column("reasoning_output_tokens", BigInteger),
    Column("billed", BigInteger),  # picodollars, as are the next two; NULL where a price is unknown
    Column("saved", BigInteger),
    Column("wasted", BigInteger),  # a part of what is billed
    Column("price_source", Text),
    Column("upper_bound", Boolean, nullable=False),
    Column("anomaly", Text),
    Column("trace_id", Text),
    Column("span_id", Text),
    Column("detail", _Json, nullable=False),  # a list with an object for each attempt
    Index("overcoat_ledger_started", "started"),
)
