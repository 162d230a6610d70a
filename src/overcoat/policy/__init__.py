"""Policies from files: read, overlaid with the environment, enforced, and turned into the stack that they describe."""

from overcoat.policy.describing import explain
from overcoat.policy.effective import EffectivePolicy
from overcoat.policy.explaining import Explanation
from overcoat.policy.loading import Policy
from overcoat.policy.watching import PolicyWatch
from overcoat.policy.wrapping import wrap

__all__ = ["EffectivePolicy", "Explanation", "Policy", "PolicyWatch", "explain", "wrap"]
