"""`explain`: what will happen to the calls of a client that `wrap` or `stack` made."""

from __future__ import annotations

from typing import Any, cast

from overcoat.classification import Kind
from overcoat.client import Stack
from overcoat.layer import Client, PlacedLayer
from overcoat.layers.fallback import Fallback
from overcoat.order import Place, check_order
from overcoat.policy.effective import EffectivePolicy, digest_of
from overcoat.policy.explaining import Explanation
from overcoat.policy.explaining import explain as explain_policy
from overcoat.policy.overrides import NOTHING, Overrides, read_overrides
from overcoat.policy.problems import Problem, refusal
from overcoat.policy.schema import Effective
from overcoat.policy.validation import validate
from overcoat.policy.watching import Following

_KEYS = {
    Place.CALL: "trace",
    Place.DEADLINE: "deadline",
    Place.CACHE: "cache",
    Place.VALIDATE: "validate",
    Place.HEDGE: "hedge",
    Place.BUDGET: "spending",
    Place.RETRY: "retry",
    Place.BREAKER: "breaker",
    Place.RATE_LIMIT: "limit",
    Place.TIMEOUT: "attempt_timeout",
    Place.METER: "meter",
}
"""What `wrap` calls the layer of each place, as an override."""


def explain(
    client: Client,
    *,
    error: Kind | str | int | None = None,
    retry_after: float | None = None,
    host_retries: int = 0,
    input_tokens: int = 1000,
    output_tokens: int = 1000,
    now: float | None = None,
) -> Explanation:
    """Say what will happen to the calls of *client*: what holds and where it is from, the schedule, the worst case.

    Printed, the explanation is what `overcoat explain` prints. Layers that are functions are not in it: nobody can know
    what they do.

    Args:
        client: What `wrap` or `stack` returned; as its method, `client.explain(...)` is the same.
        error: A class of failures or an HTTP status, for the schedule of attempts when all of them fail like that.
        retry_after: Seconds that the server asks for in that schedule; None is a server that does not ask.
        host_retries: How often the caller's own code calls again.
        input_tokens: Of every request, for its price.
        output_tokens: Of every request, for its price.
        now: Unix seconds, for prices that change; by default those of the clock.

    Raises:
        TypeError: *client* is no stack.
        ValueError: *error* is no class of failures, a number is negative, or stacks lie around or inside what `wrap`
            made.
        StackOrderError: The layers are stacked "as given", in an order that no policy has.
    """
    stack = client.stack if isinstance(client, Following) else client
    if not isinstance(stack, Stack):
        raise TypeError(f"explain(client={client!r}): expected what wrap() or stack() returned")
    return explain_policy(
        _effective_of(stack),
        error=error,
        retry_after=retry_after,
        host_retries=host_retries,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        now=now,
    )


def _effective_of(stack: Stack) -> EffectivePolicy:
    parts = [stack]
    while isinstance(inside := parts[-1].client, Stack):
        parts.append(inside)
    made = [part.effective for part in parts if part.effective is not None]
    if not made:
        return _described(stack)
    if len(parts) > 1:
        raise ValueError(
            f"explain(client={stack!r}): what wrap() made can be explained, but no stack around or inside it"
        )
    return made[0]


def _described(stack: Stack) -> EffectivePolicy:
    """Return the policy that would make the layers of *stack*."""
    layers = [bound.layer for bound in stack.bound if isinstance(bound.layer, PlacedLayer)]
    check_order(layers)  # what is stacked "as given" may do what no policy says
    given: dict[str, Any] = {"trace": None}  # which a policy has where nothing else is said
    given |= {_KEYS[layer.place]: layer for layer in layers if layer.place in _KEYS}
    rules = [layer for layer in layers if isinstance(layer, Fallback)]
    if rules:
        given["fallbacks"] = [{"to": [_name(target) for target in rule.to], "when": rule.when} for rule in rules]
    problems: list[Problem] = []
    overrides = read_overrides(cast("Overrides", given), NOTHING.tree, problems)
    settings = validate(Effective, overrides.tree, problems, from_code=True)
    if settings is None:
        raise refusal(problems)
    inside = [layer for layer in layers if layer.place > Place.FALLBACK]
    own = {
        _name(target): [bound.layer for bound in target.bound if isinstance(bound.layer, PlacedLayer)]
        for rule in rules
        for target in rule.to
        if isinstance(target, Stack)
    }
    return EffectivePolicy(
        name="code",
        model=stack.model_name,
        rule=None,
        source="code",
        digest=digest_of(settings),
        enabled=True,
        enforces=False,
        settings=settings,
        tree=overrides.tree,
        for_code=overrides.for_code,
        inner_of=lambda name: own.get(name, inside),
    )


def _name(client: Client) -> str:
    return str(getattr(client, "model_name", None) or type(client).__name__)
