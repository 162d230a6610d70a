"""Other instrumentations that lie inside a client: kept from counting an inference again, and asked what they know."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context, get_value, set_value

# opentelemetry-util-genai, and so OpenTelemetry's own instrumentations: who finds this value in the context makes no
# span and no metric, and writes there what it would have said.
_HANDOVER = "opentelemetry.genai.client.inference.context"
# The same value, where it is ours and not that of someone who stands around us.
_OURS = "overcoat.handover"
# OpenLLMetry (Traceloop), which makes none either. HTTP spans of both kinds go on: they say what nobody else does.
_SUPPRESSED = "suppress_language_model_instrumentation"

_UTIL_GENAI = "opentelemetry.util.genai.invocation"
_OPENLLMETRY = "opentelemetry.semconv_ai"

_NAMES = {
    "response_id": "response_id",
    "response_model": "response_model",
    "usage_input_tokens": "prompt_tokens",
    "usage_output_tokens": "completion_tokens",
}
"""What clients call what util-genai has by names of its own."""

_PARTS = {
    "usage_cache_read_input_tokens": ("prompt_tokens", "cached_tokens"),
    "usage_cache_write_input_tokens": ("prompt_tokens", "cache_creation_tokens"),
    "usage_reasoning_output_tokens": ("completion_tokens", "reasoning_tokens"),
}
"""The same of counts that are parts of another, beside the name of that whole."""


def quieted(current: Context) -> Context:
    """Return *current*, in which what is instrumented beneath leaves the inference to us.

    It does so where our own span is, which needs a tracer provider. OpenInference has no such switch that would leave
    HTTP alone; its tokens have names of their own, `llm.*`. The deprecated `openai-v2` has none at all, and counts on.
    """
    loaded = sys.modules
    if _UTIL_GENAI in loaded and hasattr(loaded[_UTIL_GENAI], "InferenceData"):  # it came with version 1.3
        ours = loaded[_UTIL_GENAI].InferenceData()  # a new one for each attempt: none inherits what another was told
        current = set_value(_OURS, ours, set_value(_HANDOVER, ours, current))
    if _OPENLLMETRY in loaded:
        current = set_value(_SUPPRESSED, True, current)  # noqa: FBT003 - that is its interface
    return current


def handed_over(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an instrumentation beneath knows of this attempt and the client has not *said*, by the same names.

    Parts of a count are left out where the client counts the whole in another way: they would be parts of something
    else.
    """
    if _UTIL_GENAI not in sys.modules or (data := get_value(_OURS)) is None:
        return {}
    known = {ours: getattr(data, theirs, None) for theirs, ours in _NAMES.items()}
    for theirs, (whole, part) in _PARTS.items():
        if said.get(whole) in (None, known[whole]):
            known[part] = getattr(data, theirs, None)
    if reasons := getattr(data, "response_finish_reasons", None):
        known["finish_reason"] = reasons[0]
    return {name: value for name, value in known.items() if value is not None and said.get(name) is None}
