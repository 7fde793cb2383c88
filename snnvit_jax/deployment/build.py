"""From a trained model to a deployed one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common import values
from snnvit_jax.common.variables import check_finite, params_of
from snnvit_jax.deployment import planning
from snnvit_jax.deployment.deployed import Deployed, checked_dtype
from snnvit_jax.deployment.folding import fold_kernels
from snnvit_jax.deployment.merging import merge_chains, unmerged
from snnvit_jax.deployment.program import Program, collect_weights
from snnvit_jax.models import check_model, family_of, variable_shapes
from snnvit_jax.models.parts import image_channels
from snnvit_jax.neurons import Neuron, describe
from snnvit_jax.time_steps.schedule import (
    TimeStepSchedule,
    check_time_steps_of,
    with_schedule,
)
from snnvit_jax.version import __version__


def deploy(
    model,
    variables,
    schedule=None,
    *,
    dtype=None,
    recordings=False,
    classes=None,
    merge=False,
    reading=None,
):
    """Compiles a finished model's time steps away.

    The result is a function of images that equals the masked model to rounding. Normalisations are
    folded into the linear maps before them; a layer is computed at the steps at which its output
    has an effect (`planning.effects`), and a layer without any is left out.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model.
      schedule: a `TimeStepSchedule`; None takes the masks that the model has learned.
      dtype: of spikes and kernels, for example "bfloat16"; None takes the model's. Currents,
        membrane potentials and the head have at least float32.
      recordings: whether it takes recordings [B, T, H, W, C] in place of images [B, H, W, C].
      classes: names of the classes in the order of the logits, to be kept with the model
        (`about["classes"]`); None for none.
      merge: whether linear maps without a neuron between them become one, which then reads spikes
        (`merging`): for hardware that only accumulates. A map of channels and a convolution of each
        channel by itself, as Meta-SpikeFormer has them, cost more FLOPs as one.
      reading: how files become what it reads, as plain values that JSON can hold, to be kept with
        the model (`about["reading"]`, see `data.inputs`); None for nothing.

    Returns:
      A `Deployed`.

    Raises:
      ValueError: for what is no model or no variables, variables or a schedule of another model, a
        dtype that cannot be used, weights that are not finite, another number of classes, or a
        model that computes with other layers than `layers` has.
    """
    check_model(model)
    family_of(model)  # that of a known family, or an error that says so
    params_of(variables)
    dtype = checked_dtype(model.config.dtype if dtype is None else dtype)
    variables, image_shape = _checked(model, variables)
    if recordings:
        image_shape = (model.config.time_steps, *image_shape)
    if schedule is not None:
        variables = with_schedule(variables, schedule)
    tracer = planning.trace(model, variables, image_shape)
    planning.check_all_noted(tracer, variables["params"])
    kernels, folded = fold_kernels(tracer)
    names = [node.path for node in tracer.nodes if node.operation == "neuron"]
    schedule = TimeStepSchedule.from_variables(variables, names)
    effects = planning.effects(tracer, schedule.masks, model.config.time_steps)
    merged = merge_chains(tracer, kernels, folded) if merge else unmerged(kernels)
    plan = effects.plan(folded, dtype, merged)
    weights, places = collect_weights(effects, merged.kernels, plan, dtype)
    about = _about(model, image_shape, dtype, plan.steps) | _about_classes(model, classes)
    about["merged"] = sorted(merged.away)
    if reading is not None:
        about["reading"] = reading
    return Deployed(Program(model, plan, places), weights, schedule, about)


def _about(model, image_shape, dtype, steps):
    config = {
        field.name: getattr(model.config, field.name) for field in dataclasses.fields(model.config)
    }
    return {
        "model": type(model).__name__,
        "family": family_of(model).name,
        "config": _as_plain(config),
        "image_shape": list(image_shape),
        "dtype": dtype.name,
        "steps": {name: list(active) for name, active in steps.items()},
        "jax": jax.__version__,
        "snnvit_jax": __version__,
    }


def _about_classes(model, classes):
    if classes is None:
        return {}
    if len(classes) != model.config.num_classes:
        raise ValueError(f"{len(classes)} classes for a model of {model.config.num_classes}")
    return {"classes": [str(name) for name in classes]}


def _checked(model, variables):
    """Variables as NumPy arrays, and the shape of an image, if they are this model's."""
    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    collections = jax.device_get(collections)
    channels = image_channels(model.config, collections["params"]) or 3
    image_shape = (*model.config.image_size, channels)
    check_time_steps_of(collections, model.config.time_steps)
    flat, expected = traverse_util.flatten_dict(collections), _shapes(model, image_shape)
    for path in sorted(expected.keys() | flat.keys()):
        want = expected.get(path, "absent")
        have = np.shape(flat[path]) if path in flat else "absent"
        if want != have:
            raise ValueError(
                f"the variables are not those of the model: the shape of {'/'.join(path)} is "
                f"{have}, in the model {want}"
            )
    check_finite(collections)
    arrays = {path: np.asarray(leaf) for path, leaf in flat.items()}
    return traverse_util.unflatten_dict(arrays), image_shape


@functools.lru_cache(64)  # tracing takes as long as all the rest
def _shapes(model, image_shape):
    shapes = variable_shapes(model, image_shape)
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes).items()}


def _as_plain(value):
    """A configuration as JSON can hold it."""
    if isinstance(value, Neuron):
        value = describe(value)
    elif dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_as_plain(item) for item in value]
    value = values.plain(value)
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else jnp.dtype(value).name
