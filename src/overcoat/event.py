"""The one module that knows db-ally's mutable `event`: attempts write to copies, and the winner's is the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import Any, cast

from overcoat.beneath import handed_over
from overcoat.classification import reported_quota
from overcoat.layer import Client, Handler, Reply, Request
from overcoat.models import counts_thoughts_apart
from overcoat.pricing.usage import COUNTS, read_usage
from overcoat.record import Attempt
from overcoat.sdk_retries import holding

TOKEN_FIELDS = ("prompt_tokens", "completion_tokens", "total_tokens")
DETAIL_FIELDS = (
    *(name for name in COUNTS if name not in TOKEN_FIELDS),
    "finish_reason",
    "response_id",
    "response_model",
    "service_tier",
)
"""What a client may set on its event beyond db-ally's fields, so that it reaches the record."""
RATE_LIMIT_HEADERS = "rate_limit_headers"
"""Where a client may leave the answer's headers on the provider's limits: for the record, and not for the caller."""

_SAID = frozenset((*TOKEN_FIELDS, *DETAIL_FIELDS, RATE_LIMIT_HEADERS))
_CONTAINERS = (list, dict, set)
_MISSING = object()


def check_event(event: Any) -> None:
    """Refuse what a client could not say its counts on.

    Raises:
        TypeError: *event* lacks one of db-ally's fields for tokens.
    """
    for name in TOKEN_FIELDS:
        if not hasattr(event, name):
            raise TypeError(
                f"call(event=...): expected an event with the fields {', '.join(TOKEN_FIELDS)}, such as "
                f"LLMEvent, but {type(event).__name__} has no {name}"
            )


def write(event: Any, fields: Mapping[str, Any]) -> None:
    """Set on the caller's *event* what the client wrote on its copy, as a reply's *fields* have it."""
    for name, value in fields.items():
        setattr(event, name, value)


def sending(client: Client) -> Handler:
    """Turn *client* into the innermost handler: a copy of the event goes in, what was written to it comes out."""
    hold = holding(client)
    thoughts_apart = counts_thoughts_apart(getattr(client, "model_name", None))

    async def send(request: Request) -> Reply:
        before = dict(_attributes(request.event))
        event = _private(request.event, before)
        attempt = cast("Attempt", request.attempt)  # the recorder of attempts is always outside
        options = request.options
        if hold is not None:
            options = hold(options, None if request.deadline is None else request.deadline - request.call.clock())
        try:
            text = await client.call(
                conversation=request.conversation, options=options, event=event, json_mode=request.json_mode
            )
        finally:
            said = _attributes(event)
            corrected = _record(said, attempt, thoughts_apart=thoughts_apart)
        return Reply(text, {**_written(said, before), **corrected}, attempt)

    return send


def _private(event: Any, before: Mapping[str, Any]) -> Any:
    """Copy *event* one level deep, without the counts that an earlier call may have left on it."""
    kind = cast("Any", type(event))
    if _copies_plainly(kind):
        own = object.__new__(kind)
        own.__dict__.update(before)
    else:
        own = copy(event)
    for name, value in before.items():
        if value is None:
            continue
        if name in _SAID:
            setattr(own, name, None)
        elif type(value) in _CONTAINERS and name != "prompt":  # clients do not write prompts, and they are long
            setattr(own, name, value.copy())
    return own


@lru_cache(maxsize=64)
def _copies_plainly(kind: Any) -> bool:
    # `copy` asks all of this of every object anew, and takes four times as long as the copying.
    usual = all(getattr(kind, name) is getattr(object, name) for name in ("__new__", "__reduce_ex__", "__getstate__"))
    special = any(hasattr(kind, name) for name in ("__copy__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"))
    slots = any(getattr(base, "__slots__", ()) for base in kind.__mro__)
    return usual and not special and not slots


def _attributes(event: Any) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", event.__dict__)
    except AttributeError:  # a class with __slots__
        names = [name for kind in type(event).__mro__ for name in getattr(kind, "__slots__", ())]
        return {name: getattr(event, name) for name in names if hasattr(event, name)}


def _written(said: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from *before*; containers are copies, and differ where their contents do."""
    return {
        name: value
        for name, value in said.items()
        if value is not before.get(name, _MISSING)
        and (type(value) not in _CONTAINERS or name not in before or value != before[name])
    }


def _record(said: dict[str, Any], attempt: Attempt, *, thoughts_apart: bool) -> Mapping[str, int]:
    """Move what the client said into the record, and return the counts that the caller should see in its place."""
    headers = said.pop(RATE_LIMIT_HEADERS, None)
    told = handed_over(said)
    if told:
        said = {**said, **told}
    get = said.get
    attempt.usage, attempt.anomaly, corrected = read_usage(said, thoughts_apart=thoughts_apart)
    attempt.finish_reason = get("finish_reason")
    attempt.response_id = get("response_id")
    attempt.response_model = get("response_model")
    service = get("service_tier")
    attempt.service_tier = service if isinstance(service, str) else None
    if headers is not None:
        attempt.quota = reported_quota(headers)
    return {**{name: told[name] for name in TOKEN_FIELDS if name in told}, **corrected} if told else corrected
