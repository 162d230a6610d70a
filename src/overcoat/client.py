"""The stack of layers around a client, which is itself one, by db-ally's `call`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from overcoat.assembly import Assembled, Bound, assemble
from overcoat.attribution import current_captures, current_tags
from overcoat.bounds import current_deadline
from overcoat.errors import PolicyError
from overcoat.event import check_event, sending, write
from overcoat.layer import BranchingLayer, Client, Layer, PlacedLayer, Reply, Request
from overcoat.order import check_order
from overcoat.record import Call, PolicyStamp, ReloadResult

if TYPE_CHECKING:
    from overcoat.policy.effective import EffectivePolicy
    from overcoat.policy.explaining import Explanation

C = TypeVar("C", bound=Client)


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
        PolicyError: With `order="as given"`, one of overcoat's layers is to stand around a policy that is enforced.
    """
    if order not in ("canonical", "as given"):
        raise ValueError(f'stack(order={order!r}): expected "canonical" or "as given"')
    # The cast promises `call` and `model_name` only. db-ally's ABC is nominal, ours would be a second one, and a
    # `__getattr__` that forwards the rest was rejected: it fails silently where a base class has a default.
    return cast("C", Stack(client, layers, order, policy))


class Changing:
    """Marks a client whose layers change while it is in use, so that no stack around it can know them."""

    __slots__ = ()


class Stack(Assembled):
    """The client that `stack` makes. Its type is private to overcoat; to a checker it is the inner client's."""

    __slots__ = ("_handler", "client", "effective", "layers", "order", "policy", "reloads")

    def __init__(
        self,
        client: Client,
        layers: Sequence[Layer | PlacedLayer],
        order: str,
        policy: PolicyStamp | None,
        effective: EffectivePolicy | None = None,
        former: Sequence[Bound] = (),
    ) -> None:
        """Stack *layers*, made by the *effective* policy, if any; what is among the *former* ones keeps its state."""
        _check(client, layers)
        self.client = client
        self.effective = effective
        self.reloads: tuple[ReloadResult, ...] = ()
        self.layers = tuple(layers)
        self.order = order
        # A stack inside a stack is opened, so that order, record and spans are those of one call. It keeps its state.
        inner = client if isinstance(client, Stack) else None
        self.innermost = inner.innermost if inner else client
        self.policy: PolicyStamp | None = policy or (inner.policy if inner else None)
        inside: tuple[Bound, ...] = inner.bound if inner else ()
        if order == "canonical":
            check_order([*layers, *(bound.layer for bound in inside)])
        elif inner is not None and inner.effective is not None and inner.effective.enforces:
            _check_enforced(inner.effective, layers)
        self.bound = (*(_bound(layer, self.innermost, former) for layer in layers), *inside)
        self._handler = assemble(self.innermost, self.bound, sending)

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str | None:
        """Answer *conversation*, as the inner client's `call` would, through the layers.

        Raises:
            TypeError: *conversation* is not a list of role/content dicts, or *event* has no token fields.
        """
        _check_conversation(conversation)
        check_event(event)
        clock = asyncio.get_running_loop().time
        now = clock()
        epoch = time.time() - now
        name = type(self.innermost).__name__
        call = Call(name, self.model_name, json_mode, current_tags(), now, epoch, self.policy, clock, self.reloads)
        call.repeat = self._repeat
        try:
            if (until := current_deadline()) is None:
                reply = await self._handler(Request(conversation, options, event, json_mode, call))
            else:
                request = Request(conversation, options, event, json_mode, call, deadline=until.when)
                reply = await until.hold(self._handler(request))
        finally:
            for captured in current_captures():
                captured.append(call)
        write(event, reply.fields)
        return reply.text

    async def _repeat(self, request: Request) -> Reply:
        """Answer *request*, which has a record of its own, as another call, in the background: its event is let be."""
        try:
            return await self._handler(request)
        finally:
            for captured in current_captures():
                captured.append(request.call)

    @property
    def model_name(self) -> Any:
        """The inner client's `model_name`; None where it has none."""
        return getattr(self.innermost, "model_name", None)

    def explain(self, **asked: Any) -> Explanation:
        """Say what will happen to calls; see `overcoat.explain`, which type checkers know."""
        from overcoat.policy import explain  # noqa: PLC0415 - half a second, for pydantic

        return explain(self, **asked)

    def noting(self, reloads: Sequence[ReloadResult]) -> Stack:
        """Return this stack for one call, whose record says what became of changes to the policy's file."""
        noting = copy(self)
        noting.reloads = tuple(reloads)
        return noting

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"a stack has `call`, `model_name` and `explain`, and no {name!r}; what it was stacked around is its "
            "`client`"
        )

    def __repr__(self) -> str:
        parts = [repr(self.client), *(_repr(layer) for layer in self.layers)]
        if self.order != "canonical":
            parts.append(f"order={self.order!r}")
        return f"stack({', '.join(parts)})"


def _bound(layer: Layer | PlacedLayer, client: Client, former: Sequence[Bound]) -> Bound:
    """Bind *layer*, or return what an equal one was bound to: settings that stay the same keep their state."""
    same = (each for each in former if isinstance(each.layer, PlacedLayer) and each.layer == layer)
    return next(same, None) or Bound.to(client, layer)


def _check(client: Any, layers: Sequence[Any]) -> None:
    if not callable(getattr(client, "call", None)):
        raise TypeError(
            f"stack(client={client!r}): expected an object with `async call(conversation, options, event, "
            f"json_mode=False)`, but {type(client).__name__} has no method `call`"
        )
    targets = [target for layer in layers if isinstance(layer, BranchingLayer) for target in layer.targets]
    for inside in (client, *targets):
        if isinstance(inside, Changing):
            raise TypeError(
                f"stack(): {inside!r} changes with its policy's file, and what is around it would not follow; give "
                f"these layers to its wrap(), or its fallbacks to the file"
            )
    for index, layer in enumerate(layers):
        if isinstance(layer, type) or not (isinstance(layer, PlacedLayer) or callable(layer)):
            raise TypeError(
                f"stack(): layer {index} is {layer!r}; expected one of overcoat's layers, such as Retry(), or an "
                f"`async def (request, inner)`"
            )


def _check_enforced(policy: EffectivePolicy, layers: Sequence[Any]) -> None:
    # In the canonical order nothing of ours can stand around a client that `wrap` made: its Trace is outermost.
    for layer in layers:
        if isinstance(layer, PlacedLayer):
            raise PolicyError(
                f"stack(): {layer!r} around a client of the policy {policy.name!r} could loosen what {policy.source} "
                f"enforces; say it in wrap(), which checks that"
            )


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


def _repr(layer: Any) -> str:
    return repr(layer) if isinstance(layer, PlacedLayer) else getattr(layer, "__qualname__", None) or repr(layer)
