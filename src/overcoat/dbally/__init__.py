"""db-ally with overcoat around it: `LiteLLM` in layers, and each `ask` one trace, within bounds.

    import dbally
    import overcoat.dbally

    llm = overcoat.dbally.LiteLLM("openai/gpt-4o", policy="overcoat.yaml")
    collection = overcoat.dbally.trace(dbally.create_collection("library", llm))
    with overcoat.dbally.deadline("30s"), overcoat.dbally.max_requests(12):
        result = await collection.ask("Which books has Ada borrowed?")

An LLM of one's own needs `trace` only: its `client` is a `cached_property` that returns a `stack` or `wrap`.
"""

import os

from overcoat.bounds import deadline, max_requests
from overcoat.dbally.reporting import report
from overcoat.errors import RequestsExceeded

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # db-ally imports litellm, which then fetches prices

try:
    import dbally as _  # noqa: F401 - what all of it needs, and an extra
except ModuleNotFoundError as missing:
    if missing.name != "dbally":
        raise
    raise ImportError(
        "overcoat.dbally needs db-ally, and that needs Python 3.11: pip install 'overcoat[dbally]'", name="dbally"
    ) from missing

from overcoat.dbally.collection import trace
from overcoat.dbally.llm import LiteLLM, LiteLLMClient

__all__ = ["LiteLLM", "LiteLLMClient", "RequestsExceeded", "deadline", "max_requests", "report", "trace"]
