"""What is written differently for a CPU gives what the plain form gives."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import snnvit_jax as snn
from snnvit_jax.layers import layers
from snnvit_jax.neurons import LIF, Emission, NeuronConfig, lif
from snnvit_jax.xla import backends

RNG = np.random.default_rng(0)
CURRENT = jnp.float32(RNG.normal(0.8, 1, (3, 4, 5, 6)))  # B T N C


# The compiler's options.


def convolution(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def test_on_a_cpu_convolutions_are_left_to_xla():
    x, kernel = jnp.ones((4, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    text = backends.jit(convolution).lower(x, kernel).compile().as_text()
    assert "ynn" not in text
    assert " convolution(" in text
    np.testing.assert_allclose(
        backends.jit(convolution)(x, kernel), convolution(x, kernel), rtol=1e-5
    )


def test_a_compiled_function_keeps_its_name_and_takes_static_arguments():
    @functools.partial(backends.jit, static_argnames="power")
    def raised(x, *, power):
        """To a power."""
        return x**power

    assert raised.__doc__ == "To a power."
    assert raised(2.0, power=3) == 8
    assert "f32" in raised.lower(2.0, power=2).as_text()


def test_an_option_that_the_compiler_does_not_take_costs_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(backends.COMPILER_OPTIONS, jax.default_backend(), {"xla_no_such": "1"})
    backends.compiler_options.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert backends.jit(jnp.negative)(1.0) == -1
    assert "does not take {'xla_no_such': '1'}" in caplog.text
    backends.compiler_options.cache_clear()


# What is computed again.


def emission(kind="lif", then=None, normalized=False):
    current = CURRENT
    if normalized:
        mean, variance, scale, bias = RNG.uniform(0.5, 1.5, (4, 6)).astype(np.float32)
        current = Partial(layers.normalize, current, mean, variance, scale, bias)
    tau = jnp.float32(1.7) if kind == "plif" else None
    score = jnp.float32([0.5, -0.5, 0.5, 0.5])
    return Emission(current, score, tau, NeuronConfig(kind=kind), 1.0, then)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("kind", ["lif", "if", "plif", "relu"])
def test_what_is_computed_again_has_the_same_value_and_gradient(kind, normalized):
    deferred = emission(kind, lambda x: jnp.square(x)[:, ::2], normalized)
    weights = RNG.normal(size=(3, 4, 3, 6)).astype(np.float32)

    def total(compute, deferred):
        return jnp.vdot(compute(deferred), weights)

    plain, again = (
        jax.jit(jax.value_and_grad(functools.partial(total, compute)))(deferred)
        for compute in (backends.value, backends.compute)
    )
    assert all(np.any(leaf) for leaf in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, again)


def test_the_compiler_keeps_less_of_what_is_computed_again():
    """On a CPU, where it has to be kept from finding the second computation equal to the first."""
    model = snn.create_model("spikformer_2_384", 3, image_size=32, time_steps=4, depth=1)
    images = jnp.zeros((8, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def reserved():
        def loss(params, variables):
            logits, _ = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits)

        lowered = backends.jit(jax.grad(loss)).lower(variables["params"], variables)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    again = reserved()
    with pytest.MonkeyPatch.context() as patch:
        plain = lambda function, *operands: function(*operands)  # noqa: E731
        patch.setattr(backends, "recompute", plain)
        patch.setattr(layers, "recompute", plain)
        kept = reserved()
    assert again < 0.6 * kept


def test_a_layer_gives_the_same_deferred_and_at_once():
    layer = LIF()
    variables = layer.init(jax.random.key(0), CURRENT)
    deferred = layer.apply(variables, CURRENT, 4, method="deferred")
    np.testing.assert_array_equal(layer.apply(variables, CURRENT), deferred())
    once = layer.apply(variables, CURRENT[:, :1], 4, method="deferred")()
    np.testing.assert_array_equal(
        once, layer.apply(variables, jnp.repeat(CURRENT[:, :1], 4, axis=1))
    )


# Slices along an axis.


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_and_their_gradients_are_those_of_a_split(axis):
    def total(split, x):
        return sum((i + 1) * jnp.sum(jnp.sin(part)) for i, part in enumerate(split(x)))

    sizes = (1,) * CURRENT.shape[axis]
    plain, ours = (
        jax.value_and_grad(functools.partial(total, split))(CURRENT)
        for split in (
            lambda x: jax.lax.split(x, sizes, axis),
            lambda x: backends.unstack(x, axis),
        )
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain, ours)


# What is written to memory.


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_held_has_exactly_the_same_value_and_gradient(shape, dtype):
    x = jnp.asarray(RNG.normal(size=shape), dtype)
    held, pull_back = jax.vjp(jax.jit(backends.hold), x)
    assert held.dtype == x.dtype
    np.testing.assert_array_equal(held, x)
    np.testing.assert_array_equal(*pull_back(held), x)


def test_the_gradient_of_a_neuron_computes_no_step_all_over_again():
    """Its operations grow with the number of time steps, not with the square of it."""

    def comparisons(steps):
        total = lambda x: jnp.sum(jnp.square(LIF().apply(variables, x)))  # noqa: E731
        current = jnp.ones((4, steps, 64, 128))
        variables = LIF().init(jax.random.key(0), current)
        program = backends.jit(jax.grad(total)).lower(current).compile().as_text()
        return program.count(" compare(")

    assert comparisons(8) - comparisons(4) < 1.5 * 2 * (comparisons(4) - comparisons(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lif, "hold", lambda x: x)
        assert comparisons(8) - comparisons(4) > 1.5 * 2 * (comparisons(4) - comparisons(2))


def test_the_forms_for_other_backends_are_lowered():
    """They cannot be run here; they must at least be programs."""
    x = jnp.ones((2, 3))

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(backends.recompute(jnp.sin, x)))(x)

    for platform, barrier in (("cpu", False), ("tpu", True)):
        traced = jax.jit(gradient).trace(x)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("optimization_barrier" in text) == barrier
