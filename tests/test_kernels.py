"""A layer as one kernel gives what the scan gives, forward and backward; interpreted, no GPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax import layers
from snnvit_jax.neurons import LIF, create_neuron
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps import masks
from snnvit_jax.xla import kernels

RNG = np.random.default_rng(0)
T = 4


class Layer(nn.Module):
    """A linear map, its normalisation and neurons."""

    kind: str
    static: bool = False
    train: bool = True
    pool: bool = False

    @nn.compact
    def __call__(self, x):
        x = Signal.of(x, T if self.static else None)
        x = layers.Linear(32, dtype=x.values.dtype, name="linear")(x)
        x = layers.BatchNorm(name="bn")(x, self.train)
        x = LIF(neuron=create_neuron(self.kind), name="lif")(x)
        return (x.map(layers.max_pool) if self.pool else x).values


def value_and_gradients(layer, variables, x, weights, mode):
    """Spikes, and gradients by all parameters and by x."""

    def total(params, x):
        y, _ = layer.apply(variables | {"params": params}, x, mutable=["batch_stats"])
        return jnp.vdot(y.astype(jnp.float32), weights), y

    with kernels.kernels(mode):
        run = jax.jit(jax.grad(total, (0, 1), has_aux=True))
        text = str(jax.make_jaxpr(run)(variables["params"], x))
        assert ("pallas_call" in text) == (mode == "interpret")
        gradients, y = run(variables["params"], x)
    return y, gradients


@pytest.mark.parametrize(
    ("mode", "kind", "static", "train"),
    [
        ("interpret", "lif", False, True),
        ("interpret", "plif", False, True),
        ("interpret", "if", True, False),
        ("tpu", "lif", False, True),
        ("tpu", "plif", True, True),
    ],
)
def test_other_accelerators_give_what_the_scan_gives(mode, kind, static, train):
    x = jnp.float32(RNG.normal(0, 2, (3, 1 if static else T, 3, 4, 8)))
    pool = mode == "tpu"
    weights = jnp.float32(RNG.normal(size=(3, T, 2, 2, 32) if pool else (3, T, 3, 4, 32)))
    layer = Layer(kind, static, train, pool)
    variables = layer.init(jax.random.key(0), x)
    params = variables["params"]
    params["linear"]["kernel"] *= 50
    params["bn"]["bias"] += 0.5
    params["lif"][masks.SCORE] = jnp.float32([0.5, -0.5, 0.5, 0.5])
    scan = value_and_gradients(layer, variables, x, weights, None)
    other = value_and_gradients(layer, variables, x, weights, mode)
    np.testing.assert_array_equal(other[0], scan[0])
    assert 0.05 < scan[0].mean() < 0.8
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max()),
        *(other[1], scan[1]),
    )


@pytest.mark.parametrize("kind", ["psn", "relu"])
def test_what_is_no_membrane_or_has_too_few_channels_is_left_to_the_compiler(kind):
    x = jnp.ones((1, T, 2, 32))
    layers_and_inputs = [(LIF(neuron=create_neuron(kind)), x), (LIF(), x[..., :12])]
    with kernels.kernels("interpret"):
        for layer, current in layers_and_inputs:
            text = jax.make_jaxpr(
                lambda x, layer=layer: layer.init_with_output(jax.random.key(0), x)[0]
            )(current)
            assert "pallas_call" not in str(text)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="kernels='cpu' must be one of"), kernels.kernels("cpu"):
        pass


def test_a_program_that_is_compiled_is_not_taken_for_that_of_another_mode():
    layer, x = Layer("lif", train=False), jnp.asarray(RNG.normal(size=(2, T, 16, 8)), jnp.float32)
    variables = layer.init(jax.random.key(0), x)
    traced = []

    @jax.jit
    def run(variables, x):
        traced.append(kernels.wanted(jax.ShapeDtypeStruct((2, T, 32), x.dtype)))
        return layer.apply(variables, x)

    results = []
    for mode in (None, "interpret", None, "interpret"):
        with kernels.kernels(mode):
            results.append(run(variables, x))
    assert traced == [False, True]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
