"""Spikingformer (Zhou et al., arXiv 2304.11954).

"Spikingformer: Spike-driven Residual Learning for Transformer-based Spiking Neural Network". A
neuron stands before each linear map and its normalisation, not behind them, so that what is added
up between blocks are currents. Every linear map but the first and the head therefore reads spikes.
Signals are [B, T, H, W, C] in the patch embedding and [B, T, N, C] in the blocks.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.models.single_stage import (
    ATTENTION_THRESHOLD,
    SingleStageConfig,
    dropped,
    normalised,
)
from snnvit_jax.neurons import LIF


@dataclasses.dataclass(frozen=True)
class SpikingformerConfig(SingleStageConfig):
    """A Spikingformer's architecture; `pool` says before which of its four neurons' readers.

    Attributes:
      stages: names of the five convolutions of the patch embedding, before "_conv"; the others are
        those of `SingleStageConfig`.
    """

    stages: tuple[str, ...] = tuple(f"block{i}" for i in range(5))

    hidden: ClassVar = ("stages",)  # belongs to a published size

    @property
    def input_layer(self):
        """Name of the linear map that reads the images."""
        return f"patch_embed/{self.stages[0]}_conv"


class Spikingformer(nn.Module):
    """The whole network: images, or frames of events -> logits [B, classes], float32."""

    config: SpikingformerConfig

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
    """Spiking tokenizer: a convolution of the image, then four of spikes, pooled before or not."""

    config: SpikingformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal of currents [B, T, H', W', D]."""
        config = self.config
        features = (*config.widths, config.embed_dim)
        x = self._conv_bn(x, config.stages[0], features[0], train)
        for i, (name, pooled) in enumerate(zip(config.stages[1:], config.pool, strict=True), 1):
            x = LIF(neuron=config.neuron, name=f"{name}_lif")(x)
            if pooled:
                x = x.map(layers.max_pool)
            x = self._conv_bn(x, name, features[i], train)
        return x

    def _conv_bn(self, x, name, features, train):
        x = layers.Conv(features, dtype=self.config.dtype, name=f"{name}_conv")(x)
        return layers.BatchNorm(name=f"{name}_bn")(x, train)


class Block(nn.Module):
    """Spiking self-attention and MLP, each added to the residual stream of currents."""

    config: SpikingformerConfig
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns the residual stream [B, T, N, D]."""
        x = x.keep()  # the branch and the sum read it
        branch = Attention(self.config, name="attn")(x, train)
        x = (x + dropped(self, branch, self.drop_path, train)).keep()
        branch = Mlp(self.config, name="mlp")(x, train)
        return x + dropped(self, branch, self.drop_path, train)


class Attention(nn.Module):
    """Spiking self-attention of what the stream makes fire: (q kᵀ) v / 8, a LIF for the softmax."""

    config: SpikingformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns currents [B, T, N, D]."""
        config, D = self.config, self.config.embed_dim
        spikes = LIF(neuron=config.neuron, name="proj_lif")(x).keep()  # q, k and v read them
        q, k, v = (self._spikes(name, spikes, train) for name in "qkv")
        y = layers.SpikingAttention(num_heads=config.num_heads, name="product")(q, k, v)
        y = LIF(ATTENTION_THRESHOLD, config.neuron, name="attn_lif")(y)
        return normalised("proj", y, D, config, train)

    def _spikes(self, name, x, train):
        config = self.config
        y = normalised(name, x, config.embed_dim, config, train, use_bias=False)
        return LIF(neuron=config.neuron, name=f"{name}_lif")(y)


class Mlp(nn.Module):
    """Two linear layers of spikes with mlp_ratio * D channels between them."""

    config: SpikingformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns currents [B, T, N, D]."""
        config = self.config
        for name, features in (("mlp1", config.hidden_dim), ("mlp2", config.embed_dim)):
            x = LIF(neuron=config.neuron, name=f"{name}_lif")(x)
            x = normalised(name, x, features, config, train)
        return x
