"""From what a client says that a request used to counts that can be invoiced, or a word for what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from overcoat.accounting import Usage

Anomaly = Literal["not_a_number", "negative", "absurd", "total_mismatch", "part_exceeds_whole"]
"""What can be wrong with counts: of no use as numbers, a total that is no sum, more cached tokens than there are."""

ANOMALIES: tuple[Anomaly, ...] = get_args(Anomaly)

MOST_TOKENS = 1_000_000_000
"""Of one request: a hundred times the longest context there is. What is more is a mistake, of about $1000 and up."""

COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_creation_tokens",
    "reasoning_tokens",
    "cache_creation_1h_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)
"""What clients call them on their events, in the order of the fields of `Usage`."""


class Reported(NamedTuple):
    """What was said.

    Attributes:
        usage: The counts, the wrong ones None; None where nothing is known.
        anomaly: What was wrong first; None where nothing was.
        corrected: By the client's names, the counts that make sense and had to be added to.
    """

    usage: Usage | None
    anomaly: Anomaly | None = None
    corrected: Mapping[str, int] = MappingProxyType({})


_NOTHING = Reported(None)


def read_usage(said: Mapping[str, Any], *, thoughts_apart: bool = False) -> Reported:
    """Return the counts in *said*, so that the prompt includes what is cached of it, and the answer what it reasoned.

    OpenAI counts so. Others count some parts beside the whole: xAI and Gemini reasoning, Anthropic what is cached. The
    total tells, since it then is the sum with those parts. Gemini may also count thoughts in the total alone.

    Args:
        said: What the client set on its event, by the names in `COUNTS`.
        thoughts_apart: Whether the model is one of Gemini's: whatever the total has beyond the prompt is billed as
            output (https://ai.google.dev/gemini-api/docs/thinking#pricing).
    """
    get = said.get
    counts = [get(name) for name in COUNTS]
    if counts[0] is None and counts[1] is None and counts[2] is None:
        return _NOTHING
    anomaly: Anomaly | None = None
    for index, count in enumerate(counts):
        if count is not None and (type(count) is not int or not 0 <= count <= MOST_TOKENS):
            anomaly = anomaly or _wrong(count)
            counts[index] = None
    prompt, completion, total, read, created, reasoning, longer, audio_in, audio_out = counts
    if prompt is None and completion is None and total is None:
        return Reported(None, anomaly)
    corrected: Mapping[str, int] = _NOTHING.corrected
    if prompt is not None and completion is not None and total is not None and total != prompt + completion:
        beside = total - prompt - completion
        cached = (read or 0) + (created or 0)
        extra = _extra(beside, cached, reasoning or 0, thoughts_apart=thoughts_apart)
        if extra is None:
            anomaly, total = anomaly or "total_mismatch", None
        else:
            prompt, completion = prompt + extra[0], completion + extra[1]
            corrected = {"prompt_tokens": prompt, "completion_tokens": completion}
    if prompt is not None and ((read or 0) + (created or 0) > prompt or (audio_in or 0) > prompt):
        anomaly, read, created, longer, audio_in = anomaly or "part_exceeds_whole", None, None, None, None
    if longer is not None and longer > (created or 0):
        anomaly, longer = anomaly or "part_exceeds_whole", None
    if completion is not None and ((reasoning or 0) > completion or (audio_out or 0) > completion):
        anomaly, reasoning, audio_out = anomaly or "part_exceeds_whole", None, None
    usage = Usage(prompt, completion, total, read, created, reasoning, longer, audio_in, audio_out)
    return Reported(usage, anomaly, corrected)


def _extra(beside: int, cached: int, reasoning: int, *, thoughts_apart: bool) -> tuple[int, int] | None:
    """Return what the prompt and the answer lack, where that explains what the total has *beside* them; else None."""
    if beside < 0:
        return None
    for extra in ((0, reasoning), (cached, 0), (cached, reasoning)):
        if sum(extra) == beside:
            return extra
    return (0, beside) if thoughts_apart else None


def _wrong(count: object) -> Anomaly:
    if isinstance(count, bool) or not isinstance(count, int):
        return "not_a_number"
    return "negative" if count < 0 else "absurd"
