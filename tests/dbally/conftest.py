"""What the tests of db-ally's part share, where there is a db-ally."""

from __future__ import annotations

import pytest

from overcoat.testing import InMemoryTelemetry

from ..real.parts import need


@pytest.fixture(scope="session")
def od():
    """`overcoat.dbally`."""
    need("dbally")
    return need("overcoat.dbally")


@pytest.fixture(scope="session")
def library(od):
    """A database, views on it, and a model that answers questions about it by a script."""
    from . import library

    return library


@pytest.fixture
def telemetry():
    return InMemoryTelemetry()
