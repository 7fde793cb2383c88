"""What bfloat16 would lose is kept: sums over many values, statistics, counts of spikes."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.layers import batch_statistics
from snnvit_jax.runs import config as config_lib
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps import masks
from snnvit_jax.xla.reductions import spread

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(), (5,), (4, 1, 1)])
def test_a_parameter_spread_over_values_has_the_sum_as_gradient(shape):
    parameter = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    values = jnp.zeros((4, 3, 5), jnp.bfloat16)
    weights = jnp.asarray(RNG.normal(size=values.shape), jnp.bfloat16)

    def total(parameter):
        return jnp.sum((spread(parameter, values) * weights).astype(jnp.float32))

    found = jax.grad(total)(parameter)
    axes = tuple(i for i, n in enumerate((1,) * (3 - len(shape)) + shape) if n == 1)
    expected = np.sum(np.asarray(weights, np.float64), axes).reshape(shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert spread(parameter, values).dtype == values.dtype


def test_scores_are_moved_by_the_sum_over_all_spikes_in_float32():
    spikes = jnp.ones((2, 5000), jnp.bfloat16)  # a sum in bfloat16 stops at 256

    def total(score):
        return jnp.sum(masks.mask_spikes(spikes, score).astype(jnp.float32))

    np.testing.assert_array_equal(jax.grad(total)(jnp.float32([0.5, -0.5])), [5000, 5000])


@pytest.mark.parametrize("shift", [0.0, 95.0])
def test_statistics_of_bfloat16_in_one_pass(shift):
    x = jnp.asarray(RNG.normal(100, 10, (300, 4, 3)), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    mean, variance = batch_statistics(x, jnp.full(3, shift, jnp.float32))
    np.testing.assert_allclose(mean, exact.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1)), rtol=2e-5 if shift else 2e-4)
    same = jnp.full((64, 3), 100, jnp.bfloat16)
    assert (batch_statistics(same)[1] >= 0).all()


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 4, 5, 3)])
def test_narrow_statistics_are_those_of_each_channel_whatever_the_axes(shape):
    x = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16)
    wide = np.asarray(x, np.float32).reshape(-1, 3)
    mean, variance = batch_statistics(x)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, wide.var(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_heads", [0, 4])
def test_heads_that_do_not_divide_the_channels_are_named(num_heads):
    spikes = jnp.ones((1, 1, 2, 6))
    with pytest.raises(ValueError, match=f"num_heads={num_heads} must divide the 6 channels"):
        layers.spiking_attention(spikes, spikes, spikes, num_heads)


def test_statistics_of_narrow_and_wide_values_have_the_same_gradient():
    x = jnp.asarray(RNG.normal(1, 2, (40, 3)), jnp.bfloat16)
    weights = jnp.float32(RNG.normal(size=(2, 3)))

    def total(x):
        return jnp.vdot(jnp.stack(batch_statistics(x, jnp.ones(3))), weights)

    narrow, wide = jax.grad(total)(x), jax.grad(total)(x.astype(jnp.float32))
    np.testing.assert_allclose(narrow.astype(jnp.float32), wide, rtol=1e-2)


def test_counts_beyond_256_are_exact():
    q, k, v = (jnp.ones((1, 1, 301, 2), jnp.bfloat16) for _ in range(3))
    y = layers.spiking_attention(q, k, v, num_heads=1, scale=1 / 301)
    np.testing.assert_array_equal(y.astype(jnp.float32), 2)  # 602 / 301; from 300 it would be 1.99


PLATFORMS = ("cpu", "cuda", "tpu")


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("tokens", [9, 300])
def test_products_of_spikes_are_exact_wherever_they_are_compiled_for(tokens, platform):
    """Counts up to 256 are multiplied as bfloat16, larger ones without rounding the operands."""
    shape = jax.ShapeDtypeStruct((1, 1, tokens, 8), jnp.bfloat16)
    traced = jax.jit(lambda q, k, v: layers.spiking_attention(q, k, v, 1)).trace(*[shape] * 3)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    operands = [re.search(r": \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\)", x) for x in products]
    given = {kind for match in operands for kind in match.groups()}
    assert len(products) == 2
    assert all(re.search(r"-> tensor<\S*xf32>", line) for line in products)
    exact = [line for line in products if "HIGHEST" in line]
    if platform == "cpu":
        assert given == {"f32"}
    else:
        assert given == ({"bf16"} if tokens < 256 else {"bf16", "f32"})
    # Of float32 operands, matrix units keep all bits only if they are told to.
    assert len(exact) == (tokens > 256)
    assert all("xf32>, tensor" in line for line in exact)


def test_float16_is_refused():
    with pytest.raises(ValueError, match="dtype=float16 is not supported.*use bfloat16"):
        snn.create_model("spikformer_2_384", 10, 32, 4, dtype=jnp.float16)
    with pytest.raises(ValueError, match="model.dtype='float16'"):
        config = config_lib.default_config()
        config.model.dtype = "float16"
        config_lib.validate(config)


@pytest.mark.parametrize("tokens", [3, 9])
def test_gradients_of_the_attention_are_those_of_its_definition(tokens):
    q, k, v, weights = jnp.float32(RNG.integers(0, 2, (4, 1, 2, tokens, 6)))

    def defined(q, k, v):
        q, k, v = (x.reshape(1, 2, tokens, 2, 3) for x in (q, k, v))
        y = jnp.einsum("btnhd,btmhd,btmhe->btnhe", q, k, v) / 8
        return jnp.vdot(y.reshape(weights.shape), weights)

    def ours(q, k, v):
        y = layers.spiking_attention(q, k, v, 2)
        return jnp.vdot(y.astype(jnp.float32), weights)

    expected = jax.grad(defined, (0, 1, 2))(q, k, v)
    for dtype in ("float32", "bfloat16"):  # small whole numbers: exact in both
        found = jax.grad(ours, (0, 1, 2))(*(x.astype(dtype) for x in (q, k, v)))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == dtype
            np.testing.assert_array_equal(a.astype(jnp.float32), b)


class LinearAndNorm(nn.Module):
    """A linear map with a bias, its normalisation, and the cube of the values."""

    @nn.compact
    def __call__(self, x, train):
        x = layers.Linear(3, name="linear")(Signal.of(x))
        return layers.BatchNorm(name="bn")(x, train).values ** 3


def test_a_bias_before_a_normalisation_has_no_gradient_in_training():
    x = jnp.float32(RNG.normal(size=(2, 4, 5, 3)))
    variables = LinearAndNorm().init(jax.random.key(0), x, False)

    def gradients(train):
        def total(params):
            new = variables | {"params": params}
            y, _ = LinearAndNorm().apply(new, x, train, mutable=["batch_stats"])
            return jnp.sum(y)

        return jax.grad(total)(variables["params"])

    assert not np.any(gradients(True)["linear"]["bias"])
    assert np.any(gradients(False)["linear"]["bias"])
    assert all(map(np.any, jax.tree.leaves(gradients(True)["bn"])))
