"""Spikformer (Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023).

Both published forms. They differ in where the patch embedding pools (CIFAR: after its last two
stages; ImageNet: after all four), and in the names, biases and initial values of their linear maps.
Signals are [B, T, H, W, C] in the patch embedding and [B, T, N, C] in the blocks.
"""

import dataclasses
import numbers
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.neurons import LIF, LIFNeuron, Neuron
from snnvit_jax.time_steps import masks

ATTENTION_THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class LinearForm:
    """How a published form of Spikformer writes its linear maps.

    Attributes:
      suffix: of the layers' names ("q_linear" or "q_conv").
      qkv_bias: whether q, k and v have a bias.
      conv_init: initial values of a PyTorch convolution; otherwise normal with deviation 0.02.
    """

    suffix: str
    qkv_bias: bool
    conv_init: bool


CIFAR_POOL = (False, False, True, True)
CIFAR_FORM = LinearForm("linear", qkv_bias=True, conv_init=False)
IMAGENET_FORM = LinearForm("conv", qkv_bias=False, conv_init=True)


@dataclasses.dataclass(frozen=True)
class SpikformerConfig:
    """A Spikformer's architecture.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels, divisible by the patch stride.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: D, channels of a token; divisible by 8 and by num_heads.
      num_heads: attention heads.
      depth: number of blocks.
      mlp_ratio: hidden channels of the MLP, in units of D.
      pool: for each of the four stages of the patch embedding, whether it halves the image.
      form: how linear maps are written.
      neuron: what all neurons share.
      drop_path: probability, in training, that an example skips a branch of the last block; it
        grows linearly from 0 in the first block.
      remat: "block" keeps only the inputs of the blocks for the backward pass and computes the
        rest again, in training (Chen et al., "Training Deep Nets with Sublinear Memory Cost",
        arXiv 1604.06174); "none" keeps everything.
      dtype: of the computation (parameters and batch statistics are float32).

    Raises:
      ValueError: naming the value that does not fit.
    """

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    embed_dim: int
    num_heads: int
    depth: int
    mlp_ratio: float = 4.0
    pool: tuple[bool, ...] = CIFAR_POOL
    form: LinearForm = CIFAR_FORM
    neuron: Neuron = dataclasses.field(default_factory=LIFNeuron)
    drop_path: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    hidden: ClassVar = ("form",)  # belongs to a published size
    input_layer: ClassVar = "patch_embed/proj_conv"

    def __post_init__(self):
        masks.check_time_steps(self.time_steps)
        for name in ("num_classes", "embed_dim", "num_heads", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        if not all(isinstance(side, numbers.Integral) for side in self.image_size):
            raise ValueError(f"image_size={self.image_size} must be whole numbers of pixels")
        if len(self.pool) != 4:
            raise ValueError(f"pool={self.pool} needs one value for each of the four stages")
        if any(side < 1 or side % self.patch_stride for side in self.image_size):
            raise ValueError(
                f"image_size={self.image_size} must be divisible by "
                f"the patch stride {self.patch_stride}"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} must be divisible by num_heads={self.num_heads}"
            )
        if self.embed_dim % 8:
            raise ValueError(f"embed_dim={self.embed_dim} must be divisible by 8")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")
        if self.remat not in ("none", "block"):
            raise ValueError(f"remat={self.remat!r} must be one of none, block")
        if self.hidden_dim < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves the MLP without hidden channels")

    @property
    def patch_stride(self):
        """Pixels between two neighbouring tokens."""
        return 2 ** sum(self.pool)

    @property
    def hidden_dim(self):
        """Hidden channels of the MLP."""
        return int(self.embed_dim * self.mlp_ratio)


class Spikformer(nn.Module):
    """The whole network: images, normalised -> logits [B, classes], float32."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config = self.config
        x = parts.as_signal(self, images)
        x = PatchEmbedding(config, name="patch_embed")(x, train).tokens()
        block = parts.rematerialised(Block, config.remat, train)
        for i in range(config.depth):
            drop_path = config.drop_path * i / max(config.depth - 1, 1)
            x = block(config, drop_path, name=f"block_{i}")(x, train)
        return layers.Head(config.num_classes, name="head")(x)


class PatchEmbedding(nn.Module):
    """Spiking patch splitting: four convolution stages, then a relative position embedding."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal [B, T, H', W', D] with values in {0, 1, 2}."""
        D, pool = self.config.embed_dim, self.config.pool
        for i, features in enumerate((D // 8, D // 4, D // 2, D)):
            x = self._conv_bn_lif(x, "proj_{}" + (str(i) if i else ""), features, train)
            if pool[i]:
                x = x.map(layers.max_pool)
        x = x.keep()  # both terms of the sum read it
        return x + self._conv_bn_lif(x, "rpe_{}", D, train)

    def _conv_bn_lif(self, x, name, features, train):
        x = layers.Conv(features, dtype=self.config.dtype, name=name.format("conv"))(x)
        x = layers.BatchNorm(name=name.format("bn"))(x, train)
        return LIF(neuron=self.config.neuron, name=name.format("lif"))(x)


class Block(nn.Module):
    """Spiking self-attention and MLP, each added to the residual stream after its last LIF."""

    config: SpikformerConfig
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns the residual stream [B, T, N, D], non-negative integers in inference."""
        x = x + self._drop(Attention(self.config, name="attn")(x, train), train)
        return x + self._drop(Mlp(self.config, name="mlp")(x, train), train)

    def _drop(self, branch, train):
        if not train or not self.drop_path:
            return branch
        return layers.drop_path(self.make_rng("drop_path"), branch.keep(), self.drop_path)


class Attention(nn.Module):
    """Spiking self-attention: spikes q, k, v; (q kᵀ) v / 8; a LIF in place of the softmax."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns spikes [B, T, N, D]."""
        config, D = self.config, self.config.embed_dim
        bias = config.form.qkv_bias
        q, k, v = (linear_bn_lif(name, x, D, config, train, use_bias=bias) for name in "qkv")
        y = layers.SpikingAttention(num_heads=config.num_heads, name="product")(q, k, v)
        y = LIF(ATTENTION_THRESHOLD, config.neuron, name="attn_lif")(y)
        return linear_bn_lif("proj", y, D, config, train)


class Mlp(nn.Module):
    """Two spiking linear layers with mlp_ratio * D channels between them."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns spikes [B, T, N, D]."""
        hidden = linear_bn_lif("fc1", x, self.config.hidden_dim, self.config, train)
        return linear_bn_lif("fc2", hidden, self.config.embed_dim, self.config, train)


def linear_bn_lif(name, x, features, config, train, *, use_bias=True):
    """Applies a linear map, batch normalisation and LIF owned by the calling module.

    Args:
      name: prefix of the three layers, for example "q" for q_linear, q_bn and q_lif.
      x: signal of spikes or small integers [B, T, N, C].
      features: number of output channels.
      config: the `SpikformerConfig`.
      train: whether to normalise by batch statistics.
      use_bias: whether the linear map has a bias (without effect in training: it precedes a
        normalisation; kept because published weights have it).

    Returns:
      A signal of spikes [B, T, N, features].
    """
    as_conv = layers.uniform_fan_in(x.features) if config.form.conv_init else None
    x = layers.Linear(
        features,
        use_bias=use_bias,
        dtype=config.dtype,
        kernel_init=as_conv or nn.initializers.normal(0.02),
        bias_init=as_conv or nn.initializers.zeros,
        name=f"{name}_{config.form.suffix}",
    )(x)
    x = layers.BatchNorm(name=f"{name}_bn")(x, train)
    return LIF(neuron=config.neuron, name=f"{name}_lif")(x)
