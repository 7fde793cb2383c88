"""Convolutions in groups of channels, as a CPU computes them, are convolutions in groups."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.xla import convolution

GROUPS = {  # options and shape of the kernel
    "of four channels": (((1, 1), ((1, 1), (2, 0)), (1, 1), 3, None), (3, 3, 4, 9)),
    "of four channels, strides": (((2, 1), ((1, 1), (2, 0)), (1, 1), 3, None), (3, 3, 4, 9)),
    "of single channels": (((1, 1), ((1, 1), (2, 0)), (1, 1), 12, None), (3, 3, 1, 12)),
    "of single channels, wide padding": (
        ((1, 1), ((0, 3), (2, 2)), (1, 1), 12, None),
        (2, 3, 1, 12),
    ),
    "of single channels, strides": (((2, 1), ((1, 1), (1, 1)), (1, 1), 12, None), (3, 3, 1, 12)),
    "of single channels, dilated": (((1, 1), ((2, 2), (2, 2)), (2, 2), 12, None), (3, 3, 1, 12)),
    "of single channels, two out of each": (
        ((1, 1), ((1, 1), (1, 1)), (1, 1), 12, None),
        (3, 3, 1, 24),
    ),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_on_a_cpu_are_the_convolution_in_groups(name, x64):
    rng = np.random.default_rng(0)
    options, shape = GROUPS[name]
    images, kernel = rng.normal(size=(2, 6, 5, 12)), rng.normal(size=shape)
    at_once = functools.partial(convolution._at_once, options)
    found = convolution.convolve(images, kernel, *options)
    np.testing.assert_allclose(found, at_once(images, kernel), rtol=1e-12, atol=1e-14)

    def gradients(function):
        def loss(*operands):
            return jnp.sum(jnp.sin(function(*operands)))

        return jax.grad(loss, (0, 1))(images, kernel)

    found = gradients(lambda x, k: convolution.convolve(x, k, *options))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        found,
        gradients(at_once),
    )


@pytest.mark.parametrize(
    "options",
    [
        ((1, 1), ((1, 1), (1, 1)), (1, 1), 12, None),
        ((2, 1), ((1, 1), (2, 0)), (1, 2), 3, jnp.float64),
    ],
)
def test_taps_are_the_gradient_of_a_convolution_in_groups(options, x64):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, 7, 6, 12)), rng.normal(size=(3, 3, 12 // options[3], 12))
    y, of = jax.vjp(lambda k: convolution._at_once(options, images, k), kernel)
    gradient = rng.normal(size=y.shape)
    found = convolution._by_tap(options, images, kernel, gradient)
    np.testing.assert_allclose(found, of(gradient)[0], rtol=1e-10, atol=1e-10)
