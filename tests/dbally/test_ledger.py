"""What an ask cost is in the ledger: by the collection, by the view, by what its prompts were for, and by the ask."""

from __future__ import annotations

from overcoat import Meter, Trace
from overcoat.testing import run

from ..real.parts import need


def test_costs_by_what_they_were_for(od, library, telemetry, tmp_path):
    need("sqlalchemy")
    from overcoat.ledger import Ledger

    ledger = Ledger(f"sqlite:///{tmp_path}/costs.db")
    try:
        layers = (Trace(tracer_provider=telemetry.tracer_provider), Meter(ledger=ledger))
        collection = library.collection(library.Asked(library.Model(), *layers))
        traced = od.trace(collection, tracer_provider=telemetry.tracer_provider)
        for question in (library.POLISH, library.LOANED):
            run(traced.ask(question))
        counted = {
            name: {costs.by[f"tag.{name}"]: costs.calls for costs in ledger.costs([f"tag.{name}"])}
            for name in ("collection", "view", "template", "ask")
        }
    finally:
        ledger.close()
    assert counted["collection"] == {"library": 6}
    assert counted["view"] == {None: 2, "Books": 3, "Loans": 1}
    assert counted["template"] == {
        "view_selection": 2,
        "filters_decision": 1,
        "aggregation_decision": 1,
        "filters_generation": 1,
        "sql_generation": 1,
    }
    asks = [span.attributes for span in telemetry.named("overcoat.ask")]
    assert counted["ask"] == {ask["overcoat.ask.id"]: ask["overcoat.ask.calls"] for ask in asks}
