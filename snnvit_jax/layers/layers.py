"""What the layers of spiking transformers are made of, except the neuron.

Signals are [B, T, ...] with channels last. Convolutions fold the first two axes into one; because
the batch comes first, that neither moves data nor makes a sharded batch gather.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from snnvit_jax.xla.backends import recompute, value

EPSILON = 1e-5
MOMENTUM = 0.9  # of the running statistics; PyTorch calls the same thing 0.1


@jax.custom_vjp
def batch_statistics(x):
    """Returns mean and biased variance per channel over all other axes, in at least float32.

    Args:
      x: [..., C].

    Returns:
      (mean [C], variance [C]), float32 (float64 for a float64 input).
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axes)
    return mean, jnp.mean(jnp.square(x - mean), axes)


def _statistics_of_value(x):
    return batch_statistics(value(x))


def _statistics_forward(x):
    mean, variance = batch_statistics(x)
    return (mean, variance), (x, mean)


def _statistics_backward(residuals, gradients):
    # By hand, so that x - mean, as large as x, is not kept from the forward pass.
    x, mean = residuals
    of_mean, of_variance = (gradient * x.shape[-1] / x.size for gradient in gradients)
    slope = 2 * of_variance
    return ((x * slope + (of_mean - mean * slope)).astype(x.dtype),)


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


def normalize(x, mean, variance, scale, bias):
    """Normalises channels: (x - mean) * scale / sqrt(variance + 1e-5) + bias, in x's dtype.

    Args:
      x: [..., C], or a function without arguments that returns it.
      mean: [C].
      variance: [C], >= 0.
      scale: [C].
      bias: [C].
    """
    x = value(x)
    # 1 / sqrt, not rsqrt: some backends approximate the latter, and a membrane potential at the
    # threshold must not depend on it.
    factor = scale * (1 / jnp.sqrt(variance + EPSILON))
    return _scale_and_shift(x, mean, factor, bias).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over batch, time and space, as PyTorch computes it.

    Unlike `nn.BatchNorm`, the running variance is the unbiased one, which the published models
    were trained with.

    Attributes:
      repeats: how many times the input stands for itself, when identical time steps were computed
        once; enters only the unbiased factor.
    """

    repeats: int = 1

    def __call__(self, x, train):  # ... C
        """Returns x normalised by its batch (train) or by the running statistics."""
        return self.deferred(x, train)()

    @nn.compact
    def deferred(self, x, train):  # ... C
        """The same as a function without arguments, a pytree.

        A neuron that takes it need not keep the result for the backward pass.

        Args:
          x: [..., C], or a function without arguments that returns it (a pytree).
          train: whether to normalise by the batch and to update the running statistics.
        """
        deferred_x, x = x, value(x)
        C = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (C,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (C,), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (C,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (C,), jnp.float32)
        if not train:
            return Partial(normalize, deferred_x, mean.value, var.value, scale, bias)
        # Not of x: a sum of product and bias would be kept beside the product.
        batch_mean, batch_var = recompute(_statistics_of_value, deferred_x)
        if not self.is_initializing():
            n = x.size // C * self.repeats
            mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * batch_mean
            var.value = MOMENTUM * var.value + (1 - MOMENTUM) * batch_var * (n / max(n - 1, 1))
        return Partial(normalize, deferred_x, batch_mean, batch_var, scale, bias)


def uniform_fan_in(fan_in):
    """Returns the initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's for convolutions.

    Args:
      fan_in: number of inputs of one output, >= 1.
    """
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


def apply_linear(linear, x, train):
    """Applies a linear map to a signal that need not be kept for the backward pass.

    In training the result is a deferred one too, if there is a bias to be added.

    Args:
      linear: bound `nn.Dense`, or `nn.Conv` as `conv3x3` makes it.
      x: [B, T, ..., C], or a function without arguments that returns it (a pytree).
      train: whether it will be differentiated.

    Returns:
      [B, T, ..., features], or a function without arguments that returns it.
    """
    if not train or linear.is_initializing():
        return linear(value(x))
    params = jax.tree.map(lambda leaf: leaf.astype(linear.dtype), linear.variables["params"])
    product = _product(x, params["kernel"])
    return Partial(jnp.add, product, params["bias"]) if linear.use_bias else product


def _product(x, kernel):
    if callable(x):
        return recompute(_product_of_value, x, kernel)
    return _product_of_value(x, kernel)


def _product_of_value(x, kernel):
    x = value(x)
    if kernel.ndim == 2:
        # As one matrix: its gradient with respect to the weights needs no transposed copy then.
        return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)
    layout = ("NHWC", "HWIO", "NHWC")
    return fold_time(
        lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout),
        x,
    )


def conv3x3(features, in_features, dtype, name):
    """Returns a 3x3 convolution, stride 1, padding 1, without bias.

    Args:
      features: number of output channels.
      in_features: number of input channels.
      dtype: of the computation; parameters are float32.
      name: of the module.
    """
    init = uniform_fan_in(9 * in_features)
    return nn.Conv(
        features, (3, 3), padding=1, use_bias=False, dtype=dtype, kernel_init=init, name=name
    )


def fold_time(function, x):
    """Applies a function of images [N, ...] to every time step of x [B, T, ...].

    Args:
      function: from [B * T, ...] to [B * T, ...].
      x: [B, T, ...].

    Returns:
      [B, T, ...].
    """
    B, T, *image = x.shape
    y = function(x.reshape(B * T, *image))
    return y.reshape(B, T, *y.shape[1:])


def drop_path(key, branch, probability):
    """Leaves out a residual branch for some examples, at all of their time steps.

    What stays is scaled by 1 / (1 - probability), so that the mean is unchanged (Huang et al.,
    "Deep Networks with Stochastic Depth", ECCV 2016).

    Args:
      key: typed PRNG key.
      branch: [B, ...].
      probability: of leaving out an example's branch, in [0, 1).
    """
    shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
    kept = jax.random.bernoulli(key, 1 - probability, shape)
    return (branch * (kept / (1 - probability))).astype(branch.dtype)


def spiking_attention(q, k, v, num_heads, scale=0.125):
    """Self-attention of spikes without softmax: (q kᵀ) v * scale.

    Without softmax the product is associative, so it is computed in whichever order is cheaper.
    All partial sums are integers, hence exact in float32 in either order; signals of lower
    precision are widened to it. (TPUs multiply float32 as bfloat16, which is exact up to 256.)

    Args:
      q: spikes [B, T, N, C].
      k: spikes [B, T, N, C].
      v: spikes [B, T, N, C].
      num_heads: divides C; channel c belongs to head c // (C / num_heads).
      scale: constant factor; 0.125 in all published models, whatever the head size.

    Returns:
      [B, T, N, C], typed like `q`.
    """
    B, T, N, C = q.shape
    head_dim = C // num_heads
    q, k, v = (x.reshape(B, T, N, num_heads, head_dim) for x in (q, k, v))
    if head_dim < N:
        kv = _einsum("btnhd,btnhe->bthde", k, v)
        y = _einsum("btnhd,bthde->btnhe", q, kv)
    else:
        qk = _einsum("btnhd,btmhd->bthnm", q, k)
        y = _einsum("bthnm,btmhe->btnhe", qk, v)
    return (y * scale).reshape(B, T, N, C).astype(q.dtype)


class SpikingAttention(nn.Module):
    """`spiking_attention` as a module without parameters, so that its operands can be observed.

    Attributes:
      num_heads: divides the channels.
    """

    num_heads: int

    def __call__(self, q, k, v):  # B T N C
        """Returns (q kᵀ) v / 8, [B, T, N, C], of spikes [B, T, N, C]."""
        return spiking_attention(q, k, v, self.num_heads)


def _einsum(equation, a, b):
    wide = jnp.promote_types(a.dtype, jnp.float32)
    if a.dtype == b.dtype == wide:
        return jnp.einsum(equation, a, b)
    # For the backward pass, the operands are kept as narrow as they are.
    return recompute(functools.partial(_wide_einsum, equation, wide), a, b)


def _wide_einsum(equation, wide, a, b):
    # Not preferred_element_type: the CPU backend cannot multiply bfloat16 into float32.
    return jnp.einsum(equation, a.astype(wide), b.astype(wide))
