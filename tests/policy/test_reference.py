"""The reference page and the JSON schema say what the files that are read may say."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from overcoat.layers.breaker import Breaker
from overcoat.layers.budget import Budget
from overcoat.layers.cache import Cache
from overcoat.layers.deadline import Deadline
from overcoat.layers.fallback import Fallback
from overcoat.layers.hedge import Hedge
from overcoat.layers.meter import Meter
from overcoat.layers.rate_limit import RateLimit
from overcoat.layers.retry import Backoff, OnError, Retry, RetryBudget, ServerDelay
from overcoat.layers.timeout import Timeout
from overcoat.layers.trace import Trace
from overcoat.layers.validate import Validate
from overcoat.policy import Policy
from overcoat.policy.commands import print_schema
from overcoat.policy.derivation import FOR_CODE_ONLY, duration_text, fields_of
from overcoat.policy.schema import schema

from .malformed import YAML

EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"
LAYERS = [Breaker, Budget, Cache, Deadline, Fallback, Hedge, Meter, RateLimit, Retry, Timeout, Trace, Validate]
PARTS = [Backoff, OnError, RetryBudget, ServerDelay]

VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_the_page_is_up_to_date():
    """Where it is not: `python -m overcoat.policy.reference > examples/policies/REFERENCE.md`."""
    command = [sys.executable, "-W", "error", "-m", "overcoat.policy.reference"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (EXAMPLES / "REFERENCE.md").read_text() == printed


def said(schema):
    """Return a schema without descriptions beside references, which not every version of pydantic repeats there."""
    if isinstance(schema, dict):
        return {key: said(value) for key, value in schema.items() if key != "description" or "$ref" not in schema}
    return [said(each) for each in schema] if isinstance(schema, list) else schema


def test_the_schema_beside_the_examples_is_up_to_date():
    """Where it is not: `overcoat schema > examples/policies/overcoat.schema.json`."""
    assert said(json.loads((EXAMPLES / "overcoat.schema.json").read_text())) == said(schema())


@pytest.mark.parametrize("made", [*LAYERS, *PARTS], ids=lambda made: made.__name__)
def test_every_field_of_every_layer_is_for_files_or_for_code(made):
    """None can be forgotten: a new field is in the file, or is named in FOR_CODE_ONLY."""
    names = {field.name for field in dataclasses.fields(made)}
    assert names == set(fields_of(made)) | FOR_CODE_ONLY.get(made, set())


def test_what_only_code_can_give():
    """A decision for each: what is added here cannot be had by those who have the file only."""
    assert {made.__name__: set(names) for made, names in FOR_CODE_ONLY.items()} == {
        "Breaker": {"name"},
        "RateLimit": {"name"},
        "RetryBudget": {"name"},
        "Budget": {"name", "limits", "on_alert", "prices"},
        "Cache": {"accept", "random"},
        "Fallback": {"to"},
        "Retry": {"budget", "random"},
        "Trace": {"logger_provider", "meter_provider", "redact", "tracer_provider"},
        "Validate": {"check"},
    }


def test_a_field_of_a_type_that_no_file_has_is_refused():
    @dataclasses.dataclass
    class New:
        """New.

        Attributes:
            hook: A function.
        """

        hook: object = None

    with pytest.raises(TypeError, match=r"New\.hook: a policy file has nothing for <class 'object'>; name it in"):
        fields_of(New)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_schema_takes_the_examples():
    for document in (
        yaml.safe_load((EXAMPLES / "production.yaml").read_text()),
        tomllib.loads((EXAMPLES / "production.toml").read_text()),
    ):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    "name",
    [
        "no_version", "unknown_key", "unknown_section", "duration_as_integer", "duration_with_unknown_unit",
        "attempts_as_text", "unknown_class", "unknown_backoff", "name_with_capitals", "per_what", "hedge_without_after",
        "rule_without_match", "fallback_to_nobody", "fallback_for_no_cause", "enforce_unknown_path", "enforce_unitless",
    ],
)  # fmt: skip
def test_the_schema_refuses_what_it_can(name):
    """So that an editor shows it while one types; what several values do together is for `overcoat check`."""
    assert list(VALIDATOR.iter_errors(yaml.safe_load(YAML[name][0])))


def test_every_key_is_described_in_the_schema():
    def undescribed(definition):
        return [
            key for key, value in definition.get("properties", {}).items() if not {"description", "$ref"} & set(value)
        ]

    definitions = {"": schema(), **schema()["$defs"]}
    assert {name: keys for name, made in definitions.items() if (keys := undescribed(made))} == {}


def test_defaults_in_the_schema_are_as_a_file_has_them():
    """Editors insert them."""
    for name, definition in schema()["$defs"].items():
        for key, value in definition.get("properties", {}).items():
            if "default" in value and "$ref" not in value:
                made = jsonschema.Draft202012Validator({**value, "$defs": schema()["$defs"]})
                assert made.is_valid(value["default"]), (name, key)


def test_the_command_prints_it(capsys):
    assert print_schema() == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_yaml_and_toml_say_the_same():
    """To the value, and so to the digest."""
    policies = [Policy.load(EXAMPLES / f"production.{suffix}", environment={}) for suffix in ("yaml", "toml")]
    assert policies[0].document.plain() == policies[1].document.plain()
    for model in ("openai/gpt-4o-mini", "openai/gpt-4.1", "mistral/mistral-large"):
        one, other = (policy.for_model(model) for policy in policies)
        assert one.settings == other.settings
        assert one.digest == other.digest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "500ms"), (30, "30s"), (90, "1m30s"), (3600, "1h"), (90061.001, "1d1h1m1s1ms")],
)
def test_durations_as_text(seconds, text):
    assert duration_text(seconds) == text
