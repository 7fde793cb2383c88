"""Weights from the published PyTorch repositories."""

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.models import family_of, variable_shapes
from snnvit_jax.time_steps import masks

_LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def from_torch(model, state_dict):
    """Returns a model's variables from the state dict of its published PyTorch class.

    Every time step starts active: published weights have no scores.

    Args:
      model: from `create_model`, with the sizes of the state dict.
      state_dict: {name: array}, in PyTorch's layouts and the authors' names. Parameters that the
        authors' class constructs but never uses, and BatchNorm's counters, are ignored.

    Returns:
      {"params", "batch_stats"}, float32.

    Raises:
      ValueError: naming every tensor that is missing, unexpected or of another shape.
    """
    image_shape = (*model.config.image_size, _image_channels(state_dict))
    shapes = variable_shapes(model, image_shape)
    template = traverse_util.flatten_dict(shapes)
    names = {p: torch_name(model, p) for p in template if p[-1] != masks.SCORE}
    _check_names(model, set(names.values()), set(state_dict))

    converted = {p: _convert(np.asarray(state_dict[names[p]]), template[p].ndim) for p in names}
    _check_shapes({names[p]: (array.shape, template[p].shape) for p, array in converted.items()})
    return traverse_util.unflatten_dict(
        {
            path: jnp.asarray(converted[path], leaf.dtype)
            if path in converted
            else masks.initial_scores(leaf.size)
            for path, leaf in template.items()
        }
    )


def torch_name(model, path):
    """Returns the published name of a variable, for example "block.0.attn.q_linear.weight".

    Args:
      model: from `create_model`.
      path: its path, collection first: ("params", "block_0", "attn", "q_linear", "kernel").
    """
    *modules, leaf = path[1:]
    return f"{family_of(model).torch_name(tuple(modules))}.{_LEAF_NAMES[leaf]}"


def _image_channels(state_dict):
    """Channels of the first convolution; 3 if it is missing, which is reported later."""
    weight = state_dict.get("patch_embed.proj_conv.weight")
    return 3 if weight is None or np.ndim(weight) != 4 else np.shape(weight)[1]


def _check_names(model, expected, given):
    counters = {name.replace("running_mean", "num_batches_tracked") for name in expected}
    ignored = family_of(model).unused(model) | counters
    missing, unexpected = sorted(expected - given), sorted(given - expected - ignored)
    if missing or unexpected:
        raise ValueError(f"the weights are for another model: {missing=}, {unexpected=}")


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
    if ndim == 2 and set(array.shape[2:]) <= {1}:  # a linear map, or a convolution of one pixel
        return array.reshape(array.shape[:2]).T
    return array
