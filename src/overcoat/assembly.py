"""Joins layers, the recorders and a client into one handler, from the inside out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from overcoat.layer import Branch, BranchingLayer, Client, Handler, Layer, Observer, PlacedLayer, Reply, Request, around
from overcoat.order import Place, place_of, position
from overcoat.recorder import Observers, record_attempts, record_calls, record_inferences

Send = Callable[[Client], Handler]


class Bound(NamedTuple):
    """A layer, and what it became when it was stacked."""

    layer: Layer | PlacedLayer
    function: Layer | None
    observer: Observer | None

    @classmethod
    def to(cls, client: Client, layer: Layer | PlacedLayer) -> Bound:
        """Bind *layer* to *client*; a function is its own layer."""
        if isinstance(layer, PlacedLayer):
            return cls(layer, layer.bind(client), layer.observer(client))
        return cls(layer, _checked(layer), None)


def _checked(layer: Layer) -> Layer:
    """Return *layer*, a user's, with the mistake named that is made most: it returns text, or forgets to return."""

    async def check(request: Request, inner: Handler) -> Reply:
        reply: Any = await layer(request, inner)
        if isinstance(reply, Reply):
            return reply
        name = getattr(layer, "__qualname__", None) or repr(layer)
        raise TypeError(
            f"the layer {name} returned {type(reply).__name__}; expected the Reply of `await inner(request)`, or one "
            f"of its own"
        )

    return check


class Assembled:
    """What is known of a stack from outside: its layers, outermost first, and the client inside them."""

    __slots__ = ("bound", "innermost")

    bound: tuple[Bound, ...]
    innermost: Client


def assemble(client: Client, bound: Sequence[Bound], send: Send) -> Handler:
    """Return the handler of a whole call: *bound*, outermost first, around *client*, which *send* turns into one."""
    # Trace's place is that of the call's record: what stands outside it is not a part of the call. Of our own layers
    # none does, in whatever order they are given: they fill that record.
    own = (index for index, each in enumerate(bound) if isinstance(each.layer, PlacedLayer))
    first = next(own, 0) if any(_begins_the_call(each.layer) for each in bound) else 0
    observer = _one([each.observer for each in bound])
    handler = _inside(client, bound[first:], observer, [each.layer for each in bound], send)
    handler = around(record_calls(observer), handler)
    for each in reversed(bound[:first]):
        if each.function is not None:
            handler = around(each.function, handler)
    return handler


def _inside(
    client: Client,
    bound: Sequence[Bound],
    observer: Observer | None,
    layers: Sequence[Layer | PlacedLayer],
    send: Send,
) -> Handler:
    """Return the handler of what a call does; *layers* are all that the stack has, for what observes other targets."""
    recorders = {
        position([each.layer for each in bound], Place.ATTEMPT): [record_attempts(observer)],
    }
    inference = position([each.layer for each in bound], Place.INFERENCE)
    recorders.setdefault(inference, []).append(record_inferences(observer, getattr(client, "model_name", None)))
    handler = send(client)
    for index in range(len(bound), -1, -1):
        if index < len(bound):
            layer, function = bound[index].layer, bound[index].function
            if isinstance(layer, BranchingLayer):
                rest = bound[index + 1 :]
                branches = [_branch(target, rest, layers, send) for target in layer.targets]
                function = layer.branch([Branch(getattr(client, "model_name", None), handler), *branches])
            if function is not None:
                handler = around(function, handler)
        for recorder in recorders.get(index, ()):
            handler = around(recorder, handler)
    return handler


def _branch(target: Client, rest: Sequence[Bound], layers: Sequence[Layer | PlacedLayer], send: Send) -> Branch:
    """Return the way to *target*: through its own layers where it is a stack, else through the *rest* of this one's."""
    if isinstance(target, Assembled):
        client = target.innermost
        # What only observes is left out, as this stack's observers see it already; Meter does more than that.
        bound = [each for each in target.bound if each.observer is None or each.function is not None]
    else:
        client = target
        bound = [Bound.to(target, each.layer) for each in rest]
    observer = _one([layer.observer(client) for layer in layers if isinstance(layer, PlacedLayer)])
    return Branch(getattr(client, "model_name", None), _inside(client, bound, observer, layers, send))


def _one(observers: Sequence[Observer | None]) -> Observer | None:
    """Return all *observers* as one; there seldom is a second, and none costs nothing."""
    present = [observer for observer in observers if observer is not None]
    return present[0] if len(present) == 1 else Observers(present) if present else None


def _begins_the_call(layer: Layer | PlacedLayer) -> bool:
    return place_of(layer) is Place.CALL or isinstance(layer, BranchingLayer)
