"""Policies from files: read, overlaid with the environment, enforced, and turned into the stack that they describe."""

from overcoat.policy.effective import EffectivePolicy
from overcoat.policy.loading import Policy
from overcoat.policy.wrapping import wrap

__all__ = ["EffectivePolicy", "Policy", "wrap"]
