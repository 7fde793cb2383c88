"""What the operations of each type of layer are: its input units, and the shapes they come with."""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp

from snnvit_jax.energy import convolution
from snnvit_jax.layers import (
    AttentionMap,
    AttentionValues,
    Conv,
    Gate,
    Head,
    HeadSum,
    Linear,
    SpikingAttention,
    TokenSum,
)


@dataclasses.dataclass(frozen=True)
class LayerShape:
    """The static part of a layer's cost, for one example.

    Attributes:
      macs: multiply-accumulates of one time step, were the input real-valued.
      fan_out: accumulates for each of the units that `input_units` counts.
      time_steps: how often the layer is computed.
      operands: {operand name: number of its values in one time step}.
      primitives: of JAX that compute it, each with an equal share of `macs`.
      plain_macs: multiply-accumulates of this layer in a plain vision transformer.
      fan_out_by_rate: accumulates for each unit by the published formulas, which count taps on
        the padding too.
      bias_adds: additions of a bias in one time step; part of no total, because a sum can start
        from the bias.
      repeats: for how many identical time steps one computation stands.
      added: operands whose values are added where others have a spike, as weights are: whatever
        numbers they are, spikes cost accumulates alone.
    """

    macs: int
    fan_out: int
    time_steps: int
    operands: dict[str, int]
    primitives: tuple[str, ...]
    plain_macs: int
    fan_out_by_rate: float
    bias_adds: int = 0
    repeats: int = 1
    added: tuple[str, ...] = ()


def _sum_per_step(x):
    """Sums [B, T, ...] to int32 [B, T]."""
    return jnp.sum(x.astype(jnp.int32), axis=tuple(range(2, x.ndim)))


def _size(x):
    """Number of values in one time step of one example."""
    return math.prod(x.shape[2:])


class _Dense:
    """Every input unit reaches every output channel once."""

    operands = ("input",)

    @staticmethod
    def units(module, input):
        return _sum_per_step(input)

    @staticmethod
    def shape(module, input):
        features, size = module.features, _size(input)
        return LayerShape(
            macs=size * features,
            fan_out=features,
            time_steps=input.shape[1],
            operands={"input": size},
            primitives=("dot_general",),
            plain_macs=size * features,
            fan_out_by_rate=features,
            bias_adds=size // input.shape[-1] * features * module.use_bias,
        )


class _Conv:
    """An input unit reaches as many pixels of a channel as windows contain it."""

    operands = ("input",)

    @staticmethod
    def units(module, input):  # B T ... C
        covered, _ = convolution.coverage(module, input.shape[2:-1])
        return _sum_per_step(jnp.sum(input.astype(jnp.int32), -1) * covered)

    @staticmethod
    def shape(module, input):
        groups, features, C = convolution.groups(module), module.features, input.shape[-1]
        pixels = math.prod(convolution.coverage(module, input.shape[2:-1])[1])
        taps = math.prod(convolution.kernel_sides(module))
        macs = taps * pixels * C // groups * features
        return LayerShape(
            macs=macs,
            fan_out=features // groups,
            time_steps=input.shape[1],
            operands={"input": _size(input)},
            primitives=("conv_general_dilated",),
            plain_macs=macs,
            fan_out_by_rate=macs / _size(input),
            bias_adds=pixels * features * module.use_bias,
        )


class _Attention:
    """q (kᵀ v) costs a row of d additions for each spike of k or v (the sparser), then of q.

    This is the published count T h N d² (min(r_k, r_v) + r_q), exact per example and step. With
    fewer tokens than channels of a head the cheaper order is (q kᵀ) v: rows of N additions, for q
    or k and then v. Softmax between the products of a plain transformer leaves only that order.
    """

    operands = ("q", "k", "v")

    @staticmethod
    def units(module, q, k, v):  # B T N C
        first, second, last = (k, v, q) if _keys_meet_values(module, q) else (q, k, v)
        return jnp.minimum(_sum_per_step(first), _sum_per_step(second)) + _sum_per_step(last)

    @staticmethod
    def shape(module, q, k, v):
        _, T, N, C = q.shape
        head_dim = C // module.num_heads
        fan_out = head_dim if _keys_meet_values(module, q) else N
        return LayerShape(
            macs=2 * N * C * fan_out,
            fan_out=fan_out,
            time_steps=T,
            operands=dict.fromkeys("qkv", N * C),
            primitives=("dot_general",) * 2,
            plain_macs=2 * N * C * N,
            fan_out_by_rate=head_dim,
        )


def _keys_meet_values(module, q):
    """Whether kᵀ v comes first: `spiking_attention` multiplies in the cheaper order."""
    *_, N, C = q.shape
    return C // module.num_heads < N


class _Head(_Dense):
    """A matrix product of the mean over time and tokens, with one step, or of spikes at each."""

    @staticmethod
    def shape(module, input):
        classes, size = module.num_classes, _size(input)
        return LayerShape(
            macs=size * classes,
            fan_out=classes,
            time_steps=input.shape[1],
            operands={"input": size},
            primitives=("dot_general",),
            plain_macs=size * classes,
            fan_out_by_rate=classes,
            bias_adds=classes * module.use_bias,
        )


class _TokenSum:
    """k v summed over tokens adds 1 where both fire (Spike-driven Transformer, NeurIPS 2023).

    Where products are pooled first, it adds 1 for each that is left; pooling is not counted.
    """

    operands = ("k", "v")

    @staticmethod
    def units(module, k, v):
        return _sum_per_step(module.products(k, v))

    @staticmethod
    def shape(module, k, v):
        return _elementwise({"k": k, "v": v}, _size(k))


class _Gate:
    """q x keeps the values of x where q fires, which adds nothing: each that passes counts as 1."""

    operands = ("q", "x")

    @staticmethod
    def units(module, q, x):
        return _sum_per_step(q * x)

    @staticmethod
    def shape(module, q, x):
        size = math.prod(jnp.broadcast_shapes(q.shape, x.shape)[2:])
        return _elementwise({"q": q, "x": x}, size)


class _HeadSum:
    """The sum over a head's channels adds 1 for each spike (Zhou et al., arXiv 2403.16552)."""

    operands = ("q",)

    @staticmethod
    def units(module, q):
        return _sum_per_step(q)

    @staticmethod
    def shape(module, q):
        return dataclasses.replace(_elementwise({"q": q}, _size(q)), primitives=())


class _AttentionMap:
    """A spike of s adds a value of y for each patch (Shi et al., CVPR 2024)."""

    operands = ("y", "s")

    @staticmethod
    def units(module, y, s):
        return _sum_per_step(s)

    @staticmethod
    def shape(module, y, s):  # B T M h d, B T N h d
        return _added_where_spikes({"y": y, "s": s}, fan_out=y.shape[2])


class _AttentionValues:
    """A spike of the attention map adds the channels of a patch of its head."""

    operands = ("y", "attention")

    @staticmethod
    def units(module, y, attention):
        return _sum_per_step(attention)

    @staticmethod
    def shape(module, y, attention):  # B T M h d, B T h M N
        return _added_where_spikes({"y": y, "attention": attention}, fan_out=y.shape[-1])


def _added_where_spikes(operands, fan_out):
    """A product of real values, first, and spikes, each of which adds `fan_out` of them."""
    added, spikes = operands
    macs = _size(operands[spikes]) * fan_out
    return LayerShape(
        macs=macs,
        fan_out=fan_out,
        time_steps=operands[spikes].shape[1],
        operands={name: _size(x) for name, x in operands.items()},
        primitives=("dot_general",),
        plain_macs=macs,
        fan_out_by_rate=fan_out,
        added=(added,),
    )


def _elementwise(operands, size):
    first = next(iter(operands.values()))
    return LayerShape(
        macs=size,
        fan_out=1,
        time_steps=first.shape[1],
        operands={name: _size(x) for name, x in operands.items()},
        primitives=("mul",),
        plain_macs=size,
        fan_out_by_rate=1,
    )


OPERATIONS = {
    Linear: _Dense,
    Conv: _Conv,
    Head: _Head,
    SpikingAttention: _Attention,
    AttentionMap: _AttentionMap,
    AttentionValues: _AttentionValues,
    TokenSum: _TokenSum,
    Gate: _Gate,
    HeadSum: _HeadSum,
    nn.Dense: _Dense,
    nn.Conv: _Conv,
}
