"""Holds the reading of options to "what the client would send": nothing left out, nothing added, nothing merged."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import dataclass, fields, make_dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import NOT_GIVEN, LiteLLMOptions, LLMOptions
from overcoat.options import TRANSPORT, Uncacheable, given_options, option

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text())


@dataclass
class Options(LLMOptions):
    temperature: Any = NOT_GIVEN
    stop: Any = NOT_GIVEN
    timeout: Any = NOT_GIVEN
    _private: Any = NOT_GIVEN
    shared: ClassVar[int] = 7


def test_no_options_are_none_given():
    assert given_options(None) == {}
    assert given_options(Options()) == {}
    assert given_options({}) == {}


def test_all_fields_of_a_dataclass_count():
    """Also private ones: a list of names that may count was what other caches forgot fields in."""
    assert given_options(Options(temperature=0.5, stop=["."], _private=1)) == {
        "temperature": 0.5,
        "stop": ["."],
        "_private": 1,
    }


@pytest.mark.parametrize("name", [field.name for field in fields(LiteLLMOptions) if field.name not in TRANSPORT])
def test_every_option_of_litellm_counts(name):
    assert given_options(LiteLLMOptions(**{name: "x"})) == {name: "x"}


@given(st.dictionaries(st.text(), values))
def test_a_mapping_is_read_as_it_is(options):
    """Whatever is given is there, under its name and as its value; what is not given is not."""
    read = given_options(MappingProxyType(options))
    assert read == {name: value for name, value in options.items() if value is not None and name not in TRANSPORT}
    assert not any(isinstance(value, float) and value.is_integer() for value in read.values())


@given(values, values, values)
def test_a_dataclass_and_a_mapping_say_the_same(temperature, stop, timeout):
    options = Options(temperature, stop, timeout)
    assert given_options(options) == given_options({"temperature": temperature, "stop": stop, "timeout": timeout})


def test_what_is_not_given_is_left_out():
    """None and the sentinel are the same to a client; db-ally and the openai SDK have sentinels of their own."""

    class NotGiven:
        pass

    assert given_options({"a": None, "b": NOT_GIVEN, "c": NotGiven(), "d": False, "e": 0, "f": ""}) == {
        "d": False,
        "e": 0,
        "f": "",
    }


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_integral_floats_are_integers(zero):
    assert [(type(value), value) for value in given_options({"temperature": zero}).values()] == [(int, 0)]


@pytest.mark.parametrize("value", [True, 0.5, math.inf, -math.inf, "0", "1.0"])
def test_nothing_else_becomes_a_number(value):
    (read,) = given_options({"x": value}).values()
    assert read is value


def test_nan_stays():
    (read,) = given_options({"x": math.nan}).values()
    assert math.isnan(read)


def test_how_a_request_travels_does_not_count():
    assert given_options({"timeout": 3, "seed": 1}) == {"seed": 1}


def test_the_options_are_left_as_they_are():
    options = {"temperature": 1.0, "top_p": None}
    given_options(options)
    assert options == {"temperature": 1.0, "top_p": None}
    assert type(options["temperature"]) is float


@pytest.mark.parametrize("options", [object(), 7, "secret", [("secret", 1)], {"secret"}, Options, dict])
def test_options_that_cannot_be_listed_are_uncacheable(options):
    """The message names their type, never what is in them."""
    with pytest.raises(Uncacheable, match=f"options of type {type(options).__name__} are neither") as caught:
        given_options(options)
    assert "secret" not in str(caught.value)


def test_classes_made_at_run_time_are_not_kept():
    """What is known of a class is kept for a few dozen of them, and not for each that a process ever makes."""
    made: list[weakref.ref[type]] = []
    for _ in range(200):
        kind = make_dataclass("Made", [("seed", int)])
        assert given_options(kind(7)) == {"seed": 7}
        made.append(weakref.ref(kind))
    del kind
    gc.collect()
    assert sum(each() is not None for each in made) < 100


@pytest.mark.parametrize("options", [{"max_tokens": 7}, SimpleNamespace(max_tokens=7), LiteLLMOptions(max_tokens=7)])
def test_one_option_is_read_from_whatever_holds_it(options):
    assert (option(options, "max_tokens"), option(options, "unheard_of")) == (7, None)
