"""What a layer is: a function around a call, from a request to a reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, cast, runtime_checkable

from overcoat.order import Place
from overcoat.record import Attempt, Call, Inference, Role


@runtime_checkable
class Client(Protocol):
    """db-ally's `LLMClient`, structurally: its arguments are Any because each client narrows them in its own way."""

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str | None:
        """Return the model's answer to *conversation*; None where it was filtered, as db-ally's own client does."""
        ...


class Request(NamedTuple):
    """What a layer gets: the arguments of `call`, and the records that are being filled.

    Attributes:
        conversation: List of `{"role": ..., "content": ...}`.
        options: The client's options, such as db-ally's `LLMOptions`.
        event: The caller's event. Each attempt writes to a copy of it; only the winner's fields reach the original.
        json_mode: Whether the answer must be JSON.
        call: The record of this call.
        inference: The record of the inference that this request is part of, inside that place.
        attempt: The record of the attempt that this request is, inside that place.
        deadline: When the caller stops waiting, in seconds on the event loop's clock; None where it waits for ever.
        role: Why there is this inference: the first is "primary", others are a "reask", a "fallback" or a "hedge".
    """

    conversation: Any
    options: Any
    event: Any
    json_mode: bool
    call: Call
    inference: Inference | None = None
    attempt: Attempt | None = None
    deadline: float | None = None
    role: Role = "primary"

    def replace(self, **changes: Any) -> Request:
        """Return a copy with *changes*, for a layer that sends something else than it got."""
        return self._replace(**changes)

    def within(self, call: Call, inference: Inference | None = None, attempt: Attempt | None = None) -> Request:
        """Return a copy that fills these records; `replace` takes four times as long, and every call needs several."""
        conversation, options, event, json_mode, _, _, _, deadline, role = self
        return Request(conversation, options, event, json_mode, call, inference, attempt, deadline, role)

    def by(self, deadline: float) -> Request:
        """Return a copy with that *deadline*."""
        return Request(*self[:7], deadline, self.role)


class Reply(NamedTuple):
    """What a layer returns.

    Attributes:
        text: The answer. Some clients return None, for an answer that was filtered; it is passed on as it is.
        fields: What the client wrote to its copy of the event, by attribute name.
        attempt: The record of the attempt that gave this answer; None where none was made.
    """

    text: str | None
    fields: Mapping[str, Any] = MappingProxyType({})
    attempt: Attempt | None = None

    def replace(self, **changes: Any) -> Reply:
        """Return a copy with *changes*, for a layer that answers something else than it got."""
        return self._replace(**changes)


Handler = Callable[[Request], Awaitable[Reply]]
Level = Literal["call", "inference", "attempt"]


class Layer(Protocol):
    """A function around a call; any `async def` of this shape is one."""

    def __call__(self, request: Request, inner: Handler, /) -> Awaitable[Reply]:
        """Answer *request*, as a rule by awaiting `inner(request)`."""
        ...


class Observer(Protocol):
    """What a projection of the record must provide: spans, metrics and log lines are made by observers.

    *level* says which record begins or is complete: `request.call`, `request.inference` or `request.attempt`.
    """

    def started(self, level: Level, request: Request) -> Any:
        """Note that it begins, in the context of what follows, which this may change; `ended` gets what is returned."""
        ...

    def ended(self, level: Level, request: Request, reply: Reply | None, begun: Any) -> None:
        """Note that it is over; *reply* is None where it ended with an error, which then is `sys.exception()`."""
        ...


class PlacedLayer:
    """A layer of overcoat's own: settings, which know their place and what they become when they are stacked."""

    place: ClassVar[Place]
    because: ClassVar[str]
    """Why it stands outside what follows it in the order, as the end of "... belongs outside it: "."""
    twice: ClassVar[str]
    """Why it must not stand twice in one stack."""

    def bind(self, client: Client) -> Layer | None:
        """Return the function around calls to *client*, with state of its own; None where there is only an observer."""
        raise NotImplementedError

    def observer(self, client: Client) -> Observer | None:  # noqa: ARG002 - overridden by layers that observe
        """Return what follows the record of calls to *client*."""
        return None

    def __repr__(self) -> str:
        """Read like the code that made it: only what differs from the defaults."""
        given = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(cast("Any", self))
            if each.repr and getattr(self, each.name) != _default(each)
        ]
        return f"{type(self).__name__}({', '.join(given)})"


def around(layer: Layer, inner: Handler) -> Handler:
    """Return *inner* with *layer* around it."""
    return lambda request: layer(request, inner)  # an `async def` would add a frame for each layer to every traceback


class Branch(NamedTuple):
    """One of the ways that a request can go: to the model of that name, through all that lies inside."""

    model: str | None
    handler: Handler


class BranchingLayer(PlacedLayer):
    """A layer that can send a request to other clients as well, each through layers of its own."""

    @property
    def targets(self) -> Sequence[Client]:
        """The clients beside the stack's own."""
        raise NotImplementedError

    def bind(self, client: Client) -> None:
        """Return nothing yet: its function is made by `branch`, when what lies inside is known."""

    def branch(self, branches: Sequence[Branch]) -> Layer:
        """Return the function over *branches*: the stack's own client first, then the targets in their order."""
        raise NotImplementedError


def _default(setting: Field[Any]) -> Any:
    return setting.default_factory() if callable(setting.default_factory) else setting.default
