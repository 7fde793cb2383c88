import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.layers.pooling import max_pool

SHAPES = [(2, 8, 8, 3), (1, 7, 9, 2), (3, 1, 1, 1), (1, 2, 5, 4)]


def reference(x):
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def example(shape, kind):
    x = np.random.default_rng(0).normal(size=shape)
    return jnp.asarray(x > 0.5 if kind == "spikes" else x, jnp.float32)


@pytest.mark.parametrize("kind", ["spikes", "real"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_the_library(shape, kind):
    x = example(shape, kind)
    np.testing.assert_array_equal(max_pool(x), reference(x))
    np.testing.assert_array_equal(jax.vjp(max_pool, x)[0], reference(x))


# Spikes tie all the time: the gradient must go to the first of equals.
@pytest.mark.parametrize("kind", ["spikes", "real"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_library(shape, kind):
    x = example(shape, kind)
    pooled, pull = jax.vjp(max_pool, x)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=pooled.shape), jnp.float32)
    expected = jax.vjp(reference, x)[1](weights)[0]
    np.testing.assert_allclose(pull(weights)[0], expected, rtol=1e-6)


def test_bfloat16_stays_bfloat16():
    x = example((1, 4, 4, 1), "real").astype(jnp.bfloat16)
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(x)
    assert gradient.dtype == max_pool(x).dtype == jnp.bfloat16
