"""What the layers of spiking transformers are made of, except the neuron.

Signals are [B, T, ...] with channels last. Convolutions fold the first two axes into one; because
the batch comes first, that neither moves data nor makes a sharded batch gather.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

EPSILON = 1e-5
MOMENTUM = 0.9  # of the running statistics; PyTorch calls the same thing 0.1


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


def normalize(x, mean, variance, scale, bias):
    """Normalises channels: (x - mean) * scale / sqrt(variance + 1e-5) + bias, in x's dtype.

    Args:
      x: [..., C].
      mean: [C].
      variance: [C], >= 0.
      scale: [C].
      bias: [C].
    """
    # 1 / sqrt, not rsqrt: some backends approximate the latter, and a membrane potential at the
    # threshold must not depend on it.
    factor = scale * (1 / jnp.sqrt(variance + EPSILON))
    return ((x - mean) * factor + bias).astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over batch, time and space, as PyTorch computes it.

    Unlike `nn.BatchNorm`, the running variance is the unbiased one, which the published models
    were trained with.

    Attributes:
      repeats: how many times the input stands for itself, when identical time steps were computed
        once; enters only the unbiased factor.
    """

    repeats: int = 1

    @nn.compact
    def __call__(self, x, train):  # ... C
        """Returns x normalised by its batch (train) or by the running statistics."""
        C = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (C,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (C,), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (C,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (C,), jnp.float32)
        if not train:
            return normalize(x, mean.value, var.value, scale, bias)
        batch_mean, batch_var = batch_statistics(x)
        if not self.is_initializing():
            n = x.size // C * self.repeats
            mean.value = MOMENTUM * mean.value + (1 - MOMENTUM) * batch_mean
            var.value = MOMENTUM * var.value + (1 - MOMENTUM) * batch_var * (n / max(n - 1, 1))
        return normalize(x, batch_mean, batch_var, scale, bias)


def uniform_fan_in(fan_in):
    """Returns the initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's for convolutions.

    Args:
      fan_in: number of inputs of one output, >= 1.
    """
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
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
    # Not preferred_element_type: the CPU backend cannot multiply bfloat16 into float32.
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(equation, a.astype(wide), b.astype(wide))
