"""Spike-driven Transformer (Yao et al., "Spike-driven Transformer", NeurIPS 2023), version 1.

Neurons stand before the linear maps and residual streams are currents, as in Spikingformer.
Attention multiplies no matrices: k and v are compared element by element and counted over the
tokens, a neuron turns the count of each channel into spikes, and these mask q. Its cost grows
linearly with tokens and channels. Signals are [B, T, H, W, C] in the patch embedding and
[B, T, N, C] in the blocks.
"""

import dataclasses

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

_KERNEL_INIT = nn.initializers.normal(0.02)  # of convolutions; their biases start at zero


@dataclasses.dataclass(frozen=True)
class SpikeDrivenConfig(SingleStageConfig):
    """A Spike-driven Transformer's architecture.

    Attributes:
      dvs_mode: whether attention pools k, v and their products over 3x3 neighbours, as the authors
        do for CIFAR10-DVS; the others are those of `SingleStageConfig`. Without it `num_heads`
        changes no number that is computed: what it divides is counted channel by channel. It is
        kept because published weights depend on it.
    """

    dvs_mode: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.dvs_mode, bool):
            raise ValueError(f"dvs_mode={self.dvs_mode!r} must be True or False")

    @property
    def sides(self):
        """Height and width of the image whose places are the tokens."""
        return tuple(side // self.patch_stride for side in self.image_size)


class SpikeDrivenTransformer(nn.Module):
    """The whole network: images, or frames of events -> logits [B, classes], float32."""

    config: SpikeDrivenConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config = self.config
        x = parts.as_signal(self, images)
        x = PatchEmbedding(config, name="patch_embed")(x, train).tokens()
        block = parts.rematerialised(self, Block, train)
        for i in range(config.depth):
            x = block(config, config.drop_path_of(i), name=f"block_{i}")(x, train)
        x = LIF(neuron=config.neuron, name="head_lif")(x.map(layers.mean_over_space))
        init = layers.uniform_fan_in(config.embed_dim)
        head = layers.Head(config.num_classes, kernel_init=init, bias_init=init, name="head")
        return head(x)


class PatchEmbedding(nn.Module):
    """Four convolutions, and a position embedding added to the currents of the last.

    The last one pools currents, before the neuron; the others pool spikes.
    """

    config: SpikeDrivenConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns a signal of currents [B, T, H', W', D]."""
        config = self.config
        for i, (features, pooled) in enumerate(zip(config.widths, config.pool, strict=True)):
            number, last = str(i) if i else "", i == 3
            x = self._conv_bn(x, "proj_{}" + number, features, train)
            if pooled and last:
                x = x.map(layers.max_pool)
            if last:
                x = x.keep()  # the neuron and the sum read it
            stream = x
            x = LIF(neuron=config.neuron, name=f"proj_lif{number}")(x)
            if pooled and not last:
                x = x.map(layers.max_pool)
        return stream + self._conv_bn(x, "rpe_{}", config.embed_dim, train)

    def _conv_bn(self, x, name, features, train):
        x = layers.Conv(
            features,
            dtype=self.config.dtype,
            kernel_init=_KERNEL_INIT,
            name=name.format("conv"),
        )(x)
        return layers.BatchNorm(name=name.format("bn"))(x, train)


class Block(nn.Module):
    """Spike-driven self-attention and MLP, each added to the residual stream of currents."""

    config: SpikeDrivenConfig
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
    """Spike-driven self-attention: q masked by spikes of the sums of k v over the tokens.

    In `dvs_mode`, a maximum over 3x3 neighbours in the image spreads k and v first, and one over
    neighbouring tokens, in reading order, and channels of a head their products and what is masked.
    """

    config: SpikeDrivenConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns currents [B, T, N, D]."""
        config = self.config
        heads = config.num_heads if config.dvs_mode else 0
        spikes = LIF(neuron=config.neuron, name="shortcut_lif")(x).keep()  # q, k and v read them
        q, k, v = (self._spikes(name, spikes, train) for name in "qkv")
        if config.dvs_mode:
            k, v = (s.images(config.sides).map(layers.Dilate()).tokens() for s in (k, v))
        kv = layers.TokenSum(dilated_heads=heads, name="token_sum")(k, v)
        kv = LIF(ATTENTION_THRESHOLD, config.neuron, name="talking_heads_lif")(kv)
        y = layers.Gate(name="gate")(q, kv)
        y = y.map(layers.DilateHeads(heads)) if config.dvs_mode else y
        return normalised("proj", y, config.embed_dim, config, train, init=_KERNEL_INIT)

    def _spikes(self, name, x, train):
        config, D = self.config, self.config.embed_dim
        y = normalised(name, x, D, config, train, use_bias=False, init=_KERNEL_INIT)
        return LIF(neuron=config.neuron, name=f"{name}_lif")(y)


class Mlp(nn.Module):
    """Two linear layers of spikes with mlp_ratio * D channels between them.

    With as many channels between them as D, the stream goes past the first as well: the second
    neuron reads the sum of the stream and of the first's currents.
    """

    config: SpikeDrivenConfig

    @nn.compact
    def __call__(self, x, train):  # B T N D
        """Returns currents [B, T, N, D]."""
        D, hidden_dim = self.config.embed_dim, self.config.hidden_dim
        first = self._layer("fc1", x, hidden_dim, train)
        if hidden_dim != D:
            return self._layer("fc2", first, D, train)
        first = first.keep()  # both sums read it
        return first + self._layer("fc2", x + first, D, train)

    def _layer(self, name, x, features, train):
        x = LIF(neuron=self.config.neuron, name=f"{name}_lif")(x)
        return normalised(name, x, features, self.config, train, init=_KERNEL_INIT)
