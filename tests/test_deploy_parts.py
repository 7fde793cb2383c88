"""What deployment is made of: signals, folding, and which steps have an effect."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.deployment import folding, signals, spikformer, steps
from snnvit_jax.layers import layers
from snnvit_jax.layers.pooling import max_pool
from snnvit_jax.neurons import NeuronConfig

T = 5


def signal(active, shape=(2, 3), seed=0, spikes=False):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(shape[0], len(active), *shape[1:])).astype(np.float32)
    return signals.Signal(jnp.asarray(values > 0 if spikes else values, np.float32), active)


def dense(x):
    """[B, T, ...], zeros included."""
    full = np.zeros((x.values.shape[0], T, *x.values.shape[2:]), np.float32)
    full[:, list(x.steps)] = x.values
    return full


@pytest.mark.parametrize(
    ("a", "b"), [((0, 2), (1, 2, 4)), ((1, 3), (1, 3)), ((), (2,)), ((0,), ()), ((), ())]
)
def test_a_sum_is_active_where_either_is(a, b):
    x, y = signal(a), signal(b, seed=1)
    total = signals.add(x, y)
    assert total.steps == tuple(sorted({*a, *b}))
    np.testing.assert_array_equal(dense(total), dense(x) + dense(y))


def test_until_keeps_the_steps_before():
    x = signal((0, 2, 4))
    assert x.until(3).steps == (0, 2)
    np.testing.assert_array_equal(x.until(3).values, x.values[:, :2])
    np.testing.assert_array_equal(x.at(4), x.values[:, 2])


def test_attention_is_that_of_the_model_at_its_steps():
    q, k, v = (signal((1, 2), (2, 3, 4), seed, spikes=True) for seed in range(3))
    product = signals.attend(q, k, v, num_heads=2)
    expected = layers.spiking_attention(*(jnp.asarray(dense(x)) for x in (q, k, v)), 2)
    assert product.steps == (1, 2)
    np.testing.assert_array_equal(dense(product), expected)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("tau", [None, 2.0])
@pytest.mark.parametrize(
    ("active", "wanted"), [((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)), ((1, 3), (0, 2, 4)), ((), (1, 4))]
)
def test_neurons_integrate_the_bias_where_nothing_arrives(active, wanted, tau, reset):
    drive, bias = signal(active, (20, 3)), jnp.array([0.3, 0.7, 1.2])
    options = {"tau": tau, "threshold": 0.8, "reset": reset}
    spikes = signals.fire(drive, bias, wanted, dtype=jnp.float32, **options)
    expected = np.asarray(snn.lif_scan(jnp.moveaxis(dense(drive) + bias, 1, 0), **options))
    assert spikes.steps == wanted
    np.testing.assert_array_equal(jnp.moveaxis(spikes.values, 1, 0), expected[list(wanted)])


def test_the_mean_counts_silent_steps():
    x = signal((1, 4), (2, 6, 3))
    np.testing.assert_allclose(signals.mean(x, T), dense(x).mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6, 5), (1, 1, 2, 2, 1), (2, 0, 4, 4, 1)])
def test_pooling_is_that_of_the_model(shape):
    x = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    expected = layers.fold_time(max_pool, jnp.asarray(x))
    np.testing.assert_array_equal(spikformer.pool_spikes(x), expected)


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("bias", [None, np.float64([1.0, -2.0, 3.0])])
def test_a_folded_map_is_the_map_and_its_normalisation(bias, x64):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(7, 4)), rng.normal(size=(4, 3))
    scale, shift, mean, variance = rng.uniform(0.1, 2, (4, 3))
    folded_kernel, folded_bias = folding.fold(kernel, bias, scale, shift, mean, variance)
    y = x @ kernel + (0 if bias is None else bias)
    expected = layers.normalize(y, mean, variance, scale, shift)
    np.testing.assert_allclose(x @ folded_kernel + folded_bias, expected, rtol=1e-13)


def test_folding_loses_nothing_before_the_last_rounding():
    # In float32, 1e8 + 1 is 1e8: the bias must not be added to the mean in that precision.
    one, big = np.float32([1]), np.float32([1e8])
    _, bias = folding.fold(one[None], one, one, np.float32([0]), -big, np.float32([1 - 1e-5]))
    assert bias[0] == pytest.approx(1e8 + 1, abs=0.01)


# ---------------------------------------------------------------- which steps have an effect

QUIET = {name: np.zeros(1) for name in "abcd"}


def effective(wirings, masks, outputs, biases=QUIET, **neuron):
    masks = {name: np.array(mask, bool) for name, mask in masks.items()}
    return steps.effective_steps(masks, wirings, outputs, biases, NeuronConfig(**neuron))


CHAIN = {
    "a": steps.Wiring(1),
    "b": steps.Wiring(1, ("a",)),
}


def test_a_layer_stops_when_its_listener_does():
    found = effective(CHAIN, {"a": [1, 1, 1, 1], "b": [0, 1, 1, 0]}, ("b",))
    assert found == {"a": (0, 1, 2), "b": (1, 2)}


def test_a_layer_that_nobody_hears_is_left_out():
    assert effective(CHAIN, {"a": [1, 1], "b": [0, 0]}, ("b",)) == {"a": (), "b": ()}


def test_a_layer_is_silent_where_nothing_arrives_unless_its_bias_makes_it_fire():
    masks = {"a": [0, 1, 0], "b": [1, 1, 1]}
    assert effective(CHAIN, masks, ("b",))["b"] == (1,)
    loud = QUIET | {"b": np.array([-3.0, 1.0])}
    assert effective(CHAIN, masks, ("b",), loud)["b"] == (0, 1, 2)


def test_after_a_soft_reset_a_layer_may_still_fire():
    masks = {"a": [0, 1, 0], "b": [1, 1, 1]}
    assert effective(CHAIN, masks, ("b",), reset="soft")["b"] == (1, 2)


def test_factors_of_a_product_share_their_steps():
    wirings = {"a": steps.Wiring(1), "b": steps.Wiring(1), "c": steps.Wiring(1)}
    wirings["d"] = steps.Wiring(1, ("a", "b", "c"), product=True)
    masks = {"a": [1, 1, 1, 0], "b": [0, 1, 1, 1], "c": [1, 1, 1, 1], "d": [1, 1, 0, 0]}
    assert effective(wirings, masks, ("d",)) == {"a": (1,), "b": (1,), "c": (1,), "d": (1,)}


def test_a_sum_hears_every_term():
    wirings = CHAIN | {"c": steps.Wiring(1, ("a", "b"))}
    masks = {"a": [1, 0, 0], "b": [0, 0, 1], "c": [1, 1, 1]}
    # b emits at a step at which nothing arrives, so it never does.
    assert effective(wirings, masks, ("c",)) == {"a": (0,), "b": (), "c": (0,)}


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize(("kind", "bias"), [("lif", 0.9), ("lif", 0.0), ("if", 0.0), ("if", -0.1)])
def test_where_a_layer_is_said_to_be_silent_it_is(kind, bias, reset, threshold):
    rng = np.random.default_rng(0)
    neuron = NeuronConfig(kind=kind, tau=1.3, reset=reset)
    current = rng.normal(1, 3, size=(T, 2000)).astype(np.float32)
    arriving = np.array([0, 1, 0, 1, 0], bool)
    bias *= threshold
    possible = steps.can_fire(arriving, np.array([-1.0, bias]), threshold, neuron)
    assert not possible.all()
    current = np.where(arriving[:, None], current, np.float32(bias))
    tau = 1.3 if kind == "lif" else None
    fired = np.asarray(snn.lif_scan(current, tau, threshold, reset)).any(axis=1)
    assert not (fired & ~possible).any()
    assert (fired == possible).all()  # and nothing else is ruled out


@pytest.mark.parametrize(("kind", "bias"), [("lif", 1.0), ("if", 1e-3)])
def test_a_bias_that_can_make_a_layer_fire_rules_nothing_out(kind, bias):
    neuron = NeuronConfig(kind=kind)
    assert steps.can_fire(np.zeros(3, bool), np.array([bias, -9.0]), 1.0, neuron).all()


def test_a_network_without_time_steps_is_refused(tiny):
    config = tiny.model.config
    neuron = dataclasses.replace(config.neuron, kind="relu")
    model = type(tiny.model)(dataclasses.replace(config, neuron=neuron))
    with pytest.raises(ValueError, match="cannot deploy neuron kind 'relu'"):
        snn.deploy(model, tiny.variables)
