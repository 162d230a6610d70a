"""`Fallback`: asks another model where the first one cannot answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from overcoat.classification import Kind
from overcoat.errors import BudgetExceeded, BudgetUnchecked, CircuitOpen, RateLimited, Refused, UnknownPrice
from overcoat.layer import Branch, BranchingLayer, Client, Handler, Layer, Reply, Request
from overcoat.order import Place

_ENDS = (Kind.REFUSED, Kind.CANCELLED, Kind.DEADLINE_EXCEEDED)
CAUSES = (
    *(kind.value for kind in Kind if kind not in _ENDS),
    *(refusal.cause for refusal in (CircuitOpen, RateLimited, BudgetExceeded, BudgetUnchecked, UnknownPrice)),
)
"""What a fallback can be for: the classes of failures, and refusals of our own."""

_DEFAULT = ("breaker_open", "overloaded", "server_error", "timeout", "connection", "quota_exhausted", "auth")


@dataclass(frozen=True, repr=False)
class Fallback(BranchingLayer):
    """Ask the clients in *to*, in their order, when the one before failed for one of the causes in *when*.

    A target that is a stack is called through its own layers. Any other is called through those that lie inside this
    one, with breakers, limits and prices of its own. The caller gets the last error, its type unchanged.

    Attributes:
        to: Clients, such as `LiteLLMClient("anthropic/claude-sonnet-4-5")`.
        when: The causes: classes of failures, and refusals of our own: "breaker_open", "limit_reached",
            "budget_exceeded", "budget_unchecked" and "unknown_price". Not among the defaults are "context_too_long",
            for which targets are passed over that are known to take no longer prompts, and "content_filtered" and
            "bad_output", for targets that judge otherwise.
    """

    place: ClassVar[Place] = Place.FALLBACK
    because: ClassVar[str] = "each target needs retries, a breaker and a budget of its own"
    twice: ClassVar[str] = "its targets would be tried again for each target of the other"

    to: Sequence[Client] = field(hash=False)
    when: tuple[str, ...] = _DEFAULT

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        if not self.to:
            raise ValueError("Fallback(to=[]): expected at least one client")
        for index, target in enumerate(self.to):
            if not callable(getattr(target, "call", None)):
                raise TypeError(f"Fallback(to=...): target {index} is {target!r}, which has no method `call`")
        for cause in self.when:
            if cause not in CAUSES:
                raise ValueError(f"Fallback(when=...): {cause!r} is no cause; expected one of {', '.join(CAUSES)}")

    @property
    def targets(self) -> Sequence[Client]:
        """The clients beside the stack's own."""
        return self.to

    def branch(self, branches: Sequence[Branch]) -> Layer:
        """Return the function that goes from one branch to the next."""
        return _FallingBack(frozenset(self.when), branches)


class _FallingBack:
    def __init__(self, when: frozenset[str], branches: Sequence[Branch]) -> None:
        self._when = when
        self._branches = branches

    async def __call__(self, request: Request, inner: Handler) -> Reply:  # noqa: ARG002 - the first branch is `inner`
        branch, *rest = self._branches
        while True:
            try:
                return await branch.handler(request)
            except Exception as error:
                cause = _cause(request, error)
                if cause == Kind.CONTEXT_TOO_LONG:
                    rest = [each for each in rest if takes_more(each.model, branch.model)]
                if not rest or cause not in self._when:
                    raise
            branch, *rest = rest
            request = request.replace(role="fallback")


def takes_more(model: object, than: object) -> bool:
    """Say whether *model* may take a longer prompt than another: where both windows are known, its is the larger one.

    They are known to the sources of prices (`overcoat.pricing.sources.DEFAULT`), the first of which takes half a second
    to load. Both are names of models; of anything else nothing is known.
    """
    from overcoat.pricing.sources import DEFAULT, Chain  # noqa: PLC0415 - for the rare failure that asks

    rates = [Chain(DEFAULT)(name, time.time()) if isinstance(name, str) else None for name in (model, than)]
    own, other = (None if each is None else each.context_window for each in rates)
    return own is None or other is None or own > other


def _cause(request: Request, error: Exception) -> str:
    return error.cause if isinstance(error, Refused) else request.call.classify(error).kind.value
