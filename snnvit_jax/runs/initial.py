"""Weights to start a training from: of another run, a trained network, or a file of weights."""

import contextlib
import json
import pathlib

import numpy as np
from flax import traverse_util

from snnvit_jax import pretrained
from snnvit_jax.checkpoints.checkpoints import load_variables
from snnvit_jax.common import files, tensors
from snnvit_jax.common.paths import expanded
from snnvit_jax.common.variables import check_finite, params_of, unflatten
from snnvit_jax.models import create_model, family_of
from snnvit_jax.runs.config import family_settings
from snnvit_jax.runs.workdir import Workdir
from snnvit_jax.weights import convert, torch_file
from snnvit_jax.weights.fitting import fit, head_of
from snnvit_jax.weights.names import unwrap

_TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin")


def load(path, model, initial):
    """Returns variables for a model from weights that may be of another task.

    Head, scores and time constants may be for another task, see `fitting.fit`; everything else must
    fit. (The image size may differ: a position embedding that is a convolution fits any.)

    Args:
      path: a run's folder, "pretrained:NAME" or the folder of such a network, a .safetensors file,
        or a PyTorch checkpoint of the authors' classes; of a checkpoint that holds several,
        "PATH#KEY" takes those under a key ("x.pth#state_dict_ema"), see
        `torch_file.read_state_dict`.
      model: from `create_model`.
      initial: {"params", "batch_stats"}, the model's initial variables.

    Returns:
      {"params", "batch_stats"}, float32.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: naming the path; if it holds no weights, they are for another form of the family,
        or naming the first that are missing, unexpected or of another shape, or one that is not
        finite.
    """
    check_source(path)
    with _named(path):
        loaded = _load(path, model, initial)
    check_finite(loaded, f"init_from={str(path)!r}")
    return loaded


def network_at(path):
    """Returns the folder of the trained network that a path names; None if it names another thing.

    Args:
      path: see `load`; only a text can be a name.

    Returns:
      An absolute path.

    Raises:
      ValueError: for an unknown name.
    """
    if isinstance(path, str) and path.startswith(pretrained.PREFIX):
        return pretrained.find(path)
    folder = expanded(path).absolute()
    return folder if pretrained.is_network(folder) else None


@contextlib.contextmanager
def _named(path):
    """Puts in front of what is wrong with weights where they are from, if it is not said yet."""
    try:
        yield
    except ValueError as error:
        if repr(str(path)) in str(error):
            raise
        raise ValueError(f"init_from={str(path)!r}: {error}") from error


def _load(path, model, initial):
    network = network_at(path)
    if network is not None:
        loaded = pretrained.load_pretrained(network)
        what = f"network of {loaded.about['model']['name']!r}"
        _check_bound(path, what, loaded.model, model)
        return fit(loaded.variables, initial, family_of(model).head)
    path, key = _file_and_key(path)
    if path.is_dir():
        return fit(_from_workdir(path, model), initial, family_of(model).head)
    if path.suffix == ".safetensors":
        return _from_names(
            tensors.unpack(path.read_bytes(), f"init_from={str(path)!r}"), model, initial
        )
    return _from_names(torch_file.read_state_dict(path, key), model, initial)


def _check_kind(path, key):
    """Raises ValueError for what is neither a run's folder nor a file of a known kind."""
    is_torch = path.suffix in _TORCH_SUFFIXES and not path.is_dir()
    if key is not None and not is_torch:
        raise ValueError(f"init_from='{path}#{key}': only PyTorch checkpoints have keys")
    if path.is_dir() and Workdir(path).read_config() is None:
        raise ValueError(f"init_from={str(path)!r} holds no run")
    if not (is_torch or path.is_dir() or path.suffix == ".safetensors"):
        raise ValueError(
            f"init_from={str(path)!r} must be a run's folder, a .safetensors file or a PyTorch "
            f"checkpoint ({', '.join(_TORCH_SUFFIXES)})"
        )


def _file_and_key(path):
    """(path, key or None) of "PATH" or "PATH#KEY"; a file of the whole name comes first."""
    whole = expanded(path)
    file, sign, key = str(whole).rpartition("#")
    return (whole, None) if whole.exists() or not sign else (pathlib.Path(file), key)


def check_source(path):
    """Raises what can be told of weights to start from before they are read.

    Args:
      path: see `load`; None is fine.

    Raises:
      FileNotFoundError: if there is nothing.
      ValueError: for an unknown name, a file of another kind or a folder that holds no run.
    """
    if path is None or network_at(path):
        return
    file, key = _file_and_key(path)
    if not file.exists():
        raise FileNotFoundError(
            f"init_from={str(path)!r} does not exist; give a run's folder, a .safetensors file, a "
            "PyTorch checkpoint or pretrained:NAME, for example "
            "--config.init_from=runs/cifar10/20260101-120000"
        )
    _check_kind(file, key)


def save(path, variables, class_names=None):
    """Writes variables as safetensors, named by their paths ("params/head/kernel").

    Args:
      path: file to write.
      variables: {"params", "batch_stats"} on the host.
      class_names: of the classes that they are for, in order; None leaves them out.

    Raises:
      ValueError: for what are no variables.
    """
    params_of(variables)
    flat = traverse_util.flatten_dict(variables, sep="/")
    about = None if class_names is None else {"classes": json.dumps(list(class_names))}
    files.write_bytes(path, tensors.pack(flat, about))


def _from_workdir(path, model):
    config = Workdir(path).read_config()
    settings = family_settings(config.model)
    name, time_steps = settings.pop("name"), settings.pop("time_steps")
    trained = create_model(name, 2, config.data.image_size, time_steps, **settings)
    _check_bound(path, f"run of {name!r}", trained, model)
    return load_variables(Workdir(path).checkpoints)


def _check_bound(path, what, trained, model):
    """Raises ValueError for weights that are for another form of the family, which shapes hide."""
    family = family_of(model)
    if family_of(trained) is not family:
        return  # other names, which `fit` refuses
    for key in family.bound:
        old, new = getattr(trained.config, key), getattr(model.config, key)
        if old != new:
            raise ValueError(
                f"init_from={str(path)!r} is a {what} with {key}={old}: its weights are not for "
                f"{key}={new}, although their shapes may fit"
            )


def _from_names(tensors, model, initial):
    """Variables from a flat dictionary in this library's or in the authors' names."""
    head = family_of(model).head
    if any(name.startswith("params/") for name in tensors):
        return fit(unflatten(tensors), initial, head)
    tensors = unwrap(tensors)
    tensors = _with_head_of(tensors, initial, model)
    return fit(convert.from_torch(model, tensors), initial, head)


def _with_head_of(tensors, initial, model):
    """Replaces a head for other classes, in PyTorch's layout."""
    name = family_of(model).head
    head = head_of(initial["params"], name)
    leaves = {**head, "kernel": head["kernel"].T}
    new = {convert.torch_name(model, ("params", name, leaf)): x for leaf, x in leaves.items()}
    fits = all(n in tensors and np.shape(tensors[n]) == x.shape for n, x in new.items())
    return tensors if fits else tensors | new
