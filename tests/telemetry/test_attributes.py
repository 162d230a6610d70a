"""What is read from options and endpoints, of whatever kind a client has them."""

from collections import UserDict
from dataclasses import dataclass
from typing import Any

import pytest

from overcoat import NOT_GIVEN, LiteLLMOptions
from overcoat.telemetry.attributes import Target, of_options
from overcoat.testing import ScriptedClient


@dataclass(slots=True)
class Slotted:
    temperature: float | None = None
    max_tokens: Any = NOT_GIVEN


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {}),
        (LiteLLMOptions(), {}),
        (LiteLLMOptions(temperature=1, max_tokens=5), {"temperature": 1.0, "max_tokens": 5}),
        ({"temperature": 0, "max_completion_tokens": 7, "user": "bob"}, {"temperature": 0.0, "max_tokens": 7}),
        (UserDict({"seed": 3}), {"seed": 3}),
        (Slotted(temperature=0.5), {"temperature": 0.5}),
        ({"n": 1}, {}),
        ({"n": 2}, {"choice.count": 2}),
        ({"temperature": "hot", "seed": True, "top_p": None}, {}),
        ({"stop": "END"}, {"stop_sequences": ("END",)}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ("a", "b")}),
        (object(), {}),
        (3, {}),
    ],
)
def test_options_by_the_conventions_names_and_types(options, expected):
    """Those that are not of the type are left out, as are those that the conventions have no name for."""
    found = {name.removeprefix("gen_ai.request."): value for name, value in of_options(options).items()}
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {n: type(value) for n, value in expected.items()}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, {}),
        ("", {}),
        ("unix:///run/llm.sock", {}),
        ("http://localhost/v1", {"server.address": "localhost", "server.port": 80}),
        ("https://key:secret@api.test/v1", {"server.address": "api.test", "server.port": 443}),
        ("https://api.test:8443/v1?token=secret", {"server.address": "api.test", "server.port": 8443}),
    ],
)
def test_an_endpoint_is_a_host_and_a_port_and_no_secret(url, expected):
    client = ScriptedClient("hi", model_name="openai/gpt-4o")
    client.base_url = url
    found = Target.of(client).attributes
    assert {name: value for name, value in found.items() if name.startswith("server.")} == expected
