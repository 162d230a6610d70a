"""Finds the real parts that tests need: a part that is missing skips them, or fails them where all have to run."""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("REAL_PARTS") == "required"
"""Whether every part is to be there, as in CI."""


def need(module: str) -> ModuleType:
    """Import a module, or do without the test."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if module.partition(".")[0] == "dbally" and sys.version_info >= (3, 12):
            pytest.skip(f"db-ally does not install on Python 3.12 and later: {error}")
        return missing(f"{module} is not installed: {error}")


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where every part is required."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)
