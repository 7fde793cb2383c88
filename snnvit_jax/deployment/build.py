"""From a trained model to a deployed one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.deployment import spikformer
from snnvit_jax.deployment.deployed import Deployed, check_dtype
from snnvit_jax.deployment.folding import fold_layer
from snnvit_jax.deployment.steps import effective_steps
from snnvit_jax.models import variable_shapes
from snnvit_jax.models.spikformer import Spikformer
from snnvit_jax.time_steps.schedule import (
    TimeStepSchedule,
    check_time_steps_of,
    with_schedule,
)
from snnvit_jax.variables import check_finite
from snnvit_jax.version import __version__

# module -> (how its LIF layers are wired, the program of its forward pass)
PROGRAMS = {Spikformer: (spikformer.wiring, spikformer.Program)}


def deploy(model, variables, schedule=None, dtype=None):
    """Compiles a finished model's time steps away.

    The result is a function of images that equals the masked model to rounding. Normalisations are
    folded into the linear maps before them; a layer is computed at the steps at which its spikes
    have an effect (`steps.effective_steps`), and a layer without any is left out.

    Args:
      model: from `create_model`.
      variables: {"params", "batch_stats"} of the model.
      schedule: a `TimeStepSchedule`; None takes the masks that the model has learned.
      dtype: of spikes and kernels, for example "bfloat16"; None takes the model's. Currents,
        membrane potentials and the head have at least float32.

    Returns:
      A `Deployed`.

    Raises:
      ValueError: for a model of a family or with neurons that cannot be deployed, variables or a
        schedule of another model, a dtype that cannot be used, or weights that are not finite.
    """
    if type(model) not in PROGRAMS:
        known = ", ".join(module.__name__ for module in PROGRAMS)
        raise ValueError(f"cannot deploy a {type(model).__name__}; only: {known}")
    if model.config.neuron.kind == "relu":
        raise ValueError("cannot deploy neuron kind 'relu': it has no time steps to leave out")
    wire, program = PROGRAMS[type(model)]
    wirings, outputs = wire(model.config)
    dtype = jnp.dtype(model.config.dtype if dtype is None else dtype)
    check_dtype(dtype)
    flat, channels = _checked(model, variables, next(iter(wirings.values())).linear)
    if schedule is not None:
        variables = with_schedule(variables, schedule)
    schedule = TimeStepSchedule.from_variables(variables, list(wirings))
    folded = {n: fold_layer(flat, w.linear, w.norm) for n, w in wirings.items() if w.linear}
    biases = {name: folded[name][1] if name in folded else np.zeros(1) for name in wirings}
    steps = effective_steps(schedule.masks, wirings, outputs, biases, model.config.neuron)
    weights = _weights(flat, {n: wirings[n] for n in wirings if steps[n]}, folded, dtype)
    about = _about(model, channels, dtype, steps)
    return Deployed(program(model.config, wirings, steps, dtype), weights, schedule, about)


def _about(model, channels, dtype, steps):
    return {
        "model": type(model).__name__,
        "config": _as_plain(dataclasses.asdict(model.config)),
        "image_shape": [*model.config.image_size, channels],
        "dtype": dtype.name,
        "steps": {name: list(active) for name, active in steps.items()},
        "jax": jax.__version__,
        "snnvit_jax": __version__,
    }


def _checked(model, variables, first_linear):
    """Variables as {path: NumPy array}, and the images' channels, if they are this model's."""
    collections = {name: variables.get(name, {}) for name in ("params", "batch_stats")}
    flat = traverse_util.flatten_dict(jax.device_get(collections))
    kernel = flat.get(("params", *first_linear.split("/"), "kernel"))
    channels = 3 if kernel is None else kernel.shape[-2]
    check_time_steps_of(collections, model.config.time_steps)
    expected = _shapes(model, channels)
    for path in sorted(expected.keys() | flat.keys()):
        want = expected.get(path, "absent")
        have = np.shape(flat[path]) if path in flat else "absent"
        if want != have:
            raise ValueError(
                f"the variables are not those of the model: the shape of {'/'.join(path)} is "
                f"{have}, in the model {want}"
            )
    check_finite(collections)
    return {path: np.asarray(leaf) for path, leaf in flat.items()}, channels


@functools.cache  # tracing takes as long as all the rest
def _shapes(model, channels):
    shapes = variable_shapes(model, (*model.config.image_size, channels))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes).items()}


def _weights(flat, wirings, folded, dtype):
    """Weights of the layers that are left, {"module/name": array}."""
    wide = jnp.promote_types(dtype, jnp.float32)
    weights = {f"head/{name}": (flat["params", "head", name], wide) for name in ("kernel", "bias")}
    for name, wiring in wirings.items():
        if name in folded:
            kernel, bias = folded[name]
            weights |= {f"{wiring.linear}/kernel": (kernel, dtype)}
            weights |= {f"{wiring.linear}/bias": (bias, wide)}
        logit = flat.get(("params", *name.split("/"), "tau_logit"))
        if logit is not None:
            weights[f"{name}/tau"] = (1 + jnp.exp(-logit), wide)
    return {name: jnp.asarray(array, kind) for name, (array, kind) in weights.items()}


def _as_plain(value):
    """A configuration as JSON can hold it."""
    if isinstance(value, dict):
        return {key: _as_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_as_plain(item) for item in value]
    plain = value is None or isinstance(value, (bool, int, float, str))
    return value if plain else jnp.dtype(value).name
