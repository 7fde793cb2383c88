"""Pooling: the mean over space, and a maximum with a gradient that every backend computes quickly.

XLA's own gradient of a maximum over windows is a serial scatter on CPU. Here a window of 3x3 is
three pixels of a row and then three rows: the forward pass is two maxima of three, and the backward
pass sends the gradient to one of three pixels, twice, by vectorised selections.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from snnvit_jax.xla import kernels


def mean_over_space(x):
    """Returns the mean over all places, [B, C], typed like the images.

    Args:
      x: [B, ..., C], floating point.
    """
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


def max_pool(x):
    """Max-pools 3x3 windows with stride 2 and padding 1 (by -inf): a side n becomes ceil(n / 2).

    The gradient goes to the first of equal pixels in reading order, as in PyTorch.

    Args:
      x: [B, H, W, C], floating point, finite.

    Returns:
      [B, ceil(H/2), ceil(W/2), C].
    """
    if kernels.steps_apart():  # a TPU has an operation for the gradient; its order is the same
        window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)
    return _max_of_three(_max_of_three(x, 2), 1)  # along rows first: reading order


@dataclasses.dataclass(frozen=True)
class Dilate:
    """Maxima of 3x3 windows at every place, for `Signal.map`: padded by -inf, of the same shape.

    The gradient goes to the first of equal values in reading order, as in PyTorch.

    Attributes:
      axes: the two that windows lie in, the slower one first; < 0, counted from the last.
    """

    axes: tuple[int, int] = (-3, -2)

    def __call__(self, x):
        """Returns the maxima, shaped like x [N, ..., C], floating point, finite."""
        slow, fast = (axis % x.ndim for axis in self.axes)
        return _max_around(_max_around(x, fast), slow)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_around(x, axis):
    """The maxima of the values (i - 1, i, i + 1) along an axis."""
    before, after = _beside(x, axis, -jnp.inf)
    return jnp.maximum(jnp.maximum(before, x), after)


def _around_forward(x, axis):
    before, after = _beside(x, axis, -jnp.inf)
    where = jnp.where(x > before, jnp.int8(1), jnp.int8(0))
    largest = jnp.maximum(before, x)
    where = jnp.where(after > largest, jnp.int8(2), where)
    return jnp.maximum(largest, after), where


def _around_backward(axis, where, gradient):
    to_before, to_at, to_after = (jnp.where(where == i, gradient, 0) for i in range(3))
    return (to_at + _beside(to_before, axis, 0)[1] + _beside(to_after, axis, 0)[0],)


_max_around.defvjp(_around_forward, _around_backward)


def _beside(x, axis, value):
    """The values before and after each one along an axis, and a number beyond the ends."""
    padded, n = _padded(x, axis, 1, 1, value), x.shape[axis]
    return [jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_three(x, axis):
    """The maxima of the pixels (2i - 1, 2i, 2i + 1) along an axis."""
    before, at, after = _neighbours(x, axis)
    return jnp.maximum(jnp.maximum(before, at), after)


def _forward(x, axis):
    before, at, after = _neighbours(x, axis)
    where = jnp.where(at > before, jnp.int8(1), jnp.int8(0))
    largest = jnp.maximum(before, at)
    where = jnp.where(after > largest, jnp.int8(2), where)
    # An array without pixels, because a shape is no residual.
    return jnp.maximum(largest, after), (where, jnp.zeros((x.shape[axis], 0)))


def _backward(axis, residuals, gradient):
    where, pixels = residuals
    n = len(pixels)
    to_before, to_at, to_after = (jnp.where(where == i, gradient, 0) for i in range(3))
    to_next = jax.lax.slice_in_dim(_padded(to_before, axis, 0, 1, 0), 1, None, axis=axis)
    pairs = jnp.stack([to_at, to_after + to_next], axis + 1)  # the even and the odd pixels
    shape = (*gradient.shape[:axis], -1, *gradient.shape[axis + 1 :])
    return (jax.lax.slice_in_dim(pairs.reshape(shape), 0, n, axis=axis),)


_max_of_three.defvjp(_forward, _backward)


def _neighbours(x, axis):
    """The pixels 2i - 1, 2i and 2i + 1, for every i."""
    n = x.shape[axis]
    padded = _padded(x, axis, 1, n % 2, -jnp.inf)
    count = (n + 1) // 2
    return [jax.lax.slice_in_dim(padded, i, i + 2 * count - 1, 2, axis) for i in range(3)]


def _padded(x, axis, before, after, value):
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, after)
    return jnp.pad(x, padding, constant_values=value)
