"""A convolution is one thing in training, evaluation and deployment."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax import layers
from snnvit_jax.layers.linear import pair
from snnvit_jax.signals import Signal

OPTIONS = {
    "strides": {"strides": (2, 1)},
    "padding": {"padding": (2, 0)},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2},
    "all": {"strides": 2, "padding": (1, 2), "dilation": (1, 2), "groups": 4},
}
CURRENT = jax.random.normal(jax.random.key(0), (2, 3, 7, 6, 4))


def fire(current):
    return (current > 0.5).astype(current.dtype)


def of_flax(options):
    """The same convolution from Flax."""
    rows, columns = pair(options.get("padding", 1))
    return nn.Conv(
        8,
        (3, 3),
        strides=options.get("strides", 1),
        padding=((rows, rows), (columns, columns)),
        kernel_dilation=options.get("dilation", 1),
        feature_group_count=options.get("groups", 1),
        use_bias=False,
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_convolution_is_the_same_in_training_and_evaluation(name):
    convolution, plain = layers.Conv(8, **OPTIONS[name]), of_flax(OPTIONS[name])
    shape = (3, 3, 4 // OPTIONS[name].get("groups", 1), 8)
    kernel = jax.random.normal(jax.random.key(1), shape)

    def trained(kernel):  # spikes that are not computed yet, as in a forward pass of training
        waiting = Signal.of(CURRENT).then(fire)
        y = convolution.apply({"params": {"kernel": kernel}}, waiting).values
        return jnp.sum(y**2), y

    def expected(kernel):
        y = plain.apply({"params": {"kernel": kernel}}, fire(CURRENT))
        return jnp.sum(y**2), y

    (_, y), gradient = jax.value_and_grad(trained, has_aux=True)(kernel)
    (_, wanted), slope = jax.value_and_grad(expected, has_aux=True)(kernel)
    assert y.any()
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-3)
    there = convolution.apply({"params": {"kernel": kernel}}, Signal.of(fire(CURRENT))).values
    np.testing.assert_allclose(there, wanted, rtol=1e-5, atol=1e-5)
