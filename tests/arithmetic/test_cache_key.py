"""Holds the cache key to its promise: equal requests meet, and no two that differ ever do."""

from __future__ import annotations

import enum
import math
import os
import subprocess
import sys
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overcoat import NOT_GIVEN, LLMOptions
from overcoat.arithmetic.cache_key import _encode, client_identity, key_of, parts_of, scope_of
from overcoat.options import TRANSPORT, Uncacheable, given_options

HELLO = [{"role": "user", "content": "hello"}]


class Client:
    """Named here, since the name is in the key: pytest has names of its own for modules."""

    __module__, __qualname__ = "acme.llm", "Client"

    def __init__(self, model_name="gpt-4o", base_url=None, api_version=None, api_key=None):
        self.model_name = model_name
        self.base_url = base_url
        self.api_version = api_version
        self.api_key = api_key


class OtherClient(Client):
    __module__, __qualname__ = "acme.llm", "OtherClient"


def scope(client=None):
    return scope_of(client_identity(client or Client()))


def key(conversation=HELLO, options=None, *, json_mode=False, client=None, **more):
    return key_of(scope(client), conversation, given_options(options), json_mode=json_mode, **more)


# --- Equal requests ---

_names = st.sampled_from(["a", "b", "ab", "temperature", ""])
_leaves = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, math.nan, math.inf, "", "a", "b", "ab", "1"])
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=2), max_leaves=4
)
_options = st.dictionaries(_names, _values, max_size=3)
_contents = st.sampled_from(["", "a", "b", "ab", "ba", "user"]) | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": _names}), max_size=2
)
_messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "us"]), "content": _contents})
_conversations = st.lists(_messages, max_size=3)


def shuffled(draw, value):
    """Draw *value* with the fields of all its mappings in another order."""
    if isinstance(value, dict):
        return {name: shuffled(draw, value[name]) for name in draw(st.permutations(list(value)))}
    return [shuffled(draw, each) for each in value] if isinstance(value, list) else value


@given(st.data(), _conversations, _options)
def test_the_order_of_fields_does_not_matter(data, conversation, options):
    assert key(conversation, options) == key(shuffled(data.draw, conversation), shuffled(data.draw, options))


def test_the_kind_of_options_does_not_matter():
    @dataclass
    class Options(LLMOptions):
        temperature: Any = NOT_GIVEN
        stop: Any = NOT_GIVEN
        seed: Any = NOT_GIVEN

    assert key(options=Options(temperature=0.0, stop=None)) == key(options={"temperature": 0})
    assert key(options=Options()) == key(options={"seed": None}) == key(options=None)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_numbers_are_equal_as_numbers(zero):
    assert key(options={"temperature": zero}) == key(options={"temperature": 0})
    assert key(options={"temperature": 1.0}) == key(options={"temperature": 1})


@pytest.mark.parametrize("name", sorted(TRANSPORT))
def test_how_a_request_travels_does_not_matter(name):
    assert key(options={name: 3}) == key(options={name: 7}) == key()


def test_an_endpoint_is_its_text():
    """The SDKs turn `base_url` into an object of their HTTP library's."""
    assert scope(Client(base_url=httpx.URL("https://acme.test/v1"))) == scope(Client(base_url="https://acme.test/v1"))


GOLDEN = """
class Client:
    __module__, __qualname__ = "acme.llm", "Client"
    model_name, base_url, api_version, api_key = "gpt-4o", "https://acme.test/v1", "2026-01-01", "sk-secret"

from overcoat.arithmetic.cache_key import client_identity, key_of, scope_of

full = scope_of(client_identity(Client()))
conversation = [
    {"role": "system", "content": "Be brief. \\u00e9\\u0301\\U0001f600"},
    {"content": [{"type": "text", "text": "hello"}], "role": "user"},
]
options = {"stop": ["b", "a", "c"], "temperature": 0, "top_p": 0.1, "seed": -7, "tools": [{"z": None, "a": [True]}]}
print(key_of(scope_of(client_identity(object())), [], {}, json_mode=False))
print(key_of(full, [{"role": "user", "content": "hello"}], {}, json_mode=True))
print(key_of(full, conversation, options, json_mode=False))
print(key_of(full, conversation, options, json_mode=False, namespace="acme", sample=3, parts={"b": [1], "a": None}))
"""

PINNED = """\
6fe743206a687e69d7095714cee9024c7f897d8e388ae5ac8ca6c55fd1012bbb
2a4d1742c7590a0036cd6788f68dcbf222348061126af2d87b72aff005fc801d
6d7395bcb429d7c08cec2114c4159555ba726480398712036f92fc3ec86d550d
afe89c9becc088ecb043b97ced2b48e6b7691d4bf367e1ff0417d7ddeeed1c4e
"""


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_keys_are_the_same_in_every_process_and_version(seed):
    """A shared store is of use only where all processes agree; pinned, so that releases and interpreters do as well.

    If this fails for a change of yours, then raise KEY_VERSION as well: old entries would be served for new requests.
    """
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    printed = subprocess.run(
        [sys.executable, "-c", GOLDEN], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout == PINNED


# --- Different requests ---


def model_of(value):
    """Return *value* with its types, hashable and without any encoding: what the key must tell apart."""
    if isinstance(value, dict):
        return "dict", frozenset((name, model_of(each)) for name, each in value.items())
    if isinstance(value, list):
        return "list", tuple(map(model_of, value))
    return type(value).__name__, repr(value)


def neighbours(value):
    """Yield what differs from *value* by one change: a value, a name, an element more, less or elsewhere."""
    yield from ("", "a", 0, 1, True, False, 0.5, math.nan, [], {}, [value], {"a": value})
    if isinstance(value, dict):
        for name, each in value.items():
            rest = {other: value[other] for other in value if other != name}
            yield rest
            yield {**rest, f"{name}a": each}
            yield from ({**rest, name: changed} for changed in neighbours(each))
    elif isinstance(value, list):
        yield value[::-1]
        for index, each in enumerate(value):
            yield value[:index] + value[index + 1 :]
            yield [*value[:index], each, *value[index:]]
            yield from ([*value[:index], changed, *value[index + 1 :]] for changed in neighbours(each))
    elif isinstance(value, str) and value:
        yield from (value + "a", value[:-1], value.upper(), f" {value}", f"{value}\0")


def assert_told_apart(requests):
    """Two of *requests*, each a model of one and its key, have one key if they are one request, and only then."""
    keys = dict(requests)
    assert len(set(keys.values())) == len(keys)
    assert all(keys[model] == found for model, found in requests)


@given(_conversations)
def test_any_change_of_a_conversation_gives_another_key(conversation):
    empty = scope()
    variants = [conversation, *neighbours(conversation)]
    assert_told_apart([(model_of(each), key_of(empty, each, {}, json_mode=False)) for each in variants])


@given(_options)
def test_any_change_of_the_options_gives_another_key(options):
    empty = scope()
    variants = [options, *neighbours(options)]
    assert_told_apart([(model_of(each), key_of(empty, HELLO, each, json_mode=False)) for each in variants])


@given(st.lists(st.tuples(_conversations, _options, st.booleans()), min_size=2, max_size=20))
def test_no_two_requests_run_together(requests):
    """Whatever lies where: nothing moves from a message to the next, to the options or to JSON mode unseen."""
    empty = scope()
    assert_told_apart(
        [
            (
                (model_of(conversation), model_of(options), json_mode),
                key_of(empty, conversation, options, json_mode=json_mode),
            )
            for conversation, options, json_mode in requests
        ]
    )


def said(*contents, role="user"):
    return [{"role": role, "content": content} for content in contents]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # litellm joins "name: value" without a frame, so that these two share an answer there.
        ({"options": {"user": "atemperature: 1"}}, {"options": {"user": "a", "temperature": 1}}),
        ({"options": {"json_mode": True}}, {"json_mode": True}),
        ({"options": {"stop": True}}, {"options": {"stop": 1}}),
        ({"options": {"stop": 1}}, {"options": {"stop": "1"}}),
        ({"options": {"stop": 0.5}}, {"options": {"stop": "0.5"}}),
        ({"options": {"stop": []}}, {"options": {"stop": {}}}),
        ({"options": {"stop": ""}}, {"options": {}}),
        ({"options": {"stop": False}}, {"options": {}}),
        ({"options": {"a": {"b": None}}}, {"options": {"a": {}}}),
        ({"options": {"a": [math.nan]}}, {"options": {"a": [None]}}),  # JSON has neither NaN nor inf: both are null
        ({"options": {"a": math.inf}}, {"options": {"a": -math.inf}}),
        ({"options": {"a": math.inf}}, {"options": {"a": math.nan}}),
        ({"options": {"stop": ["ab"]}}, {"options": {"stop": ["a", "b"]}}),
        ({"options": {"_x": 1}}, {"options": {"_x": 2}}),
        ({"conversation": said("ab")}, {"conversation": said("a", "b")}),
        ({"conversation": said("ab", "c")}, {"conversation": said("a", "bc")}),
        ({"conversation": said("a", "b")}, {"conversation": said("b", "a")}),
        ({"conversation": said("a")}, {"conversation": said("a", role="system")}),
        ({"conversation": said("ra", role="use")}, {"conversation": said("a", role="user")}),
        ({"conversation": said("a", "")}, {"conversation": said("a")}),
        ({"conversation": said("a ")}, {"conversation": said("a")}),
        ({"conversation": said("A")}, {"conversation": said("a")}),
        ({"conversation": said("\u00e9")}, {"conversation": said("e\u0301")}),  # one letter, two normal forms
        ({"conversation": said("a\0b")}, {"conversation": said("a")}),
        ({"conversation": [{"role": "user", "content": "a", "name": "bob"}]}, {"conversation": said("a")}),
        ({"conversation": [{"role": "user", "content": None}]}, {"conversation": said("")}),
    ],
)  # fmt: skip
def test_what_looks_alike_does_not_meet(one, other):
    assert key(**one) != key(**other)


SCOPES = {
    "default": {},
    "namespace": {"namespace": "a"},
    "other namespace": {"namespace": "b"},
    "empty namespace": {"namespace": ""},
    "class": {"client": OtherClient()},
    "model": {"client": Client("gpt-4o-mini")},
    "no model": {"client": Client(None)},
    "model None": {"client": Client("None")},
    "base_url": {"client": Client(base_url="a")},
    "empty base_url": {"client": Client(base_url="")},
    "base_url None": {"client": Client(base_url="None")},
    "api_version": {"client": Client(api_version="a")},
    "api_key": {"client": Client(api_key="a")},
    "other api_key": {"client": Client(api_key="b")},
    "empty api_key": {"client": Client(api_key="")},
    "api_key None": {"client": Client(api_key="None")},
    "api_key in bytes": {"client": Client(api_key=b"a")},
    "api_key as bytes are written": {"client": Client(api_key="b'a'")},
    "shifted": {"client": Client("gpt-4", base_url="o")},
    "shifted further": {"client": Client("gpt-4"), "namespace": "o"},
    "sample": {"sample": 1},
    "other sample": {"sample": 2},
    "sample as options": {"options": {"sample": 1}},
    "parts": {"parts": {"tools": ["a"]}},
    "other parts": {"parts": {"tools": ["b"]}},
    "empty parts": {"parts": {}},
    "parts as options": {"options": {"tools": ["a"]}},
    "parts that are a namespace": {"parts": "a"},
}


@pytest.mark.parametrize(("one", "other"), list(combinations(SCOPES, 2)))
def test_any_part_of_the_scope_keeps_apart(one, other):
    """Two tenants, endpoints or credentials never share an answer, and "not given" is like nothing that is given."""
    assert key(**SCOPES[one]) != key(**SCOPES[other])


@given(st.text(min_size=8), st.text(min_size=8))
def test_the_api_key_is_not_in_the_scope(one, other):
    """Nor is it in the key, which goes to other machines; but another one makes another scope."""
    first, second = (scope_of((object, "gpt-4o", None, None, secret)) for secret in (one, other))
    plain = scope_of((object, "gpt-4o", None, None, "another"))
    assert (one.encode() in first) == (one.encode() in plain)
    assert (first == second) == (one == other)


def test_a_key_is_64_hexadecimal_digits():
    """Any store takes it as it is, whatever was asked."""
    assert len(key()) == 64
    assert int(key(), 16)


# --- What has no key ---

_circle: list[Any] = ["secret"]
_circle.append(_circle)
_ring: dict[str, Any] = {"secret": 1}
_ring["ring"] = _ring
UNCACHEABLE = {
    "int of 65 bits": 2**64,
    "negative int of 65 bits": -(2**63) - 1,
    "lone surrogate": "secret\ud800",
    "object": object(),
    "class": Client,
    "function": lambda: "secret",
    "complex": 1j,
    "int as a key": {1: "secret"},
    "None as a key": {None: "secret"},
    "keys of several types": {"1": "secret", 1: "secret"},
    "set of several types": {"secret", 1},
    "list in itself": _circle,
    "dict in itself": _ring,
    "subclass of str": type("Text", (str,), {})("secret"),
    "subclass of float": type("Number", (float,), {})(0.5),
    "datetime": datetime(2026, 11, 23, tzinfo=UTC),
    "extension": msgspec.msgpack.Ext(1, b"secret"),
}


@pytest.mark.parametrize("value", list(UNCACHEABLE.values()), ids=list(UNCACHEABLE))
@pytest.mark.parametrize(
    ("part", "request_of"),
    [
        ("the options", lambda value: {"options": {"secret": value}}),
        ("the options", lambda value: {"options": {"a": [{"secret": value}]}}),
        ("the conversation", lambda value: {"conversation": [{"role": "user", "content": value}]}),
        ("the conversation", lambda value: {"conversation": [{"role": "user", "content": [{"secret": value}]}]}),
        ("the client's attributes", lambda value: {"client": Client(model_name=value)}),
        ("the client's attributes", lambda value: {"client": Client(api_version=value)}),
        ("the client's cache_key_parts", lambda value: {"parts": value}),
        ("the client's cache_key_parts", lambda value: {"parts": {"tools": [value]}}),
    ],
)
def test_what_cannot_be_told_apart_has_no_key(part, request_of, value):
    """It is refused, never approximated by its repr; the message says where it is, and not what."""
    with pytest.raises(Uncacheable, match="unambiguous encoding") as caught:
        key(**request_of(value))
    assert str(caught.value).startswith(f"{part} hold")
    assert "secret" not in str(caught.value)


def test_an_integral_float_of_65_bits_has_no_key():
    """It is an integer by then."""
    with pytest.raises(Uncacheable, match=r"^the options hold"):
        key(options={"x": 1e300})


class Effort(enum.StrEnum):
    LOW = "low"


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.Enum):
    JSON = "json_object"


@dataclass
class Format:
    type: str = "json_object"


class Pair(NamedTuple):
    first: int
    second: int


IMPOSTORS = [
    (Effort.LOW, "low"),
    (Level.LOW, 1),
    (Mode.JSON, "json_object"),
    (Decimal("0.5"), "0.5"),
    (UUID(int=7), str(UUID(int=7))),
    (datetime(2026, 11, 23), "2026-11-23T00:00:00"),  # noqa: DTZ001 - one with a zone is an extension, and no text
    (date(2026, 11, 23), "2026-11-23"),
    (time(12), "12:00:00"),
    (timedelta(1), "P1D"),
    (Format(), {"type": "json_object"}),
    (msgspec.defstruct("Format", [("type", str)])("json_object"), {"type": "json_object"}),
    (OrderedDict(a=1), {"a": 1}),
    (defaultdict(int, a=1), {"a": 1}),
    ({Effort.LOW: 1}, {"low": 1}),
    ({type("Text", (str,), {})("a"): 1}, {"a": 1}),
    ({"a", "b"}, ["a", "b"]),
    (frozenset({"a"}), ["a"]),
    (set(), []),
    (Pair(1, 2), [1, 2]),
    (type("List", (list,), {})([1]), [1]),
    (bytearray(b"a"), b"a"),
    (memoryview(b"a"), b"a"),
    (msgspec.Raw(b"\x01"), 1),
]
"""What msgspec encodes like something else, and like what."""

_WRAPPERS = [
    lambda value: [value],
    lambda value: ["a", value, "b"],
    lambda value: (value,),
    lambda value: {"a": value},
    lambda value: {"role": "user", "content": value},
    lambda value: {"a": "b", "c": [{"type": "text", "text": "a"}], "d": value},
]


@given(st.sampled_from(IMPOSTORS), st.lists(st.sampled_from(_WRAPPERS), max_size=5), st.integers(0, 2))
def test_nothing_passes_for_something_else(pair, wrappers, before):
    """However deep and wherever it lies: an impostor has no key, where what it is encoded like has one."""
    impostor, genuine = pair
    for wrap in wrappers:
        impostor, genuine = wrap(impostor), wrap(genuine)
    assert _encode(impostor) == _encode(genuine)
    for place in (
        lambda value: {"options": {"seed": 1, "a": value}},
        lambda value: {"conversation": [*HELLO * before, value, *HELLO]},
        lambda value: {"conversation": [*HELLO * before, {"role": "user", "content": value}]},
    ):
        assert key(**place(genuine))
        with pytest.raises(Uncacheable, match=r"^the (options|conversation) hold a value"):
            key(**place(impostor))


def test_a_tuple_is_a_list():
    """To any client that sends JSON as well."""
    assert key(options={"stop": ("a", "b")}) == key(options={"stop": ["a", "b"]})


class Secret:
    """As pydantic's `SecretStr`: its text is a mask, the same for all."""

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return "**********"


@pytest.mark.parametrize("name", ["model_name", "api_version", "api_key"])
@pytest.mark.parametrize(
    "value",
    [Secret("secret"), 5, 0.5, True, ["a"], ("a",), {"a": "b"}, bytearray(b"a"), Effort.LOW, "sk-\udc80", object()],
    ids=repr,
)
def test_a_client_is_told_from_others_by_text_or_bytes_alone(name, value):
    """A mask is the same for all, and a list may change unseen; os.environ makes surrogates of what is no UTF-8."""
    with pytest.raises(Uncacheable, match=r"^the client's attributes hold a value that has no unambiguous encoding"):
        scope(Client(**{name: value}))


# --- What a client adds ---


class Adding(Client):
    """Adds by a method, an attribute, or a property."""

    def __init__(self, parts):
        super().__init__()
        self.cache_key_parts = parts


class Failing(Client):
    @property
    def cache_key_parts(self):
        return self.no_such_attribute


class ByProperty(Client):
    cache_key_parts = property(lambda self: None)


class Passing(Client):
    """Passes on to another client what it does not have itself."""

    def __getattr__(self, name):
        return getattr(Adding({"tools": ["a"]}), name)


@pytest.mark.parametrize(
    ("client", "parts"),
    [
        (Client(), None),
        (Adding({"tools": ["a"]}), {"tools": ["a"]}),
        (Adding(lambda: ["eu-west-1"]), ["eu-west-1"]),
        (Adding(None), None),
        (ByProperty(), None),
        (Passing(), {"tools": ["a"]}),
    ],
)
def test_the_parts_of_a_client(client, parts):
    assert parts_of(client) == parts


def fail():
    raise RuntimeError("secret")


@pytest.mark.parametrize(
    ("client", "error"),
    [(Adding(fail), "RuntimeError"), (Failing(), "AttributeError"), (Adding(int.from_bytes), "TypeError")],
)
def test_parts_that_cannot_be_had_are_not_left_out(client, error):
    """Also where a property fails with an AttributeError, which `getattr` takes for "there is none"."""
    with pytest.raises(Uncacheable, match=f"cache_key_parts raised {error}") as caught:
        parts_of(client)
    assert "secret" not in str(caught.value)
