"""The public surface, pinned: a name that appears or goes is a decision, not an accident."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import overcoat

PUBLIC = [
    "LLM",
    "LLMClient",
    "LLMEvent",
    "LLMOptions",
    "LiteLLM",
    "LiteLLMClient",
    "LiteLLMOptions",
    "PromptTemplate",
    "ChatFormat",
    "NotGiven",
    "NOT_GIVEN",
    "stack",
    "wrap",
    "Policy",
    "PolicyWatch",
    "explain",
    "Explanation",
    "Layer",
    "Request",
    "Reply",
    "Trace",
    "Deadline",
    "Cache",
    "Validate",
    "Fallback",
    "Hedge",
    "Budget",
    "Limit",
    "BudgetAlert",
    "Breaker",
    "RateLimit",
    "Retry",
    "RetryBudget",
    "Backoff",
    "OnError",
    "ServerDelay",
    "Timeout",
    "Meter",
    "Call",
    "Calls",
    "Inference",
    "Attempt",
    "Wait",
    "Lookup",
    "Reservation",
    "Turn",
    "Usage",
    "Cost",
    "capture",
    "tags",
    "cache_mode",
    "cache_sample",
    "invalidate",
    "OvercoatError",
    "PolicyError",
    "StackOrderError",
    "AttemptTimeout",
    "AnswerRejected",
    "LedgerError",
    "StoreUnavailable",
    "Refused",
    "DeadlineExceeded",
    "RequestsExceeded",
    "CircuitOpen",
    "RateLimited",
    "BudgetExceeded",
    "BudgetUnchecked",
    "NotCached",
    "UnknownPrice",
    "LLMError",
    "LLMConnectionError",
    "LLMStatusError",
    "LLMResponseError",
    "PromptTemplateError",
    "__version__",
]

LAYERS = [
    overcoat.Trace,
    overcoat.Deadline,
    overcoat.Cache,
    overcoat.Validate,
    overcoat.Fallback,
    overcoat.Hedge,
    overcoat.Budget,
    overcoat.Retry,
    overcoat.Breaker,
    overcoat.RateLimit,
    overcoat.Timeout,
    overcoat.Meter,
]


def test_the_public_names():
    assert sorted(overcoat.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_can_be_had_and_is_documented(name):
    value = getattr(overcoat, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__


def test_nothing_else_can_be_had():
    with pytest.raises(AttributeError, match="module 'overcoat' has no attribute 'Catch'"):
        overcoat.Catch  # noqa: B018 - the access is the test


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_a_layer_is_frozen_settings_that_know_their_place(layer):
    assert dataclasses.is_dataclass(layer)
    assert layer.__dataclass_params__.frozen
    assert layer.place
    assert layer.because
    assert layer.twice


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
def test_every_setting_is_documented(layer):
    """In the class's docstring, by its name: editors show it there."""
    for field in dataclasses.fields(layer):
        assert f"{field.name}: " in inspect.getdoc(layer)
