"""Batch normalisation over batch, time and space."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from snnvit_jax.common.parameters import parameter
from snnvit_jax.signals.signal import OfImages
from snnvit_jax.xla.rematerialisation import pointwise, value

EPSILON = 1e-5
MOMENTUM = 0.9  # of the running statistics; PyTorch calls the same thing 0.1
CONSTANT = 1e-3  # a standard deviation up to this share of the mean is taken for rounding
ROUNDING = 4e-3  # and of a narrow type's, up to this share of the distance to its shift


def is_narrow(dtype):
    """Returns whether a type is narrower than float32.

    Args:
      dtype: of floating-point numbers.
    """
    return jnp.promote_types(dtype, jnp.float32) != dtype


@jax.custom_vjp
def batch_statistics(values, shift=0.0):
    """Returns mean and biased variance per channel over all other axes, in at least float32.

    Of values in float32 or wider the mean is taken first, then the squares of what is left.
    Narrower ones are read once, mean and mean square of x - shift together: what cancels in their
    difference is less than what rounded the values themselves (Chan, Golub, LeVeque, "Algorithms
    for Computing the Sample Variance", 1983). The backward pass is given the mean.

    Args:
      values: [..., C], or how to compute it (see `xla.rematerialisation.deferred`).
      shift: [C] or a number near the mean, without a gradient: how much cancels depends on it.

    Returns:
      (mean [C], variance [C]), float32 (float64 for a float64 input).
    """
    x = value(values)
    axes = tuple(range(x.ndim - 1))
    if not is_narrow(x.dtype):
        mean = jnp.mean(x, axes)
        return mean, jnp.mean(jnp.square(x - mean), axes)
    x = x.astype(jnp.float32) - shift
    first, second = _means(x, jnp.square(x), axes)
    return shift + first, jnp.maximum(second - jnp.square(first), 0)


def _means(one, other, axes):
    """The means of two arrays of one shape; the last sum, of few values, is one for both."""
    if len(axes) < 2 or not one.size:
        return jnp.mean(one, axes), jnp.mean(other, axes)
    sums = jnp.stack([jnp.sum(each, axes[1:]) for each in (one, other)])
    return jnp.sum(sums, 1) * (one.shape[-1] / one.size)


def _statistics_forward(values, shift):
    mean, variance = batch_statistics(values, shift)
    return (mean, variance), (values, mean, shift)


def _statistics_backward(residuals, gradients):
    # By hand, so that x - mean, as large as x, is not kept from the forward pass.
    values, mean, shift = residuals
    x, pull_back = jax.vjp(value, values)
    of_mean, of_variance = (gradient * x.shape[-1] / x.size for gradient in gradients)
    slope = 2 * of_variance
    gradient = (x * slope + (of_mean - mean * slope)).astype(x.dtype)
    return *pull_back(gradient), jax.tree.map(jnp.zeros_like, shift)


batch_statistics.defvjp(_statistics_forward, _statistics_backward)


@jax.custom_vjp
def _scale_and_shift(x, mean, factor, bias):
    """(x - mean) * factor + bias; its gradient is written so that it takes few passes over x."""
    return (x - mean) * factor + bias


def _scale_and_shift_forward(x, mean, factor, bias):
    return _scale_and_shift(x, mean, factor, bias), (x, mean, factor)


def _scale_and_shift_backward(residuals, gradient):
    x, mean, factor = residuals
    axes = tuple(range(x.ndim - 1))
    total = jnp.sum(gradient, axes)
    of_factor = jnp.sum(gradient * x, axes) - mean * total
    return (gradient * factor).astype(x.dtype), -factor * total, of_factor, total


_scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)


@pointwise
def normalize(x, mean, variance, scale, bias):
    """Normalises channels: (x - mean) * scale / sqrt(variance + 1e-5) + bias, in x's dtype.

    Args:
      x: [..., C].
      mean: [C].
      variance: [C], >= 0.
      scale: [C].
      bias: [C].
    """
    factor = batch_norm_factor(scale, variance)
    return _scale_and_shift(x, mean, factor, bias).astype(x.dtype)


def batch_norm_factor(scale, variance):
    """Returns the number by which each channel is multiplied, scale / sqrt(variance + 1e-5).

    1 / sqrt, not rsqrt: some backends approximate the latter, and a membrane potential at the
    threshold must not depend on it.

    Args:
      scale: [C].
      variance: [C], >= 0.
    """
    return scale * (1 / jnp.sqrt(variance + EPSILON))


def running(old, batch):
    """Returns a running statistic after one more batch.

    Args:
      old: [C], before it.
      batch: [C], of the batch.
    """
    return MOMENTUM * old + (1 - MOMENTUM) * batch


def running_variance(old, mean, variance, count, shift=None):
    """Returns the running variance after one more batch: PyTorch's, with one exception.

    A layer that receives nothing, because no neuron before it fires at a step that is left, sees a
    constant, and that is no reason to forget the variance of what it received before. PyTorch's
    goes to zero then, so that inference divides the smallest difference between the constant and
    its running mean by sqrt(1e-5); two such layers in a row multiply it by 100,000.

    Args:
      old: [C], before the batch.
      mean: [C], of the batch.
      variance: [C], of the batch, biased.
      count: values of a channel in the batch, >= 1.
      shift: [C], that of a narrow type's `batch_statistics`, whose rounding the variance of a
        constant is; None for float32 and wider.
    """
    rounding = 0 if shift is None else jnp.square(ROUNDING * (mean - shift))
    is_constant = jnp.all(variance <= jnp.square(CONSTANT * mean) + rounding)
    return jnp.where(is_constant, old, running(old, variance * (count / max(count - 1, 1))))


class BatchNorm(nn.Module):
    """Batch normalisation over batch, time and space, as PyTorch computes it.

    Unlike `nn.BatchNorm`, the running variance is the unbiased one, which the published models
    were trained with (`running_variance`). A static signal stands for T equal steps, which enter
    only that factor. In training the bias of a linear map before it gets no gradient: what it adds
    is taken away again, so that its gradient is zero but for rounding.

    Attributes:
      pad: pixels on each side that are added to the normalised images, with what the running
        statistics make of zero, bias - mean * scale / sqrt(variance + 1e-5) (Ding et al.,
        "Diverse Branch Block", CVPR 2021). In training these are the statistics that the same
        forward pass has just updated, and no gradient flows through the border.
    """

    pad: int = 0

    @nn.compact
    def __call__(self, x, train):
        """Returns a signal normalised by its batch (train) or by the running statistics.

        The result is not kept for the backward pass.

        Args:
          x: `Signal` [B, K, ..., C]; with `pad`, [B, K, H, W, C].
          train: whether to normalise by the batch and to update the running statistics.
        """
        if x.plan:
            return self._planned(x)
        C = x.features
        scale = parameter(self, "scale", nn.initializers.ones, (C,))
        bias = parameter(self, "bias", nn.initializers.zeros, (C,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (C,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (C,), jnp.float32)
        details = {"scale": scale, "bias": bias, "mean": mean.value, "var": var.value}
        if not train:
            result = x.then(normalize, mean.value, var.value, scale, bias)
            result = self._framed(result, _of_zero(mean.value, var.value, scale, bias))
            details["pad"] = self.pad
            return result.trace("norm", self.path, (x,), **details)
        x = x.with_fixed_bias()
        batch_mean, batch_var = batch_statistics(x.pending, mean.value)
        if not self.is_initializing():
            repeats = x.time_steps if x.static else 1
            count = math.prod(x.shape[:-1]) * repeats
            shift = mean.value if is_narrow(x.dtype) else None
            var.value = running_variance(var.value, batch_mean, batch_var, count, shift)
            mean.value = running(mean.value, batch_mean)
        result = x.then(normalize, batch_mean, batch_var, scale, bias)
        return self._framed(result, _of_zero(mean.value, var.value, scale, bias))

    def _planned(self, x):
        if "/".join(self.path) in x.plan.away:  # the padding too is part of a linear map
            return x
        return self._framed(planned_affine(self, x), 0.0)

    def _framed(self, x, border):
        return x.then(OfImages(Frame(self.pad)), jnp.asarray(border)) if self.pad else x


@dataclasses.dataclass(frozen=True)
class Frame:
    """Puts a frame around images, as a function of them and of what stands in it.

    Attributes:
      pixels: on each side.
    """

    pixels: int

    def __call__(self, images, border):
        """Returns [N, H + 2 pixels, W + 2 pixels, C].

        Args:
          images: [N, H, W, C].
          border: [C] or a number.
        """
        n = self.pixels
        space = ((0, 0), (n, n), (n, n), (0, 0))
        inside = jnp.pad(jnp.ones(images.shape[1:3], bool), n)[..., None]
        return jnp.where(inside, jnp.pad(images, space), border.astype(images.dtype))


def _of_zero(mean, variance, scale, bias):
    """What a normalisation makes of zero, [C], without a gradient."""
    return jax.lax.stop_gradient(bias - mean * batch_norm_factor(scale, variance))


def planned_affine(module, x):
    """Returns what is left of a normalisation or scale with a fixed schedule.

    Its shift is part of the constant that the next neuron knows; its factor is part of the linear
    map before it, or applied here.

    Args:
      module: the bound module.
      x: `Signal` with a plan.
    """
    name = "/".join(module.path)
    if name in x.plan.folded or not x.steps:
        return x
    return x.then(jnp.multiply, module.get_variable("constants", "factor"))
