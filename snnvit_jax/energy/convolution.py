"""How often a convolution uses each of its input pixels."""

import functools

import jax
import numpy as np

from snnvit_jax.layers import Conv


def coverage(module, sides):
    """Counts, for each input pixel, the windows that contain it; padding belongs to no pixel.

    Args:
      module: a `layers.Conv` or an `nn.Conv`.
      sides: of the input image, one for each spatial axis.

    Returns:
      (int32 array of shape `sides`, sides of the output image).

    Raises:
      ValueError: for padding by anything but zeros, or an input with holes.
    """
    n = len(sides)
    kernel, strides = per_axis(module.kernel_size, n), per_axis(module.strides, n)
    dilation = _dilation(module, n)
    pads = _pads(module.padding, sides, kernel, strides, dilation)
    lines, outputs = zip(
        *(
            _axis_coverage(*axis)
            for axis in zip(sides, kernel, strides, dilation, pads, strict=True)
        ),
        strict=True,
    )
    return functools.reduce(np.multiply.outer, lines).astype(np.int32), outputs


def kernel_sides(module):
    """Returns the sides of a convolution's kernel, one for each spatial axis.

    Args:
      module: a `layers.Conv` or an `nn.Conv`.
    """
    size = module.kernel_size
    return (size,) if isinstance(size, int) else tuple(size)


def groups(module):
    """Returns the number of groups of channels that a convolution keeps apart.

    Args:
      module: a `layers.Conv` or an `nn.Conv`.
    """
    return module.groups if isinstance(module, Conv) else module.feature_group_count


def _dilation(module, n):
    if isinstance(module, Conv):
        return per_axis(module.dilation, n)
    if any(d != 1 for d in per_axis(module.input_dilation, n)):
        raise ValueError(f"input_dilation={module.input_dilation} of a convolution is not counted")
    return per_axis(module.kernel_dilation, n)


def per_axis(value, count):
    """Returns a setting of a convolution, written as None, a number or a sequence, for each axis.

    Args:
      value: None stands for 1.
      count: number of axes.
    """
    value = 1 if value is None else value
    return (value,) * count if isinstance(value, int) else tuple(value)


def _pads(padding, sides, kernel, strides, dilation):
    """(before, after) for each axis."""
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(f"{padding=} of a convolution is not counted; use SAME or VALID")
        windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        return jax.lax.padtype_to_pads(sides, windows, strides, padding)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in per_axis(padding, len(sides))]


def _axis_coverage(side, kernel, stride, dilation, pads):
    low, high = pads
    outputs = (side + low + high - (kernel - 1) * dilation - 1) // stride + 1
    taps = np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation - low
    return np.bincount(taps[(taps >= 0) & (taps < side)], minlength=side), outputs
