"""The mean of several trainings of one model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import snnvit_jax as snn
from snnvit_jax.weights.averaging import mean_variables


@pytest.fixture(scope="module")
def model():
    small = {"embed_dim": 8, "num_heads": 2, "depth": 1, "pool": (True, True, True, False)}
    return snn.create_model("spikformer_4_384", 3, 16, 2, **small)


@pytest.fixture(scope="module")
def trainings(model):
    images = jnp.zeros((1, 16, 16, 3))
    init = jax.jit(model.init)
    return {f"run{seed}": init(jax.random.key(seed), images) for seed in range(3)}


def test_every_weight_is_the_mean_and_the_schedule_that_of_all(trainings):
    names = list(trainings)
    masks = snn.TimeStepSchedule.from_variables(trainings[names[0]]).masks
    masks = {layer: [1, 0] for layer in masks}
    given = {
        name: snn.with_schedule(variables, snn.TimeStepSchedule(masks))
        for name, variables in trainings.items()
    }
    mean = mean_variables(given)

    def check(path, found, *each):
        if "time_step_score" in jax.tree_util.keystr(path):
            wanted = each[0]
        else:
            wanted = np.mean([np.asarray(one, np.float64) for one in each], 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert found.dtype == each[0].dtype

    jax.tree_util.tree_map_with_path(check, mean, *given.values())
    assert snn.TimeStepSchedule.from_variables(mean) == snn.TimeStepSchedule(masks)


def test_the_mean_of_equal_trainings_is_bit_by_bit_each(trainings):
    one = trainings["run0"]
    mean = mean_variables({"a": one, "b": one, "c": one})
    jax.tree.map(np.testing.assert_array_equal, mean, jax.device_get(one))


def _with(variables, part, value):
    """The variables with a value in every tensor whose path has this part."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, value) if part in jax.tree_util.keystr(path) else x,
        variables,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: {"params": {}, "batch_stats": {}}, "is of another model than run0"),
        (lambda v: _with(v, "time_step_score", -1.0), "run1 follows another schedule than run0"),
        (lambda v: _with(v, "'head']['bias", np.nan), "the weights of run1 cannot be used"),
    ],
)
def test_what_has_no_mean_is_named(trainings, change, message):
    given = {"run0": trainings["run0"], "run1": change(trainings["run1"])}
    with pytest.raises(ValueError, match=message):
        mean_variables(given)


def test_one_training_is_no_mean(trainings):
    with pytest.raises(ValueError, match=r"two trainings or more, got \['run0'\]"):
        mean_variables({"run0": trainings["run0"]})
