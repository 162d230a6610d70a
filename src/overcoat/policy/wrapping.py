"""`wrap`: the stack that a policy file describes, around any client."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar, Unpack

from overcoat.client import stack
from overcoat.layer import Client
from overcoat.policy.loading import Policy
from overcoat.policy.overrides import Overrides
from overcoat.record import PolicyStamp

C = TypeVar("C", bound=Client)


def wrap(
    client: C,
    policy: Policy | str | os.PathLike[str] | None = None,
    *,
    client_for: Callable[[str], Client] | None = None,
    **overrides: Unpack[Overrides],
) -> C:
    """Return *client* within the layers that *policy* has for its model.

    They stand in the canonical order. `Trace` and `Meter` are always there, the others where the file says so. Where
    OVERCOAT_ENABLED is false there are none: calls go to the client, and only their record is kept.

    Args:
        client: As for `stack`; its `model_name` chooses the rule of the file's `models`.
        policy: A policy, or the path of its file; None takes the file that OVERCOAT_CONFIG names.
        client_for: Makes the clients of fallbacks from the models' names, by default `LiteLLMClient`.
        **overrides: What code says in place of the file, such as `deadline="10s"`, `retry={"max_attempts": 2}` or
            `hedge=None`; also what no file has, such as `validate={"check": function}`.

    Raises:
        PolicyError: The file makes no sense, or *overrides* do not, or they loosen what the file enforces.
    """
    loaded = policy if isinstance(policy, Policy) else Policy.load(policy)
    effective = loaded.for_model(getattr(client, "model_name", None), **overrides)
    # What is switched off has not shaped the call, and must not say that it did.
    stamp = PolicyStamp(effective.name, effective.digest) if effective.enabled else None
    return stack(client, *effective.layers(client_for), policy=stamp)
