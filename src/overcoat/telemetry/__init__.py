"""The record as others see it: spans, metrics, events and log lines, and what an application sets up for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from overcoat.telemetry.log_lines import JsonFormatter
from overcoat.telemetry.redaction import redact

if TYPE_CHECKING:
    from overcoat.telemetry.providers import Telemetry as Telemetry
    from overcoat.telemetry.providers import setup as setup

__all__ = ["JsonFormatter", "Telemetry", "redact", "setup"]


def __getattr__(name: str) -> Any:
    # The SDK and the exporters are loaded by applications that set telemetry up, not by every import of a layer.
    if name in __all__:
        from overcoat.telemetry import providers  # noqa: PLC0415

        return getattr(providers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
