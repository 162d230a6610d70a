"""Keeps every test apart from the machine it runs on: its environment, its clock and its network."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # read when litellm is imported: else it fetches prices
os.environ["HF_HUB_OFFLINE"] = "1"  # else litellm's token counters look for tokenizers on a hub

import hypothesis
import pytest

from overcoat.shared import forget

_FOREIGN = ("OTEL_", "OVERCOAT_", "OPENAI_")  # an operator's settings, and a key that a test could spend

# No deadline: a shared machine is slow now and then, and that is not a failure of the example.
# CI draws the same examples every time, so that it fails for what a change did; the search for new ones is local.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if "CI" in os.environ else "dev")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings that the person or machine running the tests has for the product."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_state() -> None:
    """Forget the breakers, limits and budgets of other tests: they are the process's."""
    forget()
