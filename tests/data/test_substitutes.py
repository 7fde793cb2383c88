import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnvit_jax.data.decode import DamagedImage
from snnvit_jax.data.order import TrainingOrder
from snnvit_jax.data.substitutes import WithSubstitutes


class Examples:
    """Images that are their own number; some of them damaged."""

    def __init__(self, size, damaged):
        self.size, self.damaged = size, damaged
        self.read = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.damaged:
            raise DamagedImage(f"image {index} is damaged")
        return index


def augment(example, rng):
    return {"image": rng.random(), "label": example}


def make_order(size, damaged, seed=0, repeats=1):
    return WithSubstitutes(TrainingOrder(Examples(size, damaged), augment, seed, repeats))


@st.composite
def cases(draw, least=3):
    """(seed, number of examples, repeats, the damaged ones), so many of which can be read."""
    repeats = draw(st.integers(1, 3))
    size = draw(st.integers(max(least, 2 * repeats + 1), 20))
    damaged = draw(st.sets(st.integers(0, size - 1), max_size=size - least))
    return draw(st.integers(0, 1000)), size, repeats, damaged


@given(cases())
def test_places_hold_what_can_be_read_and_never_their_neighbour(case):
    seed, size, repeats, damaged = case
    order = make_order(size, damaged, seed, repeats)
    found = [order[position] for position in range(3 * size)]
    labels = np.array([example["label"] for example in found])
    assert not damaged & set(labels.tolist())
    assert (labels[1:] != labels[:-1]).all()
    assert len({example["image"] for example in found}) == 3 * size  # all augmented differently
    for position, example in enumerate(found):
        own = order.order.index(position)
        assert order.index(position) == example["label"]
        assert (own in damaged) == bool(example["damaged"])
        if own not in damaged:
            assert example == order.order[position] | {"damaged": ""}
        else:
            replaced = f"image {own} is damaged; example {example['label']} comes in its place"
            assert example["damaged"] == replaced


@pytest.mark.parametrize(
    ("damaged_places", "at", "comes"),
    [
        ({2}, 2, 5),  # half of the epoch further on
        ({4}, 4, 1),
        ({1, 4, 5}, 1, 3),  # neither the first, which comes just before, nor the third
        ({2, 3}, 3, 0),
        ({2, 5}, 2, 0),
    ],
)
def test_which_example_comes_in_place_of_a_damaged_one(damaged_places, at, comes):
    order = make_order(6, set(), seed=1).order
    damaged = {order.index(place) for place in damaged_places}
    assert make_order(6, damaged, seed=1).index(at) == order.index(comes)


@given(cases(), st.randoms())
def test_what_comes_at_a_place_does_not_depend_on_what_was_read_before(case, random):
    seed, size, repeats, damaged = case
    whole = make_order(size, damaged, seed, repeats)
    expected = [whole[position] for position in range(2 * size)]
    other, positions = make_order(size, damaged, seed, repeats), list(range(2 * size))
    random.shuffle(positions)
    for position in positions:
        assert other[position] == expected[position]


@given(cases(least=1))
def test_one_example_is_enough(case):
    seed, size, repeats, damaged = case
    order = make_order(size, damaged, seed, repeats)
    assert not damaged & {order[position]["label"] for position in range(2 * size)}


def test_without_any_the_first_damaged_image_is_named():
    with pytest.raises(DamagedImage, match="image . is damaged; in its place, none of 7 other"):
        make_order(7, set(range(7)))[5]


def test_an_image_that_can_be_read_is_read_once():
    order = make_order(9, {3})
    clean = [p for p in range(9) if order.order.index(p) != 3]
    for position in clean:
        order[position]
    assert len(order.order.examples.read) == len(clean)


def test_only_so_many_are_looked_at(monkeypatch):
    monkeypatch.setattr("snnvit_jax.data.substitutes.MOST_TRIES", 5)
    order = make_order(1000, set(range(1000)))
    with pytest.raises(DamagedImage, match="none of 5 other"):
        order[700]
    assert len(order.order.examples.read) <= 7
