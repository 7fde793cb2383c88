"""Weights of a PyTorch checkpoint file: which of those that it holds, and under what names."""

import warnings

import ml_dtypes
import numpy as np

from snnvit_jax.weights.names import unwrap
from snnvit_jax.weights.torch_archive import StandIn, read_content

# Where training scripts keep the weights in what they save. The first found is taken: trained ones
# before their averages over past steps.
TRAINED_KEYS = ("state_dict", "model", "model_state_dict", "net", "module", "params", "weights")
AVERAGED_KEYS = (
    *("state_dict_ema", "model_ema", "model_state_dict_ema", "model_ema_state_dict"),
    *("ema_state_dict", "ema_model", "ema", "params_ema", "averaged_model", "swa_state_dict"),
)
_KEYS = TRAINED_KEYS + AVERAGED_KEYS


def read_state_dict(path, key=None):
    """Returns the weights in a PyTorch checkpoint.

    Args:
      path: file written by `torch.save`: a state dict, or a dictionary that holds some.
      key: under which the weights are, for example "state_dict_ema". None takes the first of
        `TRAINED_KEYS` and `AVERAGED_KEYS` that holds weights, hence trained weights before their
        averages; a warning says which, if there are others.

    Returns:
      {name: array}, floating-point ones as float32, names without those of wrappers
      (`names.unwrap`).

    Raises:
      OSError: if there is no such file, or it cannot be read.
      ValueError: if the file is no such checkpoint, is damaged, holds no weights (there), or has
        two tensors of one name.
    """
    content = read_content(path)
    arrays = _select(content, key, str(path))
    return {name: _as_float32(array) for name, array in unwrap(arrays).items()}


def _select(content, key, path):
    """The {name: array} to take from what a file holds."""
    items = content.items() if isinstance(content, dict) else ()
    found = {str(name): _arrays(value) for name, value in items}
    found = {name: arrays for name, arrays in found.items() if arrays}
    known = [name for name in _KEYS if name in found]
    if key is None and not known and _arrays(content):
        return _arrays(content)
    taken = key if key is not None else next(iter(known), None)
    if taken not in found:
        raise ValueError(_nothing(content, path, key, [*found]))
    if key is None and len(known) > 1:
        warnings.warn(
            f"{path!r} holds weights under {known}; those of {taken!r} are taken "
            f"(others: read_state_dict(path, key={known[1]!r}) or init_from={path}#{known[1]})",
            stacklevel=3,
        )
    return found[taken]


def _arrays(value):
    """The tensors in a dictionary, by name; those of the buffers and sub-modules stay out."""
    if not isinstance(value, dict):
        return {}
    return {name: array for name, array in value.items() if isinstance(array, np.ndarray)}


def _nothing(content, path, key, found):
    """Says that there are no weights to take, and why."""
    if found:
        return f"{path!r} holds no weights under {key!r}; choose a key of {found}"
    items = content.items() if isinstance(content, dict) else ()
    objects = [str(name) for name, value in items if isinstance(value, StandIn) and name in _KEYS]
    if objects or isinstance(content, StandIn):
        where = f" under {objects[0]!r}" if objects else ""
        return f"{path!r} holds no weights, but a whole module{where}; save its state_dict()"
    return f"{path!r} holds no weights; expected a state dict, or one under a key of {_KEYS}"


def _as_float32(array):
    is_float = array.dtype == ml_dtypes.bfloat16 or np.issubdtype(array.dtype, np.floating)
    if not is_float:
        return array
    with np.errstate(over="ignore"):  # becomes infinite, which whoever takes it refuses by name
        return array.astype(np.float32)
