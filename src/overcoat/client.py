"""The one module that knows db-ally's `call` and its mutable `event`: the stack of layers around a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

from overcoat.assembly import Assembled, Bound, assemble
from overcoat.layer import Client, Handler, Layer, PlacedLayer, Reply, Request
from overcoat.order import check_order
from overcoat.record import Attempt, Call, PolicyStamp, Usage, current_captures, current_tags
from overcoat.sdk_retries import quieting

C = TypeVar("C", bound=Client)


TOKEN_FIELDS = ("prompt_tokens", "completion_tokens", "total_tokens")
DETAIL_FIELDS = (
    "cached_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "finish_reason",
    "response_id",
    "response_model",
)
"""What a client may set on its event beyond db-ally's fields, so that it reaches the record."""

_SAID = frozenset(TOKEN_FIELDS + DETAIL_FIELDS)
_CONTAINERS = (list, dict, set)
_MISSING = object()


def stack(
    client: C,
    *layers: Layer | PlacedLayer,
    order: Literal["canonical", "as given"] = "canonical",
    policy: PolicyStamp | None = None,
) -> C:
    """Return a client whose calls pass through *layers*, the first outermost, before they reach *client*.

    Args:
        client: Anything with db-ally's `async call(conversation, options, event, json_mode=False) -> str`, another
            stack included, whose layers then lie inside these.
        *layers: overcoat's layers, or any `async def (request, inner)`, which may stand anywhere.
        order: "canonical" refuses orders that do harm; "as given" says that one means it.
        policy: Which policy the layers are made by, for the record; `wrap` says so.

    Raises:
        TypeError: *client* has no `call`, or a layer is not one.
        ValueError: *order* is neither of the two.
        StackOrderError: overcoat's layers stand in a harmful order.
    """
    if not callable(getattr(client, "call", None)):
        raise TypeError(
            f"stack(client={client!r}): expected an object with `async call(conversation, options, event, "
            f"json_mode=False)`, but {type(client).__name__} has no method `call`"
        )
    for index, layer in enumerate(layers):
        if isinstance(layer, type) or not (isinstance(layer, PlacedLayer) or callable(layer)):
            raise TypeError(
                f"stack(): layer {index} is {layer!r}; expected one of overcoat's layers, such as Retry(), or an "
                f"`async def (request, inner)`"
            )
    if order not in ("canonical", "as given"):
        raise ValueError(f'stack(order={order!r}): expected "canonical" or "as given"')
    # The cast promises `call` and `model_name` only. db-ally's ABC is nominal, ours would be a second one, and a
    # `__getattr__` that forwards the rest was rejected: it fails silently where a base class has a default.
    return cast("C", Stack(client, layers, order, policy))


class Stack(Assembled):
    """The client that `stack` makes. Its type is private to overcoat; to a checker it is the inner client's."""

    __slots__ = ("_handler", "client", "layers", "order", "policy")

    def __init__(
        self, client: Client, layers: Sequence[Layer | PlacedLayer], order: str, policy: PolicyStamp | None
    ) -> None:
        self.client = client
        self.layers = tuple(layers)
        self.order = order
        # A stack inside a stack is opened, so that order, record and spans are those of one call. It keeps its state.
        inner = client if isinstance(client, Stack) else None
        self.innermost = inner.innermost if inner else client
        self.policy: PolicyStamp | None = policy or (inner.policy if inner else None)
        inside: tuple[Bound, ...] = inner.bound if inner else ()
        if order == "canonical":
            check_order([*layers, *(bound.layer for bound in inside)])
        self.bound = (*(Bound.to(self.innermost, layer) for layer in layers), *inside)
        self._handler = assemble(self.innermost, self.bound, _send)

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str | None:
        """Answer *conversation*, as the inner client's `call` would, through the layers.

        Raises:
            TypeError: *conversation* is not a list of role/content dicts, or *event* has no token fields.
        """
        _check_conversation(conversation)
        _check_event(event)
        clock = asyncio.get_running_loop().time
        now = clock()
        epoch = time.time() - now
        name = type(self.innermost).__name__
        call = Call(name, self.model_name, json_mode, current_tags(), now, epoch, self.policy, clock)
        try:
            reply = await self._handler(Request(conversation, options, event, json_mode, call))
        finally:
            for captured in current_captures():
                captured.append(call)
        for name, value in reply.fields.items():
            setattr(event, name, value)
        return reply.text

    @property
    def model_name(self) -> Any:
        """The inner client's `model_name`; None where it has none."""
        return getattr(self.innermost, "model_name", None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a stack has `call` and `model_name`, and no {name!r}; what it was stacked around is its `client`"
        )

    def __repr__(self) -> str:
        parts = [repr(self.client), *(_repr(layer) for layer in self.layers)]
        if self.order != "canonical":
            parts.append(f"order={self.order!r}")
        return f"stack({', '.join(parts)})"


def _send(client: Client) -> Handler:
    """Turn *client* into the innermost handler: a copy of the event goes in, what was written to it comes out."""
    quiet = quieting(client)

    async def send(request: Request) -> Reply:
        before = dict(_attributes(request.event))
        event = _private(request.event, before)
        attempt = cast("Attempt", request.attempt)  # the recorder of attempts is always outside
        options = request.options if quiet is None else quiet(request.options)
        try:
            text = await client.call(
                conversation=request.conversation, options=options, event=event, json_mode=request.json_mode
            )
        finally:
            said = _attributes(event)
            _record(said, attempt)
        return Reply(text, _written(said, before), attempt)

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


def _record(said: Mapping[str, Any], attempt: Attempt) -> None:
    """Move what the client said into the record."""
    get = said.get
    prompt, completion, total = (_count(get(name)) for name in TOKEN_FIELDS)
    if prompt is not None or completion is not None or total is not None:
        cached, created, reasoning = get("cached_tokens"), get("cache_creation_tokens"), get("reasoning_tokens")
        attempt.usage = Usage(prompt, completion, total, _count(cached), _count(created), _count(reasoning))
    attempt.finish_reason = get("finish_reason")
    attempt.response_id = get("response_id")
    attempt.response_model = get("response_model")


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _check_conversation(conversation: Any) -> None:
    expected = "expected a list of dicts with 'role' and 'content'"
    if not isinstance(conversation, list):
        raise TypeError(f"call(conversation=...): {expected}, not {type(conversation).__name__}")
    for index, message in enumerate(cast("Sequence[Any]", conversation)):
        # No contents: an error's text ends up in logs and spans.
        if not isinstance(message, dict):
            raise TypeError(f"call(conversation=...): {expected}, but message {index} is {type(message).__name__}")
        if "role" not in message or "content" not in message:
            keys = ", ".join(map(str, cast("Mapping[Any, Any]", message))) or "none"
            raise TypeError(f"call(conversation=...): {expected}, but message {index} has the keys {keys}")


def _check_event(event: Any) -> None:
    for name in TOKEN_FIELDS:
        if not hasattr(event, name):
            raise TypeError(
                f"call(event=...): expected an event with the fields {', '.join(TOKEN_FIELDS)}, such as "
                f"LLMEvent, but {type(event).__name__} has no {name}"
            )


def _repr(layer: Any) -> str:
    return repr(layer) if isinstance(layer, PlacedLayer) else getattr(layer, "__qualname__", None) or repr(layer)
