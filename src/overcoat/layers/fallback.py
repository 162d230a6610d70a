"""`Fallback`: asks another model where the first one cannot answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from overcoat.classification import Kind
from overcoat.errors import BudgetExceeded, CircuitOpen, RateLimited, Refused
from overcoat.layer import Branch, BranchingLayer, Client, Handler, Layer, Reply, Request
from overcoat.order import Place

_ENDS = (Kind.REFUSED, Kind.CANCELLED, Kind.DEADLINE_EXCEEDED)
CAUSES = (
    *(kind.value for kind in Kind if kind not in _ENDS),
    *(refusal.cause for refusal in (CircuitOpen, RateLimited, BudgetExceeded)),
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
        when: The causes: classes of failures, "breaker_open", "limit_reached" and "budget_exceeded". Not among the
            defaults are "context_too_long", for targets that take longer prompts, and "content_filtered" and
            "bad_output", for those that judge otherwise.
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
        for branch in self._branches:
            try:
                return await branch.handler(request)
            except Exception as error:
                if branch is self._branches[-1] or _cause(request, error) not in self._when:
                    raise
            request = request.replace(role="fallback")
        raise AssertionError("unreachable: the last branch returns or raises")


def _cause(request: Request, error: Exception) -> str:
    return error.cause if isinstance(error, Refused) else request.call.classify(error).kind.value
