"""Running statistics of BatchNorm, above all those of layers that receive nothing any more."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax import layers
from snnvit_jax.layers import normalisation
from snnvit_jax.signals import Signal

RNG = np.random.default_rng(0)
KEPT = jnp.asarray([0.5, 1.0, 3.0])


def test_the_running_variance_is_pytorchs():
    x = RNG.normal([0, -2, 50], [1, 3, 0.1], (16, 3))
    found = normalisation.running_variance(KEPT, x.mean(0), x.var(0), len(x))
    np.testing.assert_allclose(found, 0.9 * KEPT + 0.1 * x.var(0, ddof=1), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("constant", [(0, 0, 0), (0, 0.1, -7.3), (300, 1e-6, 0.7)])
def test_it_is_kept_where_nothing_varies(constant, dtype):
    x = jnp.broadcast_to(jnp.asarray(constant, dtype), (4096, 3))
    mean, variance = normalisation.batch_statistics(x, jnp.asarray([0.5, 0.0, 40.0]))
    found = normalisation.running_variance(KEPT, mean, variance, len(x))
    np.testing.assert_array_equal(found, KEPT)


@pytest.mark.parametrize("constant", [0.0, 0.3])
@pytest.mark.parametrize("spread", [0.1, 5.0])
def test_it_is_kept_where_the_running_mean_of_a_narrow_type_lags_behind(constant, spread):
    """The mean and the square about another number than the constant cancel but for rounding."""
    variables = {
        "params": {"scale": jnp.ones(64), "bias": jnp.zeros(64)},
        "batch_stats": {"mean": jnp.float32(RNG.normal(0, spread, 64)), "var": jnp.full(64, 2.0)},
    }
    x = Signal.of(jnp.full((16, 4, 49, 64), constant, jnp.bfloat16))
    update = jax.jit(
        lambda variables: layers.BatchNorm().apply(variables, x, True, mutable=["batch_stats"])[1]
    )
    for _ in range(5):
        variables |= update(variables)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.full(64, 2.0))


def test_one_channel_that_varies_is_enough():
    """As in PyTorch the others go to zero: the layer does receive something."""
    mean, variance = jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([0.0, 0.0, 0.01])
    found = normalisation.running_variance(KEPT, mean, variance, 10)
    np.testing.assert_allclose(found, 0.9 * KEPT + 0.1 * variance / 0.9, rtol=1e-6)


def test_a_value_that_is_no_number_shows():
    for mean, variance in ((jnp.nan, jnp.nan), (0.0, jnp.nan), (jnp.inf, jnp.nan)):
        found = normalisation.running_variance(jnp.ones(1), mean + jnp.zeros(1), variance, 10)
        assert not np.isfinite(found).any()


class Branch(nn.Module):
    """Three linear maps with normalisations and nothing between them, as a RepConv has."""

    @nn.compact
    def __call__(self, x, train):
        x = Signal.of(x)
        for i in range(3):
            x = layers.Linear(8, use_bias=False, name=f"linear{i}")(x)
            x = layers.BatchNorm(name=f"bn{i}")(x, train)
        return x.values


def test_a_branch_that_falls_silent_computes_in_inference_what_it_did_in_training():
    """Its weights and biases still change; nothing may multiply how far the means lag behind."""
    branch, spikes = Branch(), RNG.integers(0, 2, (8, 2, 6)).astype(np.float32)
    variables = branch.init(jax.random.key(0), spikes, False)

    @jax.jit
    def train(variables, x, key):
        y, new = branch.apply(variables, x, True, mutable=["batch_stats"])
        leaves, structure = jax.tree.flatten(variables["params"])
        keys = jax.random.split(key, len(leaves))
        pairs = zip(keys, leaves, strict=True)
        moved = [p + 0.003 * jax.random.normal(k, p.shape) for k, p in pairs]
        return y, {"params": jax.tree.unflatten(structure, moved), **new}

    for step in range(150):
        x = spikes if step < 20 else np.zeros_like(spikes)
        y, variables = train(variables, x, jax.random.key(step))
    np.testing.assert_allclose(branch.apply(variables, x, False), y, atol=0.1)
