"""Weights that no network can compute with are refused by name, wherever weights are taken."""

import flax.linen as nn
import jax
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import traverse_util

import snnvit_jax as snn
from snnvit_jax import evaluation, layers, training
from snnvit_jax.common.variables import check_finite
from snnvit_jax.evaluation import early_exit
from snnvit_jax.pretrained import folder
from snnvit_jax.runs import initial, opening, teachers
from snnvit_jax.signals import Signal
from snnvit_jax.time_steps.schedule import check_time_steps_of

KERNEL = "params/block_0/attn/q_linear/kernel"
DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ml_dtypes.float8_e4m3fn)


def changed(variables, name, value, dtype=np.float32):
    """Variables with one number replaced, in another type."""
    flat = traverse_util.flatten_dict(jax.device_get(dict(variables)), sep="/")
    flat = {n: np.array(leaf, dtype) for n, leaf in flat.items()}
    flat[name].flat[-1] = value
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_is_named_in_every_type(dtype):
    check_finite({"params": {"a": np.ones(3, dtype)}})
    variables = {"params": {"b": np.ones(3, dtype), "a": np.ones((2, 3), dtype)}}
    variables["params"]["a"][1, 1] = np.nan
    message = r"it cannot be used: 'params/a' holds 1 values that are not finite, nan at \(1, 1\)"
    with pytest.raises(ValueError, match=message):
        check_finite(variables, "it")


@pytest.mark.parametrize("x64", [False, True])
def test_arrays_on_devices_are_checked_as_they_are(x64):
    with jax.enable_x64(x64):
        check_finite({"a": jax.numpy.full(3, 1e39 if x64 else 1e38)})
        with pytest.raises(ValueError, match="'a' holds 3 values that are not finite, -inf at .0,"):
            check_finite({"a": -jax.numpy.full(3, np.inf)})


def test_a_variance_must_not_be_negative():
    check_finite({"batch_stats": {"bn": {"var": np.zeros(2), "mean": -np.ones(2)}}})
    for name in ("batch_stats/bn/var", "block.0.bn.running_var"):
        with pytest.raises(ValueError, match=f"'{name}' holds a negative variance, -0.5"):
            check_finite({name: np.array([1, -0.5])})


def test_a_firing_rate_must_not_be_negative_whatever_its_name_goes_on_with():
    for name in ("batch_stats/attn/firing_rate", "layers.1.firing_rate_of_keys"):
        check_finite({name: np.zeros(2)})
        with pytest.raises(ValueError, match=f"'{name}' holds a negative rate, -0.5"):
            check_finite({name: np.array([1, -0.5])})


def test_a_firing_rate_of_another_name_is_refused():
    spikes = Signal.of(np.zeros((1, 2, 3), np.float32)).keep()
    with pytest.raises(ValueError, match="name='rate' of a running firing .* 'firing_rate'"):
        layers.update_firing_rate(nn.Module(), "rate", spikes, -1, train=True)


def test_whole_numbers_and_empty_tensors_pass():
    check_finite({"a": np.int64(3), "b": np.array([True]), "c": np.zeros((0, 2)), "d": {}})


def evaluate(model, variables, images):
    evaluation.evaluate(model, variables, None, None, None, mesh=None)


def load_teacher(model, variables, images, monkeypatch):
    monkeypatch.setattr(opening, "load_variables", lambda _: variables)
    teachers.load("runs/teacher", 3)


TAKERS = {
    "energy_report": lambda model, variables, images, _: snn.energy_report(
        model, variables, images
    ),
    "deploy": lambda model, variables, *_: snn.deploy(model, variables),
    "evaluate": lambda *arguments: evaluate(*arguments[:3]),
    "teacher": load_teacher,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (KERNEL, np.nan),
        ("params/head/bias", np.inf),
        ("params/patch_embed/proj_lif/time_step_score", np.nan),
        ("batch_stats/patch_embed/rpe_bn/mean", -np.inf),
        ("batch_stats/patch_embed/rpe_bn/var", -1),
    ],
)
def test_everyone_who_takes_weights_names_those_that_cannot_be_used(
    tiny, monkeypatch, taker, name, value
):
    variables = changed(tiny.variables, name, value)
    with pytest.raises(ValueError, match=f"cannot be used: '{name}' holds"):
        TAKERS[taker](tiny.model, variables, tiny.images, monkeypatch)


# Whoever takes the variables of a model: function of (model, variables, images, path).
VARIABLES_TAKERS = {
    "from_variables": lambda model, variables, *_: snn.TimeStepSchedule.from_variables(variables),
    "with_schedule": lambda model, variables, *_: snn.with_schedule(
        variables, snn.TimeStepSchedule({"a": [1]})
    ),
    "with_time_steps": lambda model, variables, *_: snn.with_time_steps(variables, 2),
    "check_time_steps_of": lambda model, variables, *_: check_time_steps_of(variables, 4),
    "deploy": lambda model, variables, *_: snn.deploy(model, variables),
    "energy_report": lambda model, variables, images, _: snn.energy_report(
        model, variables, images
    ),
    "running_logits": lambda model, variables, images, _: early_exit.running_logits(
        model, variables, images
    ),
    "evaluate": lambda *arguments: evaluate(*arguments[:3]),
    "state": lambda model, variables, *_: training.state_from_variables(
        training.Procedure(model, optax.identity()), variables
    ),
    "save": lambda model, variables, _, path: initial.save(path / "x.safetensors", variables),
    "packed": lambda model, variables, *_: folder.packed(variables),
}


@pytest.mark.parametrize("taker", VARIABLES_TAKERS)
def test_parameters_alone_are_told_from_variables(tiny, tmp_path, taker):
    params = jax.device_get(tiny.variables["params"])
    message = r"^the variables must be .* got a mapping of \[.*head.*; .* give {\"params\": ...}$"
    with pytest.raises(ValueError, match=message):
        VARIABLES_TAKERS[taker](tiny.model, params, tiny.images, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_energy_of_narrow_weights_is_counted_and_nan_in_them_refused(tiny, dtype):
    variables = changed(tiny.variables, KERNEL, 0, dtype)
    assert snn.energy_report(tiny.model, variables, tiny.images).microjoule > 0
    variables = changed(tiny.variables, KERNEL, np.nan, dtype)
    with pytest.raises(ValueError, match=f"'{KERNEL}' holds 1 values"):
        snn.energy_report(tiny.model, variables, tiny.images)
