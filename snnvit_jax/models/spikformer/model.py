"""Spikformer (Zhou et al., "Spikformer: When Spiking Neural Network Meets Transformer", ICLR 2023).

All published forms. They differ in where the patch embedding pools (CIFAR: after its last two
stages; ImageNet and event cameras: after all four), in the names, biases and initial values of
their linear maps, and in the factor of their attention.
Signals are [B, T, H, W, C] in the patch embedding and [B, T, N, C] in the blocks.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.models.single_stage import ATTENTION_THRESHOLD, SingleStageConfig, dropped
from snnvit_jax.neurons import LIF


@dataclasses.dataclass(frozen=True)
class LinearForm:
    """How a published form of Spikformer writes its linear maps.

    Attributes:
      suffix: of the layers' names ("q_linear" or "q_conv").
      qkv_bias: whether q, k and v have a bias.
      conv_init: initial values of a PyTorch convolution; otherwise normal with deviation 0.02.
      scale: constant factor of the attention, which no weight shows.
    """

    suffix: str
    qkv_bias: bool
    conv_init: bool
    scale: float = 0.125


CIFAR_FORM = LinearForm("linear", qkv_bias=True, conv_init=False)
IMAGENET_FORM = LinearForm("conv", qkv_bias=False, conv_init=True)
DVS_FORM = LinearForm("conv", qkv_bias=False, conv_init=True, scale=0.25)


@dataclasses.dataclass(frozen=True)
class SpikformerConfig(SingleStageConfig):
    """A Spikformer's architecture.

    Attributes:
      form: how linear maps are written; the others are those of `SingleStageConfig`.
    """

    form: LinearForm = CIFAR_FORM

    hidden: ClassVar = ("form",)  # belongs to a published size


class Spikformer(nn.Module):
    """The whole network: images, or frames of events -> logits [B, classes], float32."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config = self.config
        x = parts.as_signal(self, images)
        x = PatchEmbedding(config, name="patch_embed")(x, train).tokens()
        block = parts.rematerialised(self, Block, train)
        for i in range(config.depth):
            x = block(config, config.drop_path_of(i), name=f"block_{i}")(x, train)
        return layers.Head(config.num_classes, name="head")(x)


class PatchEmbedding(nn.Module):
    """Spiking patch splitting: four convolution stages, then a relative position embedding."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal [B, T, H', W', D] with values in {0, 1, 2}."""
        D, pool = self.config.embed_dim, self.config.pool
        for i, features in enumerate(self.config.widths):
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
        branch = Attention(self.config, name="attn")(x, train)
        x = x + dropped(self, branch, self.drop_path, train)
        branch = Mlp(self.config, name="mlp")(x, train)
        return x + dropped(self, branch, self.drop_path, train)


class Attention(nn.Module):
    """Spiking self-attention: spikes q, k, v; (q kᵀ) v times a factor; a LIF for the softmax."""

    config: SpikformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns spikes [B, T, N, D]."""
        config, D = self.config, self.config.embed_dim
        bias = config.form.qkv_bias
        q, k, v = (linear_bn_lif(name, x, D, config, train, use_bias=bias) for name in "qkv")
        product = layers.SpikingAttention(
            num_heads=config.num_heads, scale=config.form.scale, name="product"
        )
        y = product(q, k, v)
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
