"""What a client says by `report` on db-ally's event reaches the record, the spans and the cache."""

from __future__ import annotations

import inspect

from overcoat import Cache, Trace, capture
from overcoat.event import DETAIL_FIELDS
from overcoat.testing import run


def test_what_is_reported_is_on_the_record(od, library, telemetry):
    class Reporting(library.Model):
        async def call(self, conversation, options, event, json_mode=False):
            answer = await super().call(conversation, options, event, json_mode)
            od.report(
                event, finish_reason="length", response_id="r1", response_model="gpt-4o-mini-2024", cached_tokens=40
            )
            od.report(event, reasoning_tokens=3, cache_creation_tokens=0, finish_reason=None)
            return answer

    layers = (Trace(tracer_provider=telemetry.tracer_provider), Cache())
    llm = library.Asked(Reporting(), *layers)
    with capture() as calls:
        run(library.collection(llm, library.Loans).ask(library.LOANED))
    (attempt,) = calls[0].attempts
    assert (attempt.finish_reason, attempt.response_id, attempt.response_model) == ("length", "r1", "gpt-4o-mini-2024")
    assert (attempt.usage.cache_read_input_tokens, attempt.usage.reasoning_output_tokens) == (40, 3)
    assert attempt.usage.cache_creation_input_tokens == 0
    assert (calls[0].cache.result, calls[0].cache.reason) == ("refused", "truncated")
    (chat,) = telemetry.named("chat")
    assert chat.attributes["gen_ai.response.finish_reasons"] == ("length",)


def test_all_can_be_reported_that_the_record_has_a_place_for(od):
    assert set(inspect.signature(od.report).parameters) == {"event", *DETAIL_FIELDS}
