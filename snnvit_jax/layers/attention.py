"""Products of spikes with each other."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from snnvit_jax.layers.pooling import Dilate
from snnvit_jax.xla.products import wide_einsum

LARGEST_COUNT = 256  # up to which bfloat16, and so a matrix unit, holds every whole number


def spiking_attention(q, k, v, num_heads, scale=0.125):
    """Self-attention of spikes without softmax: (q kᵀ) v * scale.

    Without softmax the product is associative, so it is computed in whichever order is cheaper.
    All partial sums are integers, hence exact in float32 in either order. Narrow operands are
    multiplied as they are, into float32. The sums of the first product are counts: bfloat16 holds
    them exactly up to 256; if they can be larger, they are multiplied in float32 with the highest
    precision, because matrix units would round them to bfloat16.

    Args:
      q: spikes [B, T, N, C].
      k: spikes [B, T, N, C].
      v: spikes [B, T, N, C].
      num_heads: divides C; channel c belongs to head c // (C / num_heads).
      scale: constant factor; 0.125 in all published models, whatever the head size.

    Returns:
      [B, T, N, C], typed like `q`.

    Raises:
      ValueError: if num_heads does not divide C.
    """
    B, T, N, C = q.shape
    if num_heads < 1 or C % num_heads:
        raise ValueError(f"{num_heads=} must divide the {C} channels")
    head_dim = C // num_heads
    q, k, v = (x.reshape(B, T, N, num_heads, head_dim) for x in (q, k, v))
    if head_dim < N:
        kv = _einsum("btnhd,btnhe->bthde", False, k, v)
        kv, exact = _counts(kv, N, q.dtype)
        y = _einsum("btnhd,bthde->btnhe", exact, q, kv)
    else:
        qk = _einsum("btnhd,btmhd->bthnm", False, q, k)
        qk, exact = _counts(qk, head_dim, q.dtype)
        y = _einsum("bthnm,btmhe->btnhe", exact, qk, v)
    return (y * scale).reshape(B, T, N, C).astype(q.dtype)


def _counts(sums, most, dtype):
    """Returns (counts in a type that holds them up to `most`, whether rounding would harm)."""
    large = most > LARGEST_COUNT
    return (sums if large else sums.astype(dtype)), large


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _einsum(equation, exact, a, b):
    """See `wide_einsum`; in the backward pass, gradients are as narrow as the operands."""
    return wide_einsum(equation, a, b, exact)


def _einsum_forward(equation, exact, a, b):
    return _einsum(equation, exact, a, b), (a, b)


def _einsum_backward(equation, exact, residuals, gradient):
    a, b = residuals
    operands, result = equation.split("->")
    of_a, of_b = operands.split(",")
    to_a = wide_einsum(f"{result},{of_b}->{of_a}", gradient.astype(b.dtype), b, exact)
    to_b = wide_einsum(f"{of_a},{result}->{of_b}", a, gradient.astype(a.dtype), exact)
    return to_a.astype(a.dtype), to_b.astype(b.dtype)


_einsum.defvjp(_einsum_forward, _einsum_backward)


@dataclasses.dataclass(frozen=True)
class DilateHeads:
    """Maxima over 3x3 neighbouring tokens and channels of a head, for `Signal.map`.

    Attributes:
      num_heads: divides the channels; a window does not reach into another head.
    """

    num_heads: int

    def __call__(self, x):
        """Returns the maxima of [..., N, C], of the same shape."""
        *front, N, C = x.shape
        heads = x.reshape(*front, N, self.num_heads, C // self.num_heads)
        return Dilate(axes=(-3, -1))(heads).reshape(x.shape)


class Product(nn.Module):
    """A product of several signals, active where all of them are; derive your own from it.

    Override `compute`, a pure function of the operands' values [B, K, ...]. It must be zero where
    any operand is. Known to the energy report are the products of `energy.operations`.
    """

    def compute(self, *values):
        """Returns [B, K, ...] of the operands' values."""
        raise NotImplementedError(f"{type(self).__name__} must override compute")

    @nn.compact
    def __call__(self, *operands):
        """Returns the product of signals [B, K, ...]."""
        if operands[0].plan:
            return self._planned([x.wanted(self.path) for x in operands])
        operands = [x.keep() for x in operands]
        values = self.compute(*(x.values for x in operands))
        result = operands[0].replace(pending=values, static=all(x.static for x in operands))
        return result.trace("product", self.path, operands, function=self.compute)

    def _planned(self, operands):
        """At the steps at which all operands are; those that are never silent are made whole."""
        plan = operands[0].plan
        steps = plan.wanted(self.path)
        shapes = [jnp.zeros((x.shape[0], len(steps), *x.shape[2:]), plan.dtype) for x in operands]
        if not steps:
            return operands[0].silent(self.compute(*shapes).shape[2:])
        whole = [self._values(i, x, steps) for i, x in enumerate(operands)]
        wide = jnp.promote_types(plan.dtype, jnp.float32)
        return operands[0].at_steps_only(self.compute(*(x.astype(wide) for x in whole)), steps)

    def _values(self, i, x, steps):
        constant = self.get_variable("constants", f"operand_{i}", None)
        if constant is None:
            return x.values if not x.static else x.spread().restricted(steps).values
        at = [x.values[:, x.index(t)] if x.active(t) else 0.0 for t in steps]
        B, _, *rest = x.shape
        return jnp.stack([jnp.broadcast_to(value + constant, (B, *rest)) for value in at], 1)


class SpikingAttention(Product):
    """`spiking_attention` as a layer without parameters, so that its operands can be observed.

    Attributes:
      num_heads: divides the channels.
      scale: constant factor.
    """

    num_heads: int = 1
    scale: float = 0.125

    def compute(self, q, k, v):
        """Returns (q kᵀ) v * scale, [B, K, N, C]."""
        return spiking_attention(q, k, v, self.num_heads, self.scale)


class TokenSum(Product):
    """k v summed over the tokens, per channel: [B, K, 1, C] (Spike-driven Transformer, 2023).

    Attributes:
      dilated_heads: heads in each of which the products are first pooled over 3x3 neighbouring
        tokens and channels (`DilateHeads`); 0 for no pooling.
    """

    dilated_heads: int = 0

    def products(self, k, v):
        """Returns what is summed over the tokens, [B, K, N, C]: k v, pooled if it is."""
        return DilateHeads(self.dilated_heads)(k * v) if self.dilated_heads else k * v

    def compute(self, k, v):
        """Returns sum over n of k[n] v[n], of [B, K, N, C]."""
        return jnp.sum(self.products(k, v), axis=-2, keepdims=True)


class Gate(Product):
    """q x, element by element; either may have one token or channel for all of the other's."""

    def compute(self, q, x):
        """Returns q x of [B, K, N, C] and what broadcasts to it."""
        return q * x


class AttentionMap(Product):
    """Which place meets which, in each head: y sᵀ, [B, K, heads, M, N] (Shi et al., CVPR 2024).

    y is real-valued, made of the same spikes s by one linear map. A spike adds a column of y.
    """

    def compute(self, y, s):
        """Returns sum over d of y[m, d] s[n, d], of [B, K, M, heads, d] and [B, K, N, heads, d]."""
        return _einsum("btmhd,btnhd->bthmn", False, y, s).astype(y.dtype)


class AttentionValues(Product):
    """What places that meet hand on, in each head: [B, K, N, heads, d] (Shi et al., CVPR 2024).

    y is real-valued; a spike of the attention map adds a row of it.
    """

    def compute(self, y, attention):
        """Returns sum over m of y[m, d] a[m, n], of [B, K, M, heads, d], [B, K, heads, M, N]."""
        return _einsum("btmhd,bthmn->btnhd", False, y, attention).astype(y.dtype)
