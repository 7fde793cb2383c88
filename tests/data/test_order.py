import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnvit_jax.data.order import TrainingOrder, epoch_order, permutation


@st.composite
def orders(draw):
    """(seed, number of examples, repeats), with more places in an epoch than a pair takes."""
    repeats = draw(st.integers(1, 4))
    size = draw(st.integers(2 * repeats + 1, 40))
    return draw(st.integers(0, 2**32 - 1)), size, repeats


@given(orders())
def test_no_example_comes_next_to_itself_nor_across_epochs(order):
    seed, size, repeats = order
    places = np.concatenate([epoch_order(seed, epoch, size, repeats) for epoch in range(6)])
    assert (places[1:] != places[:-1]).all()


@given(orders())
def test_an_epoch_takes_each_of_its_examples_as_often_as_asked(order):
    seed, size, repeats = order
    places = epoch_order(seed, 3, size, repeats)
    assert places.shape == (size,)
    counts = collections.Counter(places.tolist())
    assert set(counts) <= set(range(size))
    if repeats == 1:
        assert len(counts) == size
    whole_pairs = size // (2 * repeats)
    assert sorted(counts.values())[-2 * whole_pairs :] == [repeats] * 2 * whole_pairs
    assert max(counts.values()) == repeats


@given(orders())
def test_copies_of_an_example_are_told_apart_and_lie_close_together(order):
    seed, size, repeats = order
    training = TrainingOrder(range(size), None, seed, repeats)
    places = [training.place(position) for position in range(2 * size)]
    assert len(set(places)) == len(places)
    assert [training.index(position) for position in range(2 * size)] == [p[1] for p in places]
    found = collections.defaultdict(list)
    for position, (epoch, index, repetition) in enumerate(places):
        assert repetition == len(found[epoch, index])  # from 0: part of a seed
        found[epoch, index].append(position)
    assert all(np.ptp(positions) <= 2 * repeats for positions in found.values())


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_the_smallest_sets_have_an_order_too(size, repeats):
    for epoch in range(4):
        assert set(epoch_order(0, epoch, size, repeats)) == set(range(size))


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 4), st.integers(0, 5))
def test_an_epoch_starts_with_the_first_that_it_draws(seed, size, repeats, epoch):
    # The end of the epoch before has made room for it.
    first = permutation(seed, epoch, size)[0]
    assert epoch_order(seed, epoch, size, repeats)[0] == first
