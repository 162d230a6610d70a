"""Several fallbacks in one layer: each cause has targets of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from overcoat.layer import Branch, BranchingLayer, Client, Layer, around
from overcoat.layers.fallback import Fallback
from overcoat.order import Place


@dataclass(frozen=True, repr=False)
class Fallbacks(BranchingLayer):
    """Try *rules* one after the other: each sees the failures that those before it leave.

    Two `Fallback`s in one stack would ask the targets of the inner one again for each target of the outer one.

    Attributes:
        rules: At least one.
    """

    place: ClassVar[Place] = Place.FALLBACK
    because: ClassVar[str] = Fallback.because
    twice: ClassVar[str] = Fallback.twice

    rules: tuple[Fallback, ...]

    @property
    def targets(self) -> Sequence[Client]:
        """The targets of all rules."""
        return [target for rule in self.rules for target in rule.to]

    def branch(self, branches: Sequence[Branch]) -> Layer:
        """Return the function that goes through the rules, the first of which stands beside the stack's own client."""
        (model, handler), *rest = branches
        for rule in self.rules:
            own, rest = rest[: len(rule.to)], rest[len(rule.to) :]
            handler = around(rule.branch([Branch(model, handler), *own]), handler)
        return lambda request, inner: handler(request)  # noqa: ARG005 - `inner` is the first branch
