"""`wrap`: the stack that a policy file describes, around any client."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TypeVar, Unpack, cast

from overcoat.client import Stack
from overcoat.layer import Client
from overcoat.layers.cache import Cache
from overcoat.llm import LiteLLMClient
from overcoat.policy.loading import Policy
from overcoat.policy.overrides import Overrides
from overcoat.policy.watching import Following, PolicyWatch
from overcoat.record import PolicyStamp
from overcoat.stores import Store, open_store
from overcoat.stores.memory import MemoryStore

C = TypeVar("C", bound=Client)


def wrap(
    client: C,
    policy: Policy | PolicyWatch | str | os.PathLike[str] | None = None,
    *,
    client_for: Callable[[str], Client] | None = None,
    **overrides: Unpack[Overrides],
) -> C:
    """Return *client* within the layers that *policy* has for its model.

    They stand in the canonical order. `Trace` and `Meter` are always there, the others where the file says so. Where
    OVERCOAT_ENABLED is false there are none: calls go to the client, and only their record is kept.

    Args:
        client: As for `stack`; its `model_name` chooses the rule of the file's `models`.
        policy: A policy, what `Policy.watch` returns, or the path of a file; None takes the file that OVERCOAT_CONFIG
            names.
        client_for: Makes the clients of fallbacks from the models' names, by default `LiteLLMClient`; once for each.
        **overrides: What code says in place of the file, such as `deadline="10s"`, `retry={"max_attempts": 2}` or
            `hedge=None`; also what no file has, such as `validate={"check": function}`.

    Raises:
        PolicyError: The file makes no sense, or *overrides* do not, or they loosen what the file enforces.
    """
    make_client, memory = cache(client_for or LiteLLMClient), cache(_memory)

    def stacked(version: Policy, former: Stack | None) -> Stack:
        effective = version.for_model(getattr(client, "model_name", None), **overrides)
        # What is switched off has not shaped the call, and must not say that it did.
        stamp = PolicyStamp(effective.name, effective.digest) if effective.enabled else None
        layers = effective.layers(make_client)
        if not isinstance(policy, PolicyWatch):
            return Stack(client, layers, "canonical", stamp, effective)
        # Answers in memory are not for all stacks of a process, and have no name that they could be found by.
        kept = [
            replace(layer, store=memory(layer.store, layer.max_bytes))
            if isinstance(layer, Cache) and isinstance(layer.store, str) and layer.store.startswith("memory://")
            else layer
            for layer in layers
        ]
        before = former.bound[: len(former.layers)] if former is not None else ()
        return Stack(client, kept, "canonical", stamp, effective, before)

    if isinstance(policy, PolicyWatch):
        return cast("C", Following(policy, stacked))
    return cast("C", stacked(policy if isinstance(policy, Policy) else Policy.load(policy), None))


def _memory(url: str, max_bytes: int) -> Store:
    return MemoryStore(max_bytes) if url == "memory://" else open_store(url)
