"""Rates from litellm's own map of prices, where the application has litellm loaded already."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

from overcoat.arithmetic.dollars import EXACT
from overcoat.models import parse_model
from overcoat.pricing.rates import Rates, Tier

_KINDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_creation",
    "cache_creation_input_token_cost_above_1hr": "cache_creation_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
}
_WRITTEN = ("cache_creation", "cache_creation_1h")
_SERVICES = {"batches": "batch", "flex": "flex", "priority": "priority"}
_NAME = re.compile(rf"({'|'.join(_KINDS)})(?:_above_(\d+)k_tokens)?(?:_({'|'.join(_SERVICES)}))?")

_BOTH = ("input_cost_per_token", "output_cost_per_token")
_Table = dict[int, dict[str, Decimal]]

# Whose entries stand without a prefix, by the prefix that litellm has for them; as `litellm_provider` begins.
_UNPREFIXED = {
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "custom_openai": "openai",
    "openai": "openai",
    "text-completion-openai": "text-completion-openai",
    "vertex_ai": "vertex_ai",
    "vertex_ai_beta": "vertex_ai",
}


def rates(model: str, now: float) -> Rates | None:  # noqa: ARG001 - a price source is asked for a moment
    """Return what litellm says that *model* costs; None where it has no entry with prices of its own for it.

    It knows today's prices only. litellm is never imported for this: its functions, which guess at the names that its
    map does not have, call some unknown models free, so that the map alone is read.
    """
    known: object = getattr(sys.modules.get("litellm"), "model_cost", None)
    if not isinstance(known, dict):
        return None
    entry = _entry(cast("dict[str, Any]", known), model)
    if entry is None or "tiered_pricing" in entry or not _is_priced(entry):  # those tiers are of another form
        return None
    tables = _tables(entry)
    standard = tables.pop("")
    return Rates(
        _tiers(standard),
        f"litellm {_version()}",
        _dollars(entry.get("input_cost_per_request")) or Decimal(0),
        {service: _tiers(_over(standard, table)) for service, table in tables.items()},
        _whole(entry.get("max_input_tokens")),
        _whole(entry.get("max_output_tokens")),
    )


def _entry(known: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    """Return the entry of *model*, as litellm names it or, where its map has the bare name, of the same provider."""
    prefix, _, rest = model.partition("/")
    entry = known.get(model)
    if entry is None and prefix in _UNPREFIXED:
        entry = known.get(rest)
        if isinstance(entry, dict) and not str(cast("Any", entry).get("litellm_provider")).startswith(
            _UNPREFIXED[prefix]
        ):
            return None
    elif "/" not in model and parse_model(model).provider is None:
        return None  # anyone may serve what is called so, and at any price
    return cast("Mapping[str, Any]", entry) if isinstance(entry, dict) else None


def _is_priced(entry: Mapping[str, Any]) -> bool:
    """Say whether *entry* has prices of tokens: zeros stand for what is free today, unknown, or sold by other units."""
    used = ("input_cost_per_token",) if entry.get("mode") == "embedding" else _BOTH
    return all(_dollars(entry.get(name)) for name in used)


def _tables(entry: Mapping[str, Any]) -> dict[str, _Table]:
    """Return the rates by service, "" being the standard one, by where their tier begins, and by kind."""
    tables: dict[str, _Table] = defaultdict(lambda: defaultdict(dict))
    for name, value in entry.items():
        found = _NAME.fullmatch(name)
        rate = _dollars(value)
        if found is not None and rate is not None:
            service = _SERVICES.get(found[3], "")
            tables[service][int(found[2] or 0) * 1000][_KINDS[found[1]]] = rate
    return tables


def _over(standard: _Table, table: _Table) -> _Table:
    """Return the rates of a service, with the standard ones where it has none."""
    return {above: {**standard.get(above, {}), **table.get(above, {})} for above in {*standard, *table}}


def _tiers(table: _Table) -> tuple[Tier, ...]:
    """Return *table* tier by tier; what a higher one does not say is as in the one below."""
    tiers: list[Tier] = []
    rates: dict[str, Decimal] = {}
    for above in sorted({0, *table}):
        rates = {**rates, **table.get(above, {})}
        # No provider sells what is written to its cache for less than plain input; where the map says so, it means 0
        # on top of that, or what keeping it costs.
        written = {kind for kind in _WRITTEN if kind in rates and rates[kind] < rates["input"]}
        known = {kind: rate for kind, rate in rates.items() if kind not in written}
        tiers.append(Tier(above, **{"input": None, "output": None, **known}))
    return tuple(tiers)


def _dollars(value: object) -> Decimal | None:
    """Return the shortest decimal that is the float, which is what was written; None for what is no price."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    rate = EXACT.create_decimal(repr(value))
    return rate if rate.is_finite() and rate >= 0 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


@cache
def _version() -> str:
    try:
        return version("litellm")
    except PackageNotFoundError:  # a copy of it in the application's own tree
        return "of unknown version"
