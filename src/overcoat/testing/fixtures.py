"""The pytest fixtures, for `pytest_plugins = ["overcoat.testing.fixtures"]` in the top `conftest.py`."""

from collections.abc import Iterator

import pytest

from .provider import Provider

__all__ = ["provider"]


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A running `Provider`, of this test alone."""
    with Provider() as running:
        yield running
