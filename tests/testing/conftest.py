"""The package's own fixtures."""

from overcoat.testing.fixtures import provider

__all__ = ["provider"]
