"""What no network can compute with: weights that are not finite, negative variances and rates.

A spike function swallows a NaN, so that the logits stay finite and only the accuracy tells. Hence
every place that takes weights asks here first.
"""

import collections.abc

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from snnvit_jax.common.values import shown

# What no value may be below zero of: end of a name -> what to call it.
_NOT_NEGATIVE = {"var": "variance", "running_var": "variance"}
RATES = "firing_rate"  # how the names of running firing rates begin, which may not be either


def check_variables(variables, where="the variables"):
    """Raises ValueError for what cannot be the variables of a model: no mapping of arrays.

    Args:
      variables: to be {"params", "batch_stats"} of a model, or another mapping.
      where: what to call them in the error.
    """
    if not isinstance(variables, collections.abc.Mapping):
        raise ValueError(
            f"{where} must be a mapping of arrays, got {type(variables).__name__}; those of "
            "model = snn.create_model(...) are what model.init(jax.random.key(0), images) returns, "
            "or a training or a file of weights"
        )


def params_of(variables, where="the variables"):
    """Returns the parameters among the variables of a model.

    Args:
      variables: to be {"params": ..., ...}.
      where: what to call them in the error.

    Raises:
      ValueError: for what is no mapping, or one without "params", as parameters alone are.
    """
    check_variables(variables, where)
    if "params" not in variables:
        raise ValueError(
            f'{where} must be {{"params": ..., "batch_stats": ...}} of a model, got a mapping of '
            f'{shown(list(variables))}; of parameters alone, give {{"params": ...}}'
        )
    return variables["params"]


def check_finite(variables, where="the variables"):
    """Raises ValueError naming the first tensor with a NaN, an infinity or a negative variance.

    A firing rate may not be negative either. What is no mapping is refused too.

    Args:
      variables: a tree of arrays in any floating-point type, such as {"params", "batch_stats"} of a
        model, or {name: array} of a state dict; others than floating-point numbers always pass.
      where: what to call them all in the error.
    """
    check_variables(variables, where)
    for name, leaf in traverse_util.flatten_dict(dict(variables), sep="/").items():
        found = problem(leaf, name)
        if found:
            raise ValueError(
                f"{where} cannot be used: {name!r} holds {found}; take an earlier checkpoint, or "
                "copy the file again"
            )


def check_floating(tensors, where="the weights"):
    """Raises ValueError naming the first tensor that does not hold floating-point numbers.

    Whole numbers are those of a quantised network, whose scales are elsewhere; of complex numbers
    a conversion would keep the real part.

    Args:
      tensors: {name: array}.
      where: what to call them all in the error.
    """
    for name, array in tensors.items():
        kind = np.dtype(array.dtype)
        if not jnp.issubdtype(kind, np.floating):
            raise ValueError(
                f"{where} cannot be used: {name!r} holds {kind.name} numbers, no floating-point "
                "ones; convert a quantised network back first"
            )


def unflatten(tensors, where="the weights"):
    """Returns nested dictionaries of tensors whose names are paths, such as "params/head/bias".

    Args:
      tensors: {name: array}.
      where: what to call them all in an error.

    Raises:
      ValueError: naming a tensor whose name is also the beginning of another one's.
    """
    for name in tensors:
        parts = name.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in tensors:
                raise ValueError(
                    f"{where} cannot be used: {'/'.join(parts[:end])!r} is a tensor, and so is "
                    f"{name!r} within it"
                )
    return traverse_util.unflatten_dict(tensors, sep="/")


def problem(leaf, name=""):
    """Returns what is wrong with a tensor, in words, or None.

    Args:
      leaf: array; other numbers than floating-point ones are always right.
      name: its end says whether it may be negative.
    """
    array = np.asarray(jax.device_get(leaf))
    if not jnp.issubdtype(array.dtype, np.floating):  # of ml_dtypes, too
        return None
    finite = np.isfinite(array)
    if not finite.all():
        place = tuple(map(int, np.argwhere(~finite)[0]))
        return f"{np.count_nonzero(~finite)} values that are not finite, {array[place]} at {place}"
    end = name.replace("/", ".").rpartition(".")[2]
    known = "rate" if end.startswith(RATES) else _NOT_NEGATIVE.get(end)
    if known and (array < 0).any():
        return f"a negative {known}, {array.min()}"
    return None
