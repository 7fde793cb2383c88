"""A convolution is one thing in training, evaluation and deployment, and so is what is measured."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax import layers
from snnvit_jax.layers.linear import pair
from snnvit_jax.signals import Signal

OPTIONS = {
    "strides": {"strides": (2, 1)},
    "padding": {"padding": (2, 0)},
    "dilation": {"dilation": 2, "padding": 2},
    "groups": {"groups": 2},
    "all": {"strides": 2, "padding": (1, 2), "dilation": (1, 2), "groups": 4},
}
CURRENT = jax.random.normal(jax.random.key(0), (2, 3, 7, 6, 4))


def fire(current):
    return (current > 0.5).astype(current.dtype)


def of_flax(options):
    """The same convolution from Flax."""
    rows, columns = pair(options.get("padding", 1))
    return nn.Conv(
        8,
        (3, 3),
        strides=options.get("strides", 1),
        padding=((rows, rows), (columns, columns)),
        kernel_dilation=options.get("dilation", 1),
        feature_group_count=options.get("groups", 1),
        use_bias=False,
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_convolution_is_the_same_in_training_and_evaluation(name):
    convolution, plain = layers.Conv(8, **OPTIONS[name]), of_flax(OPTIONS[name])
    shape = (3, 3, 4 // OPTIONS[name].get("groups", 1), 8)
    kernel = jax.random.normal(jax.random.key(1), shape)

    def trained(kernel):  # spikes that are not computed yet, as in a forward pass of training
        waiting = Signal.of(CURRENT).then(fire)
        y = convolution.apply({"params": {"kernel": kernel}}, waiting).values
        return jnp.sum(y**2), y

    def expected(kernel):
        y = plain.apply({"params": {"kernel": kernel}}, fire(CURRENT))
        return jnp.sum(y**2), y

    (_, y), gradient = jax.value_and_grad(trained, has_aux=True)(kernel)
    (_, wanted), slope = jax.value_and_grad(expected, has_aux=True)(kernel)
    assert y.any()
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-3)
    there = convolution.apply({"params": {"kernel": kernel}}, Signal.of(fire(CURRENT))).values
    np.testing.assert_allclose(there, wanted, rtol=1e-5, atol=1e-5)


def test_schedules_of_the_same_masks_under_other_names_are_others(tiny):
    names = snn.layer_names(tiny.model)  # the first two follow each other
    first = {name: [1, 1, 1, 1] for name in names} | {names[0]: [1, 0, 0, 1]}
    other = {name: [1, 1, 1, 1] for name in names} | {names[1]: [1, 0, 0, 1]}
    schedules = [snn.TimeStepSchedule(m) for m in (first, other, dict(reversed(first.items())))]
    steps = [snn.deploy(tiny.model, tiny.variables, schedule).steps for schedule in schedules]
    assert [found[names[0]] for found in steps[:2]] == [(0, 3), (0, 1, 2, 3)]
    assert [found[names[1]] for found in steps[:2]] == [(0, 1, 2, 3), (0, 3)]
    assert steps[2] == steps[0]  # the order of the names is nothing


def test_the_masked_model_is_measured_with_the_options_of_the_deployed_one():
    root = pathlib.Path(__file__).parents[1]
    for script in ("experiments/deploy/measure.py", "snnvit_jax/deployment/build.py"):
        assert "jax.jit(" not in (root / script).read_text(), script
    assert "backends.jit(model.apply)" in (root / "experiments/deploy/measure.py").read_text()
