"""Weights to start a training from: of another run, a safetensors file or a PyTorch checkpoint."""

import pathlib

import jax.numpy as jnp
import safetensors.numpy
from flax import traverse_util

from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.time_steps import masks
from snnvit_jax.weights import convert, torch_file

HEAD = "head"
_TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin")


def load(path, model, initial):
    """Returns variables for a model from weights that may be of another task.

    The head is replaced by the initial one if it is for other classes, and scores start with every
    step active if they are for another number of time steps or missing. Everything else must fit.
    (The image size may differ: Spikformer's position embedding is a convolution.)

    Args:
      path: a run's folder, a .safetensors file, or a PyTorch checkpoint of the authors' classes.
      model: from `create_model`.
      initial: {"params", "batch_stats"}, the model's initial variables.

    Returns:
      {"params", "batch_stats"}, float32.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if it holds no weights, or naming every one that is missing, unexpected or of
        another shape.
    """
    check_exists(path)
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return fit(_from_workdir(path), initial)
    if path.suffix == ".safetensors":
        return _from_names(_read_safetensors(path), model, initial)
    if path.suffix in _TORCH_SUFFIXES:
        return _from_names(torch_file.read_state_dict(path), model, initial)
    raise ValueError(
        f"init_from={str(path)!r} must be a run's folder, a .safetensors file or a PyTorch "
        f"checkpoint ({', '.join(_TORCH_SUFFIXES)})"
    )


def check_exists(path):
    """Raises FileNotFoundError if there is nothing to start from.

    Args:
      path: see `load`; None is fine.
    """
    if path is not None and not pathlib.Path(path).expanduser().exists():
        raise FileNotFoundError(
            f"init_from={str(path)!r} does not exist; give a run's folder, a .safetensors file or "
            "a PyTorch checkpoint, for example --config.init_from=runs/cifar10/20260101-120000"
        )


def fit(variables, initial):
    """Returns variables with the head and scores of `initial` where theirs do not fit.

    Args:
      variables: {"params", "batch_stats"} of a model.
      initial: the same of the model wanted.

    Raises:
      ValueError: naming every variable that is missing, unexpected or of another shape.
    """
    given, wanted = (traverse_util.flatten_dict(dict(v), sep="/") for v in (variables, initial))
    for name, leaf in wanted.items():
        if _is_replaceable(name) and (name not in given or given[name].shape != leaf.shape):
            given[name] = leaf
    missing, unexpected = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unexpected:
        raise ValueError(f"the weights are for another model: {missing=}, {unexpected=}")
    wrong = [
        f"{name} is {given[name].shape}, not {leaf.shape}"
        for name, leaf in wanted.items()
        if given[name].shape != leaf.shape
    ]
    if wrong:
        raise ValueError(f"weights of another shape: {'; '.join(wrong)}")
    return traverse_util.unflatten_dict(
        {name: jnp.asarray(given[name], leaf.dtype) for name, leaf in wanted.items()}, sep="/"
    )


def save(path, variables):
    """Writes variables as safetensors, named by their paths ("params/head/kernel").

    Args:
      path: file to write.
      variables: {"params", "batch_stats"} on the host.
    """
    safetensors.numpy.save_file(traverse_util.flatten_dict(variables, sep="/"), path)


def _is_replaceable(name):
    return name.endswith("/" + masks.SCORE) or name.startswith(f"params/{HEAD}/")


def _from_workdir(path):
    if not Workdir(path).config.exists():
        raise ValueError(f"init_from={str(path)!r} holds no run")
    return load_variables(Workdir(path).checkpoints)


def _read_safetensors(path):
    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:  # the library's own error class is not an OSError or ValueError
        raise ValueError(f"init_from={str(path)!r} is not a safetensors file: {error}") from error


def _from_names(tensors, model, initial):
    """Variables from a flat dictionary in this library's or in the authors' names."""
    if any(name.startswith("params/") for name in tensors):
        return fit(traverse_util.unflatten_dict(tensors, sep="/"), initial)
    return fit(convert.from_torch(model, _with_head_of(tensors, initial)), initial)


def _with_head_of(tensors, initial):
    """Replaces a head for other classes, in PyTorch's layout."""
    head, bias = initial["params"][HEAD], tensors.get(f"{HEAD}.bias")
    if bias is not None and bias.shape == head["bias"].shape:
        return tensors
    return tensors | {f"{HEAD}.weight": head["kernel"].T, f"{HEAD}.bias": head["bias"]}
