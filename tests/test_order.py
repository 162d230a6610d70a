"""Holds the order of layers to the canonical one: every other is refused with the reason, unless one means it."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import overcoat
from overcoat import Cache, Deadline, Meter, Retry, StackOrderError, Timeout, Trace, stack
from overcoat.layer import PlacedLayer
from overcoat.order import Place, check_order, place_of, position
from overcoat.testing import ScriptedClient

OURS = [Trace(), Deadline("1m"), Cache(), Retry(), Timeout("20s"), Meter()]  # in the canonical order


async def custom(request, inner):
    return await inner(request)


def stand_in(place):
    """A layer of each place, so that the rule is held to for layers that are still to be written."""
    name = place.name.title().replace("_", "")
    texts = {"because": f"the reason of {name}", "twice": f"the harm of two {name}s"}
    return type(name, (PlacedLayer,), {"place": place, **texts})()


ALL = [stand_in(place) for place in Place]

_subsets = st.sets(st.sampled_from(range(len(ALL))), min_size=1).map(
    lambda chosen: [ALL[index] for index in sorted(chosen)]
)


@st.composite
def _mixed(draw, layers):
    """Draw *layers* with functions of the user's own anywhere among them."""
    mixed = list(draw(layers))
    for index in draw(st.lists(st.integers(0, len(mixed)), max_size=4)):
        mixed.insert(index, custom)
    return mixed


def assert_explained(error, layers):
    """Check that *error* names two of *layers* that stand the wrong way round, the inner one's reason, and a remedy."""
    pattern = (
        r"(\w+) stands inside (\w+), but belongs outside it: (.+)\. "
        r'The right order is (.+); order="as given" waives this check\.'
    )
    inner, outer, reason, right = re.fullmatch(pattern, str(error)).groups()
    named = {type(layer).__name__: layer for layer in layers}
    order = list(named)
    assert order.index(outer) < order.index(inner)
    assert named[outer].place > named[inner].place
    assert reason == named[inner].because
    assert right.split(", ") == sorted(named, key=lambda name: named[name].place)


def test_every_permutation_of_our_layers_but_one_is_refused():
    check_order(OURS)
    for layers in permutations(OURS):
        if list(layers) != OURS:
            with pytest.raises(StackOrderError) as caught:
                check_order(layers)
            assert_explained(caught.value, layers)


@given(st.permutations(ALL))
def test_every_permutation_of_all_places_but_one_is_refused(layers):
    if layers == ALL:
        check_order(layers)
    else:
        with pytest.raises(StackOrderError) as caught:
            check_order(layers)
        assert_explained(caught.value, layers)


@given(_mixed(_subsets))
def test_any_layer_may_be_left_out_and_functions_may_stand_anywhere(layers):
    check_order(layers)


@given(st.data(), _subsets)
def test_functions_hide_no_harmful_order(data, layers):
    """Two layers that stand the wrong way round do so however much of the user's own lies between them."""
    shuffled = data.draw(st.permutations(layers))
    mixed = data.draw(_mixed(st.just(shuffled)))
    if shuffled == layers:
        check_order(mixed)
    else:
        with pytest.raises(StackOrderError):
            check_order(mixed)


@pytest.mark.parametrize("layer", [*ALL, *OURS], ids=lambda layer: type(layer).__name__)
def test_a_layer_twice_is_refused(layer):
    name = type(layer).__name__
    expected = f'{name} stands twice: {layer.twice}. Keep one of the two; order="as given" waives this check.'
    with pytest.raises(StackOrderError, match=f"^{re.escape(expected)}$"):
        check_order([custom, layer, custom, layer])


def test_a_layer_twice_around_another_is_refused():
    """There the order is wrong as well, and said to be."""
    with pytest.raises(StackOrderError, match=r"^Retry stands inside Timeout, but belongs outside it"):
        check_order([Retry(), Timeout("1s"), Retry()])


def test_a_layer_and_one_derived_from_it_are_two_of_a_kind():
    """Their attempts multiply just the same."""

    class Patient(Retry):
        pass

    for layers, text in (
        ([Patient(), Retry()], "Retry stands twice, once as Patient: "),
        ([Retry(), custom, Patient()], "Patient stands twice, once as Retry: "),
        ([Patient(), Patient()], "Patient stands twice: "),
    ):
        with pytest.raises(StackOrderError, match=f"^{text}{re.escape(Retry.twice)}"):
            check_order(layers)


def test_the_stack_refuses_before_anything_is_sent():
    client = ScriptedClient("hi")
    with pytest.raises(StackOrderError, match=r"^Cache stands inside Retry.*a hit must cost no retry"):
        stack(client, Retry(), Cache())
    assert not client.calls


@pytest.mark.parametrize("layers", [[Retry(), Cache()], [Retry(), Retry()], OURS[::-1]])
def test_as_given_waives_the_check(layers):
    assert stack(ScriptedClient("hi"), *layers, order="as given").layers == tuple(layers)


def test_an_order_error_is_a_value_error():
    """For those who catch what a wrong argument raises."""
    with pytest.raises(ValueError, match="stands inside"):
        check_order([Meter(), Trace()])


@pytest.mark.parametrize("layers", [[], [custom], [custom, custom], [Meter()]])
def test_what_cannot_stand_wrong_is_let_pass(layers):
    check_order(layers)


def test_a_place_is_declared_as_one():
    """An attribute that is called `place` may mean anything."""

    class Elsewhere:
        place = 3

    assert place_of(Elsewhere()) is place_of(custom) is None
    assert place_of(Cache()) is Place.CACHE


EXPORTED = [
    each
    for each in (getattr(overcoat, name) for name in overcoat.__all__)
    if isinstance(each, type) and issubclass(each, PlacedLayer)
]


def test_no_two_kinds_of_layers_share_a_place():
    places = [kind.place for kind in EXPORTED]
    assert {layer.place for layer in OURS} <= set(places)
    assert sorted(places) == sorted(set(places))


@pytest.mark.parametrize("kind", EXPORTED)
def test_reasons_end_a_sentence(kind):
    """They are put after a colon and before a full stop."""
    for text in (kind.because, kind.twice):
        assert text[0].islower()
        assert text[-1].isalpha()


class TestPosition:
    """Where the layers that keep the record go."""

    @pytest.mark.parametrize(
        ("layers", "place", "index"),
        [
            ([], Place.ATTEMPT, 0),
            ([Cache(), Retry(), Timeout("1s")], Place.INFERENCE, 1),
            ([Cache(), Retry(), Timeout("1s")], Place.ATTEMPT, 2),
            ([Cache(), custom, Retry(), custom, Timeout("1s")], Place.INFERENCE, 2),
            ([Cache(), custom, Retry(), custom, Timeout("1s")], Place.ATTEMPT, 4),
            ([Cache(), custom], Place.ATTEMPT, 2),
            ([custom], Place.INFERENCE, 1),
            ([Retry(), custom], Place.INFERENCE, 0),
            ([Meter(), Retry()], Place.INFERENCE, 0),
        ],
    )
    def test_examples(self, layers, place, index):
        assert position(layers, place) == index

    @given(_mixed(_subsets), st.sampled_from(Place))
    def test_everything_that_belongs_inside_is_inside(self, layers, place):
        """And what belongs outside is outside; of the user's own, what stands directly before is outside."""
        index = position(layers, place)
        outside, inside = layers[:index], layers[index:]
        assert all(layer.place <= place for layer in outside if layer is not custom)
        assert all(layer.place > place for layer in inside if layer is not custom)
        assert not inside or inside[0] is not custom
