"""Weights from the published PyTorch repositories."""

import collections.abc
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common.variables import check_finite, check_floating
from snnvit_jax.models import check_model, family_of, variable_shapes
from snnvit_jax.time_steps import masks
from snnvit_jax.weights.fitting import learned_constants, warn_of_constants
from snnvit_jax.weights.names import unwrap

_LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "tau_logit": "w",  # of SpikingJelly's ParametricLIFNode: tau = 1 / sigmoid(w) there, too
}


def from_torch(model, state_dict):
    """Returns a model's variables from the state dict of its published PyTorch class.

    Every time step starts active: published weights have no scores. Where neurons learn constants
    ("plif" its time constant) and the weights hold none, a warning says so, and they start at the
    model's own values. What else is to be known of such weights (`Family.note`) is a warning too.

    Args:
      model: from `create_model`, with the sizes of the state dict.
      state_dict: {name: array}, in PyTorch's layouts and the authors' names; what wrappers put
        before them is dropped (`names.unwrap`). Parameters that the authors' class constructs but
        never uses, and BatchNorm's counters, are ignored.

    Returns:
      {"params", "batch_stats"}, float32.

    Raises:
      ValueError: for what is no model or no state dict; naming every tensor that is missing,
        unexpected or of another shape, two that have the same name, or one that holds no
        floating-point numbers, or that is not finite in float32.
    """
    check_model(model)
    if not isinstance(state_dict, collections.abc.Mapping):
        raise ValueError(
            f"state_dict must be {{name: array}}, got {type(state_dict).__name__}; of a file it is "
            "what snnvit_jax.weights.torch_file.read_state_dict(PATH) returns"
        )
    state_dict = unwrap(state_dict)
    image_shape = (*model.config.image_size, _image_channels(model, state_dict))
    template = _template(model, image_shape)
    names = {p: torch_name(model, p) for p in template if p[-1] != masks.SCORE}
    lacking = _constants_to_start(names, state_dict, template)
    given = {path: name for path, name in names.items() if path not in lacking}
    _check_names(model, set(given.values()), set(state_dict))
    family_of(model).check_weights(model, {name: np.shape(w) for name, w in state_dict.items()})
    found = _converted(state_dict, given, template) | _start_values(model, image_shape, lacking)
    scores = {p: masks.initial_scores(x.size) for p, x in template.items() if p[-1] == masks.SCORE}
    found |= scores
    if note := family_of(model).note(model):
        warnings.warn(note, stacklevel=2)
    return traverse_util.unflatten_dict({path: jnp.asarray(found[path]) for path in template})


@functools.lru_cache(maxsize=16)  # tracing takes longer than all the rest
def _template(model, image_shape):
    """{path: shape and type} of the model's variables."""
    return traverse_util.flatten_dict(variable_shapes(model, image_shape))


def _converted(state_dict, names, template):
    """{path: array} in this library's layout and type, checked."""
    arrays = {p: _convert(np.asarray(state_dict[n]), template[p].ndim) for p, n in names.items()}
    _check_shapes({names[p]: (array.shape, template[p].shape) for p, array in arrays.items()})
    check_floating({names[path]: array for path, array in arrays.items()})
    with np.errstate(over="ignore"):  # becomes infinite, which is refused by name
        arrays = {path: array.astype(template[path].dtype) for path, array in arrays.items()}
    check_finite({names[path]: array for path, array in arrays.items()}, "the weights")
    return arrays


def _constants_to_start(names, state_dict, template):
    """{path: name} of the neurons' learned constants, if the weights hold none at all of them."""
    constants = {path: names[path] for path in learned_constants(template)}
    return {} if any(name in state_dict for name in constants.values()) else constants


def _start_values(model, image_shape, names):
    """{path: the model's initial value} of learned constants that the weights do not hold."""
    if not names:
        return {}
    warn_of_constants(list(names.values()))
    return _initial_leaves(model, image_shape, tuple(names))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))  # compiles what these leaves need, no more
def _initial_leaves(model, image_shape, paths):
    images = jnp.zeros((1, *image_shape))
    variables = traverse_util.flatten_dict(model.init(jax.random.key(0), images))
    return {path: variables[path] for path in paths}


def torch_name(model, path):
    """Returns the published name of a variable, for example "block.0.attn.q_linear.weight".

    Args:
      model: from `create_model`.
      path: its path, collection first: ("params", "block_0", "attn", "q_linear", "kernel").
    """
    *modules, leaf = path[1:]
    return f"{family_of(model).torch_name(tuple(modules))}.{_LEAF_NAMES.get(leaf, leaf)}"


def _image_channels(model, state_dict):
    """Channels of the first convolution; 3 if it is missing, which is reported later."""
    path = ("params", *model.config.input_layer.split("/"), "kernel")
    weight = state_dict.get(torch_name(model, path))
    return 3 if weight is None or np.ndim(weight) != 4 else np.shape(weight)[1]


def _check_names(model, expected, given):
    counters = {name.replace("running_mean", "num_batches_tracked") for name in expected}
    ignored = family_of(model).unused(model) | counters
    missing, unexpected = sorted(expected - given), sorted(given - expected - ignored)
    if missing or unexpected:
        whys = family_of(model).refused
        parts = sorted({name.split(".")[0] for name in unexpected} & whys.keys())
        why = "".join(f"; {part!r} is {whys[part]}" for part in parts)
        raise ValueError(f"the weights are for another model: {missing=}, {unexpected=}{why}")


def _check_shapes(shapes):
    wrong = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    if wrong:
        listed = "; ".join(f"{name!r} is {got}, not {want}" for name, (got, want) in wrong.items())
        raise ValueError(
            f"tensors of another shape (channels last): {listed}; "
            "was the model created with other sizes?"
        )


def _convert(array, ndim):
    """One tensor in this library's layout: convolutions HWIO, linear maps [in, out]."""
    if ndim == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if ndim == 1 and array.ndim == 5 and array.size == array.shape[2]:  # one number for each head
        return array.reshape(-1)
    if ndim == 2 and set(array.shape[2:]) <= {1}:  # a linear map, or a convolution of one pixel
        return array.reshape(array.shape[:2]).T
    return array
