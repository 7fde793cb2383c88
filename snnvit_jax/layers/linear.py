"""Linear maps of signals: matrix products and convolutions, channels last."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax.common.parameters import parameter
from snnvit_jax.signals.signal import OfImages
from snnvit_jax.xla.convolution import convolve


def uniform_fan_in(fan_in):
    """Returns the initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's for convolutions.

    Args:
      fan_in: number of inputs of one output, >= 1.
    """
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


@dataclasses.dataclass(frozen=True)
class MatrixProduct:
    """x W over the last axis, as a function of both.

    Attributes:
      wide: dtype of the result; None for that of the operands.
    """

    wide: DTypeLike | None = None

    def __call__(self, x, kernel):
        """Returns [..., features].

        Args:
          x: [..., C].
          kernel: [C, features].
        """
        # As one matrix: its gradient with respect to the weights needs no transposed copy then.
        flat = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, preferred_element_type=self.wide)
        return flat.reshape(*x.shape[:-1], kernel.shape[-1])


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of images, as a function of them and of a kernel.

    Attributes:
      strides: (rows, columns).
      padding: ((before, after) rows, (before, after) columns), by zeros.
      dilation: of the kernel, (rows, columns).
      groups: of channels that see each other.
      wide: dtype of the result; None for that of the operands.
    """

    strides: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    wide: DTypeLike | None = None

    def __call__(self, images, kernel):
        """Returns [N, H', W', features].

        Args:
          images: [N, H, W, C].
          kernel: [kh, kw, C / groups, features].
        """
        options = self.strides, self.padding, self.dilation, self.groups, self.wide
        return convolve(images, kernel, *options)


class Linear(nn.Module):
    """A matrix product over the channels.

    Attributes:
      features: number of output channels.
      use_bias: whether a bias is added (without effect before a normalisation in training).
      dtype: of the computation; parameters are float32.
      kernel_init: initializer of the kernel [C, features]; None for that of a PyTorch convolution.
      bias_init: initializer of the bias [features]; None for the same.
    """

    features: int
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable | None = nn.initializers.normal(0.02)
    bias_init: Callable | None = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        """Returns the signal [B, K, ..., features] of a signal [B, K, ..., C]."""
        return _apply(self, x, MatrixProduct(), (x.features, self.features))


class Conv(nn.Module):
    """A convolution over two axes of space.

    Attributes:
      features: number of output channels.
      kernel_size: (rows, columns).
      strides: (rows, columns), or one number for both.
      padding: pixels of zeros on each side, one number or (rows, columns).
      dilation: of the kernel, one number or (rows, columns).
      groups: of channels that see each other; divides input and output channels.
      use_bias: whether a bias is added.
      dtype: of the computation; parameters are float32.
      kernel_init: initializer of the kernel [kh, kw, C / groups, features]; None for PyTorch's.
      bias_init: initializer of the bias; None for PyTorch's.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 1
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable | None = None
    bias_init: Callable | None = None

    @nn.compact
    def __call__(self, x):
        """Returns the signal [B, K, H', W', features] of a signal [B, K, H, W, C].

        Raises:
          ValueError: for channels that cannot be divided into the groups.
        """
        C, groups = x.features, self.groups
        if C % groups or self.features % groups:
            raise ValueError(
                f"{'/'.join(self.path)}: {C} input and {self.features} output channels must be "
                f"divisible by {groups=}"
            )
        shape = (*self.kernel_size, C // groups, self.features)
        return _apply(self, x, self.function, shape)

    @property
    def function(self):
        """The `Convolution` that it computes."""
        rows, columns = pair(self.padding)
        padding = ((rows, rows), (columns, columns))
        return Convolution(pair(self.strides), padding, pair(self.dilation), self.groups)


def pair(value):
    """Returns (value, value) of a number; a pair itself.

    Args:
      value: a number or two.
    """
    return (value, value) if isinstance(value, int) else tuple(value)


def _apply(module, x, function, kernel_shape):
    """The linear map of a module, which owns "kernel" and, if it has one, "bias"."""
    if x.plan:
        return _apply_planned(module, x.wanted(module.path), function, kernel_shape)
    default = uniform_fan_in(math.prod(kernel_shape[:-1]))
    kernel = parameter(module, "kernel", module.kernel_init or default, kernel_shape)
    function = _of_signal(function)
    y = x.through(function, jnp.asarray(kernel, module.dtype))
    bias = None
    if module.use_bias:
        init = module.bias_init or default
        bias = parameter(module, "bias", init, (module.features,))
        y = y.biased(jnp.asarray(bias, module.dtype))
    details = {"function": function, "kernel": kernel, "bias": bias}
    return y.trace("linear", module.path, (x,), **details)


def _apply_planned(module, x, function, kernel_shape):
    """At the steps that have an effect; the bias is part of the constant of whoever reads it."""
    dtype, name = x.plan.dtype, "/".join(module.path)
    if name in x.plan.away:
        return x
    function, kernel_shape = x.plan.merged.get(name, (function, kernel_shape))
    if not x.steps or not x.plan.wanted(module.path):
        image = jax.ShapeDtypeStruct((x.shape[0], 1, *x.shape[2:]), dtype)
        kernel = jax.ShapeDtypeStruct(kernel_shape, dtype)
        return x.silent(jax.eval_shape(_of_signal(function), image, kernel).shape[2:])
    function = dataclasses.replace(function, wide=jnp.promote_types(dtype, jnp.float32))
    return x.through(_of_signal(function), module.get_variable("params", "kernel"))


def _of_signal(function):
    return OfImages(function) if isinstance(function, Convolution) else function
