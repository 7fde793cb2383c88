"""Two linear maps written as one give what they give one after the other."""

import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.deployment import merging
from snnvit_jax.layers import Convolution, MatrixProduct
from snnvit_jax.signals import Tracer

RNG = np.random.default_rng(0)
NONE = ((0, 0), (0, 0))
POINT = Convolution(padding=NONE)


def kernel(*shape):
    return RNG.normal(size=shape)


# name -> (first, its kernel, pixels of zeros between, second, its kernel)
PAIRS = {
    "products": (MatrixProduct(), kernel(4, 6), 0, MatrixProduct(), kernel(6, 3)),
    "products, padded": (MatrixProduct(), kernel(4, 6), 1, MatrixProduct(), kernel(6, 3)),
    "product, depthwise": (
        *(MatrixProduct(), kernel(4, 6), 1),
        *(Convolution(padding=NONE, groups=6), kernel(3, 3, 1, 6)),
    ),
    "product, grouped and strided": (
        *(MatrixProduct(), kernel(4, 6), 0),
        *(Convolution((2, 1), ((1, 0), (2, 1)), groups=3), kernel(3, 2, 2, 9)),
    ),
    "product, dilated": (
        *(MatrixProduct(), kernel(4, 6), 0),
        *(Convolution(dilation=(1, 2)), kernel(3, 3, 6, 2)),
    ),
    "point, product": (POINT, kernel(1, 1, 4, 6), 0, MatrixProduct(), kernel(6, 2)),
    "depthwise, product": (
        *(Convolution(padding=((3, 3), (3, 3)), groups=4), kernel(7, 7, 1, 4), 0),
        *(MatrixProduct(), kernel(4, 5)),
    ),
    "strided and grouped, point": (
        *(Convolution((2, 2), groups=2), kernel(3, 3, 2, 6), 0),
        *(POINT, kernel(1, 1, 6, 5)),
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_one_map_is_two_in_turn(pair, x64):
    function, first, pad, then, second = pair
    images = jnp.asarray(RNG.normal(size=(2, 8, 7, 4)))
    between = jnp.pad(function(images, first), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = then(between, second)
    whole, weights = merging.compose((function, first), pad, (then, second))
    np.testing.assert_allclose(whole(images, jnp.asarray(weights)), expected, 1e-9, 1e-9)


NO_PAIRS = {
    "two windows": (Convolution(), kernel(3, 3, 4, 4), 0, Convolution(), kernel(3, 3, 4, 4)),
    "a window, padded": (Convolution(), kernel(3, 3, 4, 4), 1, MatrixProduct(), kernel(4, 4)),
    "a point that strides": (
        *(Convolution((2, 2), NONE), kernel(1, 1, 4, 4), 0),
        *(Convolution(), kernel(3, 3, 4, 4)),
    ),
    "a point of padded images": (
        *(Convolution(), kernel(1, 1, 4, 4), 0),
        *(Convolution(), kernel(3, 3, 4, 4)),
    ),
}


@pytest.mark.parametrize("pair", NO_PAIRS.values(), ids=NO_PAIRS)
def test_other_pairs_stay_two(pair):
    function, first, pad, then, second = pair
    assert merging.compose((function, first), pad, (then, second)) is None


def chain_and_product():
    """The trace of two maps with a normalisation between them, and of their product by itself."""
    tracer = Tracer()
    image = tracer.add("image", (), (), (8, 7, 4), {})
    details = {"function": MatrixProduct()}
    first = tracer.add("linear", ("first",), (image,), (8, 7, 6), details)
    norm = tracer.add("norm", ("norm",), (first,), (10, 9, 6), {"pad": 1})
    details = {"function": Convolution(padding=NONE, groups=6)}
    second = tracer.add("linear", ("second",), (norm,), (8, 7, 6), details)
    tracer.add("product", ("gate",), (second, second), (8, 7, 6), {})
    return tracer


def test_a_chain_becomes_its_first_map(x64):
    kernels = {"first": kernel(4, 6), "second": kernel(3, 3, 1, 6)}
    merged = merging.merge_chains(chain_and_product(), kernels, {"norm"})
    assert merged.away == {"norm", "second"}
    assert list(merged.kernels) == list(merged.functions) == ["first"]
    images = jnp.asarray(RNG.normal(size=(2, 8, 7, 4)))
    between = jnp.pad(images @ kernels["first"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = Convolution(padding=NONE, groups=6)(between, kernels["second"])
    whole, shape = merged.functions["first"]
    assert merged.kernels["first"].shape == shape
    found = whole(images, jnp.asarray(merged.kernels["first"]))
    np.testing.assert_allclose(found, expected, 1e-9, 1e-9)


def test_maps_with_something_else_between_stay_two():
    kernels = {"first": kernel(4, 6), "second": kernel(3, 3, 1, 6)}
    merged = merging.merge_chains(chain_and_product(), kernels, set())
    assert (merged.functions, merged.away) == ({}, frozenset())
    assert merged.kernels == kernels
