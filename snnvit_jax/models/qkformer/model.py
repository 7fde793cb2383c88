"""QKFormer (Zhou et al., NeurIPS 2024, arXiv 2403.16552).

"QKFormer: Hierarchical Spiking Transformer using Q-K Attention". Three stages (two for event
cameras), each a patch embedding with a side path of its own and then blocks; the last has spiking
self-attention, the others weigh whole tokens (token QK attention, linear in their number).
Residuals add spikes.
Signals are [B, T, H, W, C] in the patch embeddings and [B, T, N, C] in the blocks.

The authors' code hands the last neurons of a self-attention time and batch as one axis, so that
they integrate from one image into the next. Here every image is by itself; see `family` for what
that means for published weights.
"""

import flax.linen as nn

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.models.qkformer.config import QKFormerConfig
from snnvit_jax.models.single_stage import ATTENTION_THRESHOLD, dropped, normalised
from snnvit_jax.neurons import LIF


class QKFormer(nn.Module):
    """The whole network: images, or frames of events -> logits [B, classes], float32."""

    config: QKFormerConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config, number = self.config, 0
        x = parts.as_signal(self, images)
        block = parts.rematerialised(self, Block, train)
        for stage, count in enumerate(config.blocks, 1):
            embedding = PatchEmbedInit if stage == 1 else PatchEmbeddingStage
            width = config.widths[stage - 1]
            x = embedding(config, width, name=f"patch_embed{stage}")(x, train)
            sides, x = x.shape[2:4], x.tokens()
            for i in range(count):
                settings = config, stage == config.form.stages, config.drop_path_of(number)
                x = block(*settings, name=f"stage{stage}_{i}")(x, train)
                number += 1
            if stage < config.form.stages:
                x = x.images(sides)
        return layers.Head(config.num_classes, name="head")(x)


class PatchEmbedInit(nn.Module):
    """Convolutions of the image, and a side path from behind one of them."""

    config: QKFormerConfig
    features: int

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal [B, T, H', W', features] with values in {0, 1, 2}."""
        config, form = self.config, self.config.form
        for i, (narrower, pooled) in enumerate(form.stem):
            width = self.features // narrower
            x = conv_lif(f"proj{i or ''}", x, width, config, train, pooled=pooled)
            if i == form.side:
                x = x.keep()  # the side path reads it too
                side = x
        return x + side_lif(side, self.features, form.side_stride, config, train)


class PatchEmbeddingStage(nn.Module):
    """Two convolutions that halve the image and double the channels, and a side path."""

    config: QKFormerConfig
    features: int

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal [B, T, H / 2, W / 2, features] with values in {0, 1, 2}."""
        x = x.keep()  # both paths read it
        side = x
        for i, name in enumerate(self.config.form.embedding):
            pooled = i == self.config.form.pooled
            x = conv_lif(name, x, self.features, self.config, train, pooled=pooled)
        return x + side_lif(side, self.features, 2, self.config, train)


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream after its last LIF."""

    config: QKFormerConfig
    last_stage: bool
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B T N C
        """Returns the residual stream [B, T, N, C], non-negative integers in inference."""
        config = self.config
        attention, name = (
            (SelfAttention, config.form.attention)
            if self.last_stage
            else (TokenQKAttention, "tssa")
        )
        x = x.keep()  # the branch and the sum read it
        branch = attention(config, name=name)(x, train)
        x = (x + dropped(self, branch, self.drop_path, train)).keep()
        branch = Mlp(config, name="mlp")(x, train)
        return x + dropped(self, branch, self.drop_path, train)


class TokenQKAttention(nn.Module):
    """A token's values k pass, in each head, where the number of its spikes q makes a LIF fire."""

    config: QKFormerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N C
        """Returns spikes [B, T, N, C]."""
        config = self.config
        q, k = (linear_lif(n, x, x.features, config, train, use_bias=False) for n in "qk")
        heads = layers.SplitHeads(config.num_heads)
        total = layers.HeadSum(name="head_sum")(q.map(heads))
        mask = LIF(ATTENTION_THRESHOLD, config.neuron, name="attn_lif")(total)
        y = layers.Gate(name="gate")(mask.map(layers.as_heads), k.map(heads))
        return linear_lif("proj", y.map(layers.merge_heads), x.features, config, train)


class SelfAttention(nn.Module):
    """Spiking self-attention: spikes q, k, v; (q kᵀ) v / 8; a LIF in place of the softmax."""

    config: QKFormerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N C
        """Returns spikes [B, T, N, C]."""
        config = self.config
        q, k, v = (linear_lif(n, x, x.features, config, train, use_bias=False) for n in "qkv")
        y = layers.SpikingAttention(num_heads=config.num_heads, name="product")(q, k, v)
        y = LIF(ATTENTION_THRESHOLD, config.neuron, name="attn_lif")(y)
        return linear_lif("proj", y, x.features, config, train)


class Mlp(nn.Module):
    """Two spiking linear layers with mlp_ratio * C channels between them."""

    config: QKFormerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N C
        """Returns spikes [B, T, N, C]."""
        config, prefix, width = self.config, self.config.form.mlp, x.features
        x = linear_lif(f"{prefix}1", x, int(width * config.mlp_ratio), config, train)
        return linear_lif(f"{prefix}2", x, width, config, train)


def linear_lif(name, x, features, config, train, *, use_bias=True):
    """Applies a linear map, its normalisation and a LIF owned by the calling module.

    Args:
      name: prefix of the three layers, for example "q" for q_conv, q_bn and q_lif.
      x: signal [B, K, N, C].
      features: number of output channels.
      config: a `QKFormerConfig`.
      train: whether to normalise by batch statistics.
      use_bias: whether the linear map has a bias.

    Returns:
      A signal of spikes [B, T, N, features].
    """
    x = normalised(name, x, features, config, train, use_bias=use_bias)
    return LIF(neuron=config.neuron, name=f"{name}_lif")(x)


def conv_lif(name, x, features, config, train, *, pooled):
    """Applies a 3x3 convolution, its normalisation, pooling of the current if any, and a LIF.

    Args:
      name: prefix of the layers.
      x: signal [B, K, H, W, C].
      features: number of output channels.
      config: a `QKFormerConfig`.
      train: whether to normalise by batch statistics.
      pooled: whether the image is halved.

    Returns:
      A signal of spikes [B, T, H', W', features].
    """
    x = layers.Conv(features, dtype=config.dtype, name=f"{name}_conv")(x)
    x = layers.BatchNorm(name=f"{name}_bn")(x, train)
    x = x.map(layers.max_pool) if pooled else x
    return LIF(neuron=config.neuron, name=f"{name}_lif")(x)


def side_lif(x, features, stride, config, train):
    """Applies a strided convolution of one pixel, its normalisation and a LIF: a side path.

    Args:
      x: signal [B, K, H, W, C].
      features: number of output channels.
      stride: between the pixels that are read.
      config: a `QKFormerConfig`.
      train: whether to normalise by batch statistics.

    Returns:
      A signal of spikes [B, T, H / stride, W / stride, features].
    """
    settings = {"kernel_size": (1, 1), "strides": stride, "padding": 0, "dtype": config.dtype}
    x = layers.Conv(features, **settings, name="proj_res_conv")(x)
    x = layers.BatchNorm(name="proj_res_bn")(x, train)
    return LIF(neuron=config.neuron, name="proj_res_lif")(x)
