"""The operations of one layer: what its shapes say beforehand, and its input units as they come.

An input unit is a spike, or one of the n units of an integer n. Signals are [B, T, ...], or
without time ([B, features] for a matrix product) after it was averaged.
"""

import functools

import flax.linen as nn
import jax
import numpy as np

from snnvit_jax.energy import convolution
from snnvit_jax.energy.layer_operations import OPERATIONS
from snnvit_jax.layers import Conv, Head, Product
from snnvit_jax.signals import Signal


def is_counted(module):
    """Returns whether a module is a layer that `input_units` and `layer_shape` know.

    Args:
      module: a bound module of any type.

    Raises:
      ValueError: for a product of signals that is not known, and would cost nothing.
    """
    if isinstance(module, Product) and type(module) not in OPERATIONS:
        raise ValueError(
            f"{_name(module)}: the operations of a {type(module).__name__} are not counted; tell "
            "energy.operations.register_operation how"
        )
    return type(module) in OPERATIONS


def register_operation(layer, operation):
    """Adds a type of layer whose operations are counted from then on, or replaces its operation.

    Programs that are compiled already count what was known before, so all are forgotten.

    Args:
      layer: Linen module class.
      operation: class with `operands` (names of its arguments) and static methods `units(module,
        **operands)`, int32 [B, T], and `shape(module, **operands)`, a `LayerShape`.

    Returns:
      The operation.
    """
    OPERATIONS[layer] = operation
    jax.clear_caches()
    return operation


def named_operands(module, args):
    """Returns {operand name: signal [B, T, ...]}, a signal without time as one step.

    Args:
      module: a bound module of a type in `OPERATIONS`.
      args: that it is called with.

    Raises:
      ValueError: for arguments that do not fit the layer type.
    """
    names = OPERATIONS[type(module)].operands
    if len(args) != len(names):
        raise ValueError(f"{_name(module)}: expected {len(names)} arguments, got {len(args)}")
    arrays = [_array(module, x) for x in args]
    arrays = [x if has_time(module, x) else x[:, None] for x in arrays]
    return dict(zip(names, arrays, strict=True))


def _array(module, x):
    """The values that a layer multiplies: of a signal, or for most heads its mean."""
    if not isinstance(x, Signal):
        return x
    return module.features(x) if reads_mean(module, x) else x.values


def reads_mean(module, x):
    """Returns whether a layer multiplies the mean of a signal over time, which is no spikes.

    Args:
      module: a bound module of a type in `OPERATIONS`.
      x: `Signal` that it is called with.
    """
    return isinstance(module, Head) and not module.reads_steps(x)


def input_units(module, operands):
    """Counts a layer's input units, each as often as it reaches an output of a single channel.

    Args:
      module: a bound module of a type in `OPERATIONS`.
      operands: from `named_operands`, whole numbers >= 0.

    Returns:
      int32 [B, T].
    """
    return OPERATIONS[type(module)].units(module, **operands)


def layer_shape(module, operands):
    """Returns a layer's `LayerShape`, with `repeats` still 1.

    Args:
      module: a bound module of a type in `OPERATIONS`.
      operands: from `named_operands`; only their shapes matter.

    Raises:
      ValueError: for a convolution with a kind of padding or dilation that is not counted.
    """
    return OPERATIONS[type(module)].shape(module, **operands)


def accumulates_by_rate(shape, units):
    """Estimates accumulates by the published formulas: firing rate x operations of the layer.

    r k² C_in C_out H W for a convolution, r C_in C_out N for a matrix product, and
    h N d² (min(r_k, r_v) + r_q) for attention, with mean rates r of the operands (Zhou et al.,
    ICLR 2023, arXiv 2209.15425).

    Args:
      shape: the layer's `LayerShape`.
      units: {operand name: mean sum of its values at each time step [T]}.

    Returns:
      [T], of one example.
    """
    if set(units) == {"q", "k", "v"}:
        sums = np.minimum(units["k"], units["v"]) + units["q"]
    else:  # of a product of two, the sparser operand; either may be repeated for the other's size
        sizes = {name: n for name, n in shape.operands.items() if name not in shape.added}
        rates = (units[name] / n for name, n in sizes.items())
        sums = max(sizes.values()) * functools.reduce(np.minimum, rates)
    return sums * shape.fan_out_by_rate


def has_time(module, x):
    """Returns whether a layer's input has a time axis: [B, T, ...].

    Args:
      module: a bound module of a type in `OPERATIONS`.
      x: one of the arguments it is called with.

    Raises:
      ValueError: for an input of too few or too many axes.
    """
    rank = _spatial_rank(module) + 1
    if x.ndim < rank + 1 or (rank > 1 and x.ndim > rank + 2):
        raise ValueError(
            f"{_name(module)}: needs an input [B, T, ...] to be counted, got {x.shape}"
        )
    return x.ndim > rank + 1


def _spatial_rank(module):
    return len(convolution.kernel_sides(module)) if isinstance(module, (nn.Conv, Conv)) else 0


def _name(module):
    return "/".join(module.path)
