"""The parallel spiking neuron: its closed form, and everything that the package does with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from quickly import QUICKLY

import snnvit_jax as snn
from snnvit_jax.evaluation import early_exit
from snnvit_jax.neurons import LIF, ParallelNeuron, surrogate_gradient
from snnvit_jax.time_steps import masks
from snnvit_jax.time_steps.schedule import with_schedule

T = 3
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return snn.create_model(
        "spikformer_2_384",
        3,
        image_size=8,
        time_steps=T,
        embed_dim=16,
        num_heads=2,
        depth=1,
        neuron={"kind": "psn"},
    )


@pytest.fixture(scope="module")
def variables(model, lively):
    return lively(model)


@pytest.fixture(scope="module")
def images():
    return RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_it_fires_where_a_product_over_time_reaches_its_bias(axis, x64):
    x, kernel, bias = RNG.normal(size=(T, 4, 5)), RNG.normal(size=(T, T)), RNG.normal(size=T)
    h = np.einsum("ts,sbc->tbc", kernel, x) + bias[:, None, None]
    parameters = {"time_kernel": kernel, "time_bias": bias}
    found = ParallelNeuron().run(np.moveaxis(x, 0, axis), 1.0, parameters, axis)
    np.testing.assert_array_equal(found, np.moveaxis(h >= 0, 0, axis))


def test_its_gradient_is_that_of_the_product(x64):
    x, kernel, bias = RNG.normal(size=(T, 7)), RNG.normal(size=(T, T)), RNG.normal(size=T)
    upstream = RNG.normal(size=(T, 7))

    def total(x, parameters):
        return jnp.vdot(ParallelNeuron().run(x, 1.0, parameters), upstream)

    parameters = {"time_kernel": jnp.asarray(kernel), "time_bias": jnp.asarray(bias)}
    to_x, to_parameters = jax.grad(total, (0, 1))(jnp.asarray(x), parameters)
    to_h = upstream * surrogate_gradient(jnp.asarray(kernel @ x + bias[:, None]))
    np.testing.assert_allclose(to_x, kernel.T @ to_h, rtol=1e-12)
    np.testing.assert_allclose(to_parameters["time_kernel"], to_h @ x.T, rtol=1e-12)
    np.testing.assert_allclose(to_parameters["time_bias"], to_h.sum(1), rtol=1e-12)


def test_it_starts_with_small_weights_and_its_threshold():
    layer = LIF(0.5, ParallelNeuron())
    params = layer.init(jax.random.key(0), jnp.zeros((1, 16, 2)))["params"]
    assert params["time_kernel"].shape == (16, 16)
    assert 0.2 < np.abs(params["time_kernel"]).max() <= 0.25
    np.testing.assert_array_equal(params["time_bias"], np.full(16, -0.5))


def test_it_trains(model, variables, images):
    labels = jnp.array([0, 2])

    def loss(params):
        logits, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(2), labels])

    step = jax.jit(jax.value_and_grad(loss), compiler_options=QUICKLY)
    params = variables["params"]
    first, gradient = step(params)
    own = {p: g for p, g in traverse_util.flatten_dict(gradient).items() if "time_" in p[-1]}
    assert sum(bool(np.any(g)) for g in own.values()) > len(own) / 2
    for _ in range(10):
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, step(params)[1])
    assert step(params)[0] < 0.9 * first


def test_each_time_step_costs_a_row_of_its_weights(model, variables, images):
    report = snn.energy_report(model, variables, images)
    neurons = sum(layer.shape.neurons for layer in report.neurons.values())
    assert report.membrane_updates == neurons * T
    picojoule = report.membrane_microjoule * 1e6
    assert picojoule == pytest.approx(neurons * T * T * report.accounting.mac)


def test_a_step_that_is_given_up_costs_no_row(model, variables, images):
    mask = np.arange(T) % 2 == 1
    schedule = snn.TimeStepSchedule(dict.fromkeys(snn.layer_names(model), mask))
    report = snn.energy_report(model, with_schedule(variables, schedule), images)
    for layer in report.neurons.values():
        np.testing.assert_array_equal(layer.updates, layer.shape.neurons * mask)


def test_no_early_exit_because_a_later_step_counts(model, variables, images):
    with pytest.raises(ValueError, match="no early exit with ParallelNeuron: it is not causal"):
        early_exit.running_logits(model, variables, images)


@pytest.mark.parametrize("seed", range(3))
def test_deployed_it_is_the_masked_model(model, variables, images, seed):
    rng = np.random.default_rng(seed)
    names = masks.scores(variables["params"])
    schedule = snn.TimeStepSchedule({name: rng.random(T) < 0.7 for name in names})
    deployed = snn.deploy(model, variables, schedule)
    masked = snn.with_schedule(variables, schedule)
    expected = jax.jit(model.apply, compiler_options=QUICKLY)(masked, images)
    np.testing.assert_allclose(deployed(images), expected, rtol=1e-5, atol=1e-5)
    for name, steps in deployed.steps.items():
        assert set(steps) <= set(np.flatnonzero(schedule.masks[name]))
