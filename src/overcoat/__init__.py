"""Observability middleware for LLM clients: tracing, retries, caching, token and cost accounting around any client.

    from overcoat import Cache, Meter, Retry, Trace, stack

    client = stack(MyClient("gpt-4o-mini"), Trace(), Cache(ttl="1h"), Retry(max_attempts=4), Meter())

`client` is called as `MyClient` is. `capture()` collects the record of each call, and `tags()` attributes them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overcoat._version import __version__
from overcoat.accounting import Cost, Usage
from overcoat.attribution import Calls, capture, tags
from overcoat.client import stack
from overcoat.errors import (
    AnswerRejected,
    AttemptTimeout,
    BudgetExceeded,
    BudgetUnchecked,
    CircuitOpen,
    DeadlineExceeded,
    LedgerError,
    LLMConnectionError,
    LLMError,
    LLMResponseError,
    LLMStatusError,
    NotCached,
    OvercoatError,
    PolicyError,
    PromptTemplateError,
    RateLimited,
    Refused,
    RequestsExceeded,
    StackOrderError,
    StoreUnavailable,
    UnknownPrice,
)
from overcoat.layer import Layer, Reply, Request
from overcoat.record import Attempt, Call, Inference, Lookup, Reservation, Turn, Wait

if TYPE_CHECKING:
    from overcoat.budgets.watch import BudgetAlert
    from overcoat.caching.controls import cache_mode, cache_sample, invalidate
    from overcoat.layers.breaker import Breaker
    from overcoat.layers.budget import Budget, Limit
    from overcoat.layers.cache import Cache
    from overcoat.layers.deadline import Deadline
    from overcoat.layers.fallback import Fallback
    from overcoat.layers.hedge import Hedge
    from overcoat.layers.meter import Meter
    from overcoat.layers.rate_limit import RateLimit
    from overcoat.layers.retry import Backoff, OnError, Retry, RetryBudget, ServerDelay
    from overcoat.layers.timeout import Timeout
    from overcoat.layers.trace import Trace
    from overcoat.layers.validate import Validate
    from overcoat.llm import (
        LLM,
        NOT_GIVEN,
        ChatFormat,
        LiteLLM,
        LiteLLMClient,
        LiteLLMOptions,
        LLMClient,
        LLMEvent,
        LLMOptions,
        NotGiven,
        PromptTemplate,
    )
    from overcoat.policy import Explanation, Policy, PolicyWatch, explain, wrap

__all__ = [
    "LLM",
    "NOT_GIVEN",
    "AnswerRejected",
    "Attempt",
    "AttemptTimeout",
    "Backoff",
    "Breaker",
    "Budget",
    "BudgetAlert",
    "BudgetExceeded",
    "BudgetUnchecked",
    "Cache",
    "Call",
    "Calls",
    "ChatFormat",
    "CircuitOpen",
    "Cost",
    "Deadline",
    "DeadlineExceeded",
    "Explanation",
    "Fallback",
    "Hedge",
    "Inference",
    "LLMClient",
    "LLMConnectionError",
    "LLMError",
    "LLMEvent",
    "LLMOptions",
    "LLMResponseError",
    "LLMStatusError",
    "Layer",
    "LedgerError",
    "Limit",
    "LiteLLM",
    "LiteLLMClient",
    "LiteLLMOptions",
    "Lookup",
    "Meter",
    "NotCached",
    "NotGiven",
    "OnError",
    "OvercoatError",
    "Policy",
    "PolicyError",
    "PolicyWatch",
    "PromptTemplate",
    "PromptTemplateError",
    "RateLimit",
    "RateLimited",
    "Refused",
    "Reply",
    "Request",
    "RequestsExceeded",
    "Reservation",
    "Retry",
    "RetryBudget",
    "ServerDelay",
    "StackOrderError",
    "StoreUnavailable",
    "Timeout",
    "Trace",
    "Turn",
    "UnknownPrice",
    "Usage",
    "Validate",
    "Wait",
    "__version__",
    "cache_mode",
    "cache_sample",
    "capture",
    "explain",
    "invalidate",
    "stack",
    "tags",
    "wrap",
]

# Loaded when first asked for: what an application does not use, it does not wait for at its start.
_LATER = {
    "overcoat.budgets.watch": ("BudgetAlert",),
    "overcoat.caching.controls": ("cache_mode", "cache_sample", "invalidate"),
    "overcoat.layers.breaker": ("Breaker",),
    "overcoat.layers.budget": ("Budget", "Limit"),
    "overcoat.layers.cache": ("Cache",),
    "overcoat.layers.deadline": ("Deadline",),
    "overcoat.layers.fallback": ("Fallback",),
    "overcoat.layers.hedge": ("Hedge",),
    "overcoat.layers.meter": ("Meter",),
    "overcoat.layers.rate_limit": ("RateLimit",),
    "overcoat.layers.retry": ("Backoff", "OnError", "Retry", "RetryBudget", "ServerDelay"),
    "overcoat.layers.timeout": ("Timeout",),
    "overcoat.layers.trace": ("Trace",),
    "overcoat.layers.validate": ("Validate",),
    "overcoat.llm": (
        *("LLM", "LLMClient", "LLMEvent", "LLMOptions", "LiteLLM", "LiteLLMClient", "LiteLLMOptions"),
        *("ChatFormat", "NOT_GIVEN", "NotGiven", "PromptTemplate"),
    ),
    "overcoat.policy": ("Explanation", "Policy", "PolicyWatch", "explain", "wrap"),
}
_HOMES = {name: home for home, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
