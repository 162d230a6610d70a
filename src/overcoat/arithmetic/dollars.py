"""Exact sums of money, whatever decimal context the application has set."""

from __future__ import annotations

from decimal import Context

EXACT = Context(prec=100, traps=[])
"""More digits than any rate has. The caller's own context would round, or raise, as the application chose."""
