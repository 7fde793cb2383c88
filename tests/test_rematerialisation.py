"""What is computed again or written to memory gives what the plain form gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.layers import normalize
from snnvit_jax.neurons import LIF, create_neuron, dynamics
from snnvit_jax.signals import Signal
from snnvit_jax.signals import signal as signals
from snnvit_jax.time_steps import masks
from snnvit_jax.xla import backends, rematerialisation
from snnvit_jax.xla.rematerialisation import deferred, materialise, rematerialise, value, write_out

RNG = np.random.default_rng(0)
CURRENT = jnp.float32(RNG.normal(0.8, 1, (3, 4, 5, 6)))  # B T N C


# What is computed again.


def layer_and_params(kind="lif"):
    layer = LIF(neuron=create_neuron(kind))
    params = layer.init(jax.random.key(0), CURRENT)["params"]
    return layer, params | {masks.SCORE: jnp.float32([0.5, -0.5, 0.5, 0.5])}


def emission(kind, normalized):
    """A pytree that knows how to compute every other step of what a layer emits, squared."""
    signal = Signal.of(CURRENT)
    if normalized:
        numbers = RNG.uniform(0.5, 1.5, (4, 6)).astype(np.float32)
        signal = signal.then(normalize, *numbers)
    layer, params = layer_and_params(kind)
    emitted = layer.apply({"params": params}, signal)
    return emitted.then(lambda x: jnp.square(x)[:, ::2]).pending


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("kind", ["lif", "if", "plif", "relu", "quantized", "psn"])
def test_what_is_computed_again_has_the_same_value_and_gradient(kind, normalized):
    pending = emission(kind, normalized)
    assert callable(pending)
    weights = RNG.normal(size=(3, 2, 5, 6)).astype(np.float32)

    def total(compute, pending):
        return jnp.vdot(compute(pending), weights)

    plain, again = (
        jax.jit(jax.value_and_grad(functools.partial(total, compute)))(pending)
        for compute in (value, materialise)
    )
    assert all(np.any(leaf) for leaf in jax.tree.leaves(plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, again)


def test_a_value_that_is_there_already_is_itself():
    assert value(CURRENT) is CURRENT
    twice = deferred(jnp.sin, deferred(jnp.square, CURRENT))
    np.testing.assert_array_equal(value(twice), jnp.sin(jnp.square(CURRENT)))


def test_the_compiler_keeps_less_of_what_is_computed_again(monkeypatch):
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
    plain = lambda function, *operands: function(*operands)  # noqa: E731
    monkeypatch.setattr(rematerialisation, "rematerialise", plain)  # `materialise` calls it
    monkeypatch.setattr(signals, "rematerialise", plain)
    kept = reserved()
    assert again < 0.6 * kept


def test_a_layer_gives_the_same_for_a_signal_and_for_an_array():
    layer, params = layer_and_params()
    variables = {"params": params}
    emitted = layer.apply(variables, Signal.of(CURRENT))
    assert callable(emitted.pending)
    np.testing.assert_array_equal(layer.apply(variables, CURRENT), emitted.values)


def test_a_layer_gives_the_same_for_a_static_signal_and_for_its_copies():
    layer, params = layer_and_params()
    variables = {"params": params}
    once = layer.apply(variables, Signal.of(CURRENT[:, :1], 4))
    assert not once.static
    copies = jnp.repeat(CURRENT[:, :1], 4, axis=1)
    np.testing.assert_array_equal(once.values, layer.apply(variables, copies))


def test_a_signal_that_is_kept_is_the_same_signal():
    signal = Signal.of(CURRENT).then(jnp.sin)
    kept = signal.keep()
    assert callable(signal.pending)
    assert not callable(kept.pending)
    np.testing.assert_array_equal(kept.values, signal.values)


# What is written to memory.


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_written_out_has_exactly_the_same_value_and_gradient(shape, dtype):
    x = jnp.asarray(RNG.normal(size=shape), dtype)
    written, pull_back = jax.vjp(jax.jit(write_out), x)
    assert written.dtype == x.dtype
    np.testing.assert_array_equal(written, x)
    np.testing.assert_array_equal(*pull_back(written), x)


def test_the_gradient_of_a_neuron_computes_no_step_all_over_again(monkeypatch):
    """Its operations grow with the number of time steps, not with the square of it."""

    def comparisons(steps):
        total = lambda x: jnp.sum(jnp.square(LIF().apply(variables, x)))  # noqa: E731
        current = jnp.ones((4, steps, 64, 128))
        variables = LIF().init(jax.random.key(0), current)
        program = backends.jit(jax.grad(total)).lower(current).compile().as_text()
        return program.count(" compare(")

    def excess():  # over as many more for each step as between 4 and 8; jax 0.12: 62 of 47
        four, eight = comparisons(4), comparisons(8)
        return comparisons(16) / (eight + 2 * (eight - four))

    assert excess() < 1.35
    monkeypatch.setattr(dynamics, "write_out", lambda x: x)
    assert excess() > 10


def test_the_forms_for_other_backends_are_lowered():
    """They cannot be run here; they must at least be programs."""
    x = jnp.ones((2, 3))

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(rematerialise(jnp.sin, x)))(x)

    for platform, barrier in (("cpu", False), ("tpu", True)):
        traced = jax.jit(gradient).trace(x)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("optimization_barrier" in text) == barrier
