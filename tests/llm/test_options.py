"""Options: what is given, what is not, and how they are merged."""

import copy
import pickle
from dataclasses import dataclass, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat.llm import NOT_GIVEN, LiteLLMOptions, LLMOptions

SENTINEL = object()


@dataclass
class Base(LLMOptions):
    a: object = NOT_GIVEN
    b: object = NOT_GIVEN


@dataclass
class Derived(Base):
    c: object = NOT_GIVEN


@dataclass
class Sibling(LLMOptions):
    _not_given = SENTINEL

    b: object = NOT_GIVEN
    d: object = NOT_GIVEN


values = st.sampled_from([NOT_GIVEN, None, 0, 1])
options = st.one_of(
    st.builds(Base, values, values), st.builds(Derived, values, values, values), st.builds(Sibling, values, values)
)


def test_there_is_one_sentinel():
    """Also where options are copied, or sent to another process."""
    assert copy.deepcopy(NOT_GIVEN) is NOT_GIVEN
    assert pickle.loads(pickle.dumps(NOT_GIVEN)) is NOT_GIVEN  # noqa: S301 - of our own making
    assert repr(LiteLLMOptions(seed=1)).startswith("LiteLLMOptions(frequency_penalty=NOT_GIVEN, ")
    assert not NOT_GIVEN


@given(left=options, right=options)
def test_the_right_wins_where_it_is_given(left, right):
    """For every field of the result, which is of the more derived class, and of the left one where neither is."""
    merged = left | right
    assert type(merged) is (type(right) if issubclass(type(right), type(left)) else type(left))
    for field in fields(merged):
        ours, theirs = getattr(left, field.name, NOT_GIVEN), getattr(right, field.name, NOT_GIVEN)
        assert getattr(merged, field.name) is (ours if theirs is NOT_GIVEN else theirs)


@given(one=options, two=options)
def test_merging_changes_neither(one, two):
    before = copy.deepcopy((one, two))
    assert (one | two) is not one
    assert (one, two) == before


def test_options_merge_with_options_only():
    with pytest.raises(TypeError, match="unsupported operand"):
        Base() | {"a": 1}


def test_a_dict_of_options_has_the_sentinel_of_the_sdk():
    assert Sibling(None, 0).dict() == {"b": SENTINEL, "d": 0}
    assert Base(1).dict() == {"a": 1, "b": None}


def test_litellm_has_the_options_of_db_ally_and_a_timeout_and_no_retries():
    assert {field.name for field in fields(LiteLLMOptions)} == {
        "frequency_penalty",
        "max_tokens",
        "n",
        "presence_penalty",
        "seed",
        "stop",
        "temperature",
        "timeout",
        "top_p",
    }
