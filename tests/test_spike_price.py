"""What spikes cost: the gradient that is added, against one computed from recorded spikes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import snnvit_jax as snn
from snnvit_jax import energy, layers, training
from snnvit_jax.layers.head import STEP_LOGITS
from snnvit_jax.layers.pooling import max_pool
from snnvit_jax.neurons import LIF, create_neuron
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps import masks, spike_price
from snnvit_jax.training.objective import Objective
from snnvit_jax.xla.rematerialisation import value


def passed_on(model, spikes):
    """{layer name: spikes [T, B, ...]} as the next layer sees them: pooled where a stage pools."""
    pooled = {f"patch_embed/proj_lif{i or ''}" for i in range(4) if model.config.pool[i]}
    return {name: jax.vmap(max_pool)(s) if name in pooled else s for name, s in spikes.items()}


@pytest.fixture(scope="module")
def prices(tiny):
    return energy.spike_prices(tiny.model, tiny.images.shape[1:])


def test_spikes_pass_and_each_has_its_price_in_the_gradient():
    spikes, weights = jnp.float32([[0, 1, 1], [1, 0, 1]]), jnp.arange(6.0).reshape(2, 3)
    price = jnp.float32(0.25)
    value, gradient = jax.value_and_grad(lambda s: jnp.sum(weights * spike_price.charge(s, price)))(
        spikes
    )
    assert value == jnp.sum(weights * spikes)
    np.testing.assert_array_equal(gradient, weights + price)


def test_bfloat16_spikes_stay_bfloat16():
    spikes = jnp.ones(3, jnp.bfloat16)
    gradient = jax.grad(lambda s: spike_price.charge(s, jnp.float32(0.5)).sum())(spikes)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(np.float32), 1.5)


def test_one_spike_of_each_value_at_each_step_costs_one(tiny, prices):
    counted = energy.driven(tiny.model, tiny.images.shape[1:])
    values = {name: layer.values * layer.time_steps for name, layer in counted.items()}
    assert sum(price * values[name] for name, price in prices.items()) == pytest.approx(1)


def test_prices_are_those_of_the_counted_accumulates(tiny, tiny_energy, prices):
    """But for spikes near the padding, and for attention, which needs keys where values are."""
    counted = energy.driven(tiny.model, tiny.images.shape[1:])
    full = sum(layer.accumulates * layer.time_steps for layer in counted.values())
    _, seen = tiny.model.apply(tiny.variables, tiny.images, mutable=["spikes"])
    emitted = passed_on(tiny.model, snn.spikes(seen)).items()
    priced = full * sum(prices[name] * s.sum() for name, s in emitted) / len(tiny.images)
    assert priced == pytest.approx(tiny_energy.accumulates, rel=0.03)


LABELS = np.array([0, 1, 2])


def gradient_of_training(tiny, objective, remat="none"):
    model = tiny.model.clone(config=dataclasses.replace(tiny.model.config, remat=remat))
    procedure = training.Procedure(model, optax.sgd(1.0), objective)
    state = training.state_from_variables(procedure, tiny.variables)
    batch = {"image": tiny.images, "label": LABELS, "target": np.eye(3)[LABELS]}
    batch |= {"mask": np.ones(3), "weight": np.ones(3)}

    def loss(params):
        key = jax.random.key(0)
        return training.loss_fn(params, state.batch_stats, state, batch, key, procedure)

    return jax.jit(jax.grad(loss, has_aux=True))(state.params)[0]


def gradient_of_recorded_spikes(tiny, prices):
    """Cross entropy and prices written out, as means over the images."""

    def loss(params):
        logits, new = tiny.model.apply(
            tiny.variables | {"params": params},
            tiny.images,
            train=True,
            mutable=["batch_stats", "spikes"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
        emitted = passed_on(tiny.model, snn.spikes(new)).items()
        return jnp.mean(losses) + sum(prices[name] * s.sum() for name, s in emitted) / 3

    return jax.jit(jax.grad(loss))(tiny.variables["params"])


def test_spikes_of_a_model_of_recordings_have_their_prices():
    sizes = {"depth": 1, "embed_dim": 16, "num_heads": 1}
    model = snn.create_model("spikformer_2_256_dvs", 3, 16, 2, **sizes)
    shape = (2, 16, 16, 2)
    prices = energy.spike_prices(model, shape)
    assert list(prices) == snn.layer_names(model, 2)
    counted = energy.driven(model, shape)
    values = {name: layer.values * layer.time_steps for name, layer in counted.items()}
    assert sum(price * values[name] for name, price in prices.items()) == pytest.approx(1)


class Bare(nn.Module):
    """Neurons and, right behind them, the head."""

    @nn.compact
    def __call__(self, x):
        return layers.Head(3, name="head")(LIF(neuron=create_neuron(), name="lif")(Signal.of(x)))


def test_spikes_that_the_head_reads_twice_pay_once():
    model, price = Bare(), 0.25
    x = jax.random.normal(jax.random.key(0), (4, 2, 5)) * 3 + 1
    variables = model.init(jax.random.key(1), x)
    charged = spike_price.as_variables({"lif": price}, 1)

    def total(params, prices, mutable):
        y = model.apply({"params": params, **prices}, x, mutable=mutable)
        return sum(leaf.sum() for leaf in jax.tree.leaves(y))

    def added(mutable):
        one, other = (
            jax.grad(total)(variables["params"], prices, mutable)["lif"][masks.SCORE]
            for prices in (charged, {})
        )
        return one - other

    _, seen = model.apply(variables, x, mutable=["spikes"])
    expected = price * snn.spikes(seen)["lif"].sum((1, 2))
    assert expected.all()
    np.testing.assert_allclose(added([]), expected, rtol=1e-5)
    np.testing.assert_allclose(added([STEP_LOGITS]), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "scaled",
    [
        lambda x: (x * 4.0).values,
        lambda x: layers.Scale().apply({}, x, jnp.square, jnp.full(5, 2.0)).values,
        lambda x: x.then(jnp.multiply, jnp.full(5, 4.0)).keep().values,
        lambda x: x.map(lambda images: images[..., ::-1]).values,
        lambda x: x.emit(lambda pending: value(pending) * 4.0, price=None).values,
    ],
)
def test_spikes_are_charged_once_whatever_is_made_of_them(scaled):
    def total(spikes, price):
        signal = Signal.of(spikes).emit(value, price=price)
        return jnp.sum(scaled(signal))

    spikes = jnp.ones((1, 2, 5))
    added = jax.grad(total)(spikes, jnp.float32(0.25)) - jax.grad(total)(spikes, None)
    np.testing.assert_array_equal(added, 0.25)


def test_the_gradient_is_that_of_the_recorded_spikes(tiny, prices):
    charged = {name: 100 * price for name, price in prices.items()}
    objective = Objective(spike_prices=tuple(charged.items()))
    expected = gradient_of_recorded_spikes(tiny, charged)
    free = gradient_of_training(tiny, Objective())
    rounding = 1e-6 * max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for remat in ("none", "block"):
        found = gradient_of_training(tiny, objective, remat)
        for path, wanted in jax.tree_util.tree_leaves_with_path(expected):
            leaves = (dict(jax.tree_util.tree_leaves_with_path(t))[path] for t in (found, free))
            leaf, without = map(np.asarray, leaves)
            np.testing.assert_allclose(leaf, wanted, rtol=1e-3, atol=rounding)
            if path[-1].key == masks.SCORE and "fc2" not in path[-2].key:
                assert (leaf > without).all()  # towards switching a step off, if it has spikes


def test_a_price_makes_a_model_fire_less(tiny, prices):
    def cost(weight):
        charged = tuple((name, weight * price) for name, price in prices.items())
        procedure = training.Procedure(
            tiny.model, optax.adam(3e-2), Objective(spike_prices=charged)
        )
        variables = jax.tree.map(jnp.array, tiny.variables)  # a copy: steps donate their state
        state = training.state_from_variables(procedure, variables)
        for _ in range(8):
            batch = {"image": tiny.images, "label": LABELS}
            state, _ = training.train_step(state, batch, procedure=procedure)
        _, seen = tiny.model.apply(
            state.variables, tiny.images, train=True, mutable=["batch_stats", "spikes"]
        )
        emitted = passed_on(tiny.model, snn.spikes(seen)).items()
        return sum(prices[name] * s.sum() for name, s in emitted)

    assert cost(100.0) < 0.8 * cost(0.0)
