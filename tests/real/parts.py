"""Finds the real parts that tests need: a part that is missing skips them, or fails them where all have to run."""

import os
import sys
from importlib import import_module
from types import ModuleType

import pytest


def need(module: str) -> ModuleType:
    """Import a module, or skip the test; with OVERCOAT_REAL=required, fail it, since then every part is to be there."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        reason = f"{module} is not installed: {missing}"
    if os.environ.get("OVERCOAT_REAL") != "required":
        pytest.skip(reason)
    if module.partition(".")[0] == "dbally" and sys.version_info >= (3, 12):
        pytest.skip(f"{reason} (db-ally does not install on Python 3.12 and later)")
    pytest.fail(reason)
