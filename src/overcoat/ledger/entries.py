"""A call as entries of the ledger: one for the model that was asked, and one for each other model that was used.

Nearly every call is one entry. Where a fallback or a hedge went to another model, that model's attempts are an entry of
their own, so that sums by model need nothing but the table, and add up. What is the call's as a whole (that it was one,
and what it saved) is on its first entry only; how it ended, its tags and its policy are on all of them.

Money is in whole picodollars, rounded up. Nanodollars were rejected: a cached token at $0.0375 a million costs 37.5 of
them. SQLite has no decimals, and sums of binary fractions are not exact.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from overcoat.accounting import Usage
from overcoat.arithmetic.dollars import in_units, of_units
from overcoat.models import parse_model
from overcoat.record import Attempt, Call, Inference, total_cost, total_usage

Entry = dict[str, Any]
"""A row, by the names of the table's columns."""

TOKENS: Sequence[str] = (
    *("input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_output_tokens"),
)
"""The columns of tokens, which are fields of `Usage` as well."""

_UNKNOWN = Usage()
_NONE_USED = Usage(**dict.fromkeys(TOKENS, 0))
_DIGITS = 12  # after the point, of a picodollar
_MOST = 2**63 - 1  # that a database's integer holds


def entries_of(call: Call, answered_by: Attempt | None, service: str | None = None) -> list[Entry]:
    """Return the entries of *call*, which has ended; *answered_by* is the attempt whose answer the caller got.

    An entry's `billed`, `saved` and `wasted` are None where the price of any charged part is unknown. `attempts` counts
    the requests, and `detail` has what each of them was, its exact cost as text included.
    """
    of_model: dict[str | None, list[tuple[Inference, Attempt]]] = {call.model: []}
    for inference in call.inferences:
        for attempt in inference.attempts:
            of_model.setdefault(attempt.model, []).append((inference, attempt))
    started = int(call.at(call.started) * 1000)
    common: Entry = {
        "id": _new_id(started),
        "started": started,
        "service": _text(service),
        "client": _text(call.client),
        "policy": _text(call.policy.name) if call.policy else None,
        "digest": _text(call.policy.digest) if call.policy else None,
        "outcome": call.outcome,
        "error_type": _text(call.error_type),
        "cache": call.cache.result if call.cache else None,
        "tags": {tag_key(name): _text(value) for name, value in call.tags.items()},
        "trace_id": f"{call.span[0]:032x}" if call.span else None,
        "span_id": f"{call.span[1]:016x}" if call.span else None,
    }
    return [
        {
            **common,
            "entry": number,
            "model": _text(model),
            "provider": _provider(model),
            "saved": _picodollars(call.cost.saved) if number == 0 else 0,
            **_used(made, answered_by),
        }
        for number, (model, made) in enumerate(of_model.items())
    ]


def dollars(picodollars: int | None) -> Decimal | None:
    """Return dollars, exactly; None for None."""
    return None if picodollars is None else of_units(picodollars, _DIGITS)


def tag_key(name: str) -> str:
    """Return the key of a tag in the column `tags`: its name, percent-encoded, as far as it is not plain ASCII.

    SQLite's paths into JSON have no escapes, so that a name with a quote in it could not be asked for.
    """
    return quote(name, safe=" ", errors="surrogatepass")


def _used(made: Sequence[tuple[Inference, Attempt]], answered_by: Attempt | None) -> Entry:
    """Return the columns that sum up *made*, all attempts of one model."""
    attempts = [attempt for _, attempt in made]
    charged = any(attempt.charged for attempt in attempts)
    usage = (total_usage(attempts) or _UNKNOWN) if charged else _NONE_USED
    return {
        "attempts": len(attempts),
        **{name: _count(getattr(usage, name)) for name in TOKENS},
        "billed": _picodollars(total_cost(attempts)),
        "wasted": _picodollars(total_cost([attempt for attempt in attempts if attempt is not answered_by])),
        "price_source": _listed({attempt.price_source for attempt in attempts}),
        "upper_bound": any(attempt.upper_bound for attempt in attempts),
        "anomaly": _listed({attempt.anomaly for attempt in attempts}),
        "detail": [_detail(inference, attempt, answered_by) for inference, attempt in made],
    }


def _detail(inference: Inference, attempt: Attempt, answered_by: Attempt | None) -> dict[str, Any]:
    usage, failure = attempt.usage, attempt.failure
    known = {
        "role": inference.role,
        "number": attempt.number,
        "answered": attempt is answered_by,
        "seconds": None if attempt.duration is None else round(attempt.duration, 6),
        "error_type": _text(attempt.error_type),
        "status": failure.status if failure else None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cost": None if attempt.cost is None else f"{attempt.cost:f}",
    }
    return {name: value for name, value in known.items() if value is not None}


def _new_id(milliseconds: int) -> str:
    """Return a UUID of version 7 (RFC 9562) as 32 digits: by its time, so that an index grows at its end."""
    chance = int.from_bytes(os.urandom(10))
    head = (milliseconds & (1 << 48) - 1) << 16 | 7 << 12 | chance >> 68
    return f"{head:016x}{2 << 62 | chance & (1 << 62) - 1:016x}"


def _picodollars(amount: Decimal | None) -> int | None:
    if amount is None:
        return None
    return _count(in_units(amount, _DIGITS))


def _count(number: int | None) -> int | None:
    # What no database holds, nine million dollars for one call, is a provider's nonsense; it must not stop the others.
    return number if number is not None and -_MOST <= number <= _MOST else None


def _listed(values: set[str | None]) -> str | None:
    return _text(", ".join(sorted(value for value in values if value))) or None


def _text(value: object) -> str | None:
    """Return *value* as text that every database takes: Postgres has no NUL, and UTF-8 no half pairs."""
    if value is None:
        return None
    text = str(value)
    return text if text.isprintable() else text.replace("\0", "\ufffd").encode(errors="replace").decode()


@lru_cache(maxsize=1024)
def _provider(model: object) -> str | None:
    return _text(parse_model(model).provider) if isinstance(model, str) else None
