"""One number of each of many arrays, whatever their shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.training.leaves import per_leaf

RNG = np.random.default_rng(0)
SHAPES = [(), (3,), (5,), (3,), (1,), (0,), (3, 0), (2, 3), (4, 5, 3), (1, 1), (7, 5), ()]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_sums_and_alls_are_those_of_each_leaf_in_order(jit, together):
    leaves = [RNG.normal(size=shape).astype(np.float32) for shape in SHAPES]

    def sums(leaves):
        return per_leaf(jnp.square, jnp.sum, leaves, together)

    def positive(leaves):
        return per_leaf(lambda x: x > -1, jnp.all, leaves, together)

    run = jax.jit if jit else lambda function: function
    leaves = list(map(jnp.asarray, leaves))
    np.testing.assert_allclose(run(sums)(leaves), [jnp.sum(x**2) for x in leaves], rtol=1e-6)
    assert list(map(bool, run(positive)(leaves))) == [bool((x > -1).all()) for x in leaves]


def test_of_nothing_there_is_nothing():
    assert per_leaf(jnp.square, jnp.sum, [], True) == []


def test_one_bad_number_is_found_wherever_it_is():
    for i in (1, 7, 8):
        leaves = [np.zeros(shape, np.float32) for shape in SHAPES]
        leaves[i].flat[-1] = np.nan
        finite = per_leaf(jnp.isfinite, jnp.all, list(map(jnp.asarray, leaves)), True)
        assert [bool(one) for one in finite] == [j != i for j in range(len(SHAPES))]
