"""The call ledger: what every call used and cost, kept where invoices are made from it.

    Meter(ledger="sqlite:///costs.db")                      # on one machine
    Meter(ledger="postgresql://ledger@db.internal/costs")   # where a fleet shares it

    Ledger.read("sqlite:///costs.db").costs(by=["tag.tenant", "model"])

It has no content: no prompts, no answers, no texts of exceptions, no keys.
"""

from __future__ import annotations

try:
    import sqlalchemy as _  # noqa: F401 - what all of it needs, and an extra
except ModuleNotFoundError as _missing:
    raise ImportError("a ledger needs SQLAlchemy: pip install 'overcoat[ledger]'", name="sqlalchemy") from _missing

from overcoat.errors import LedgerError
from overcoat.ledger.costs import Costs, total
from overcoat.ledger.ledger import Ledger

__all__ = ["Costs", "Ledger", "LedgerError", "total"]
