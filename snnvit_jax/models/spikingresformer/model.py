"""SpikingResformer (Shi, Hao and Yu, CVPR 2024, arXiv 2403.14302).

"SpikingResformer: Bridging ResNet and Vision Transformer in Spiking Neural Networks". Neurons stand
before linear maps and residual streams are currents, throughout. Attention multiplies spikes with
currents that one convolution makes of the same spikes, patch by patch, so that a spike only adds;
what it sums is scaled by firing rates that a running statistic keeps. Signals are [B, T, H, W, C],
in attention [B, T, N, heads, d] and [B, T, heads, patches, N].
"""

import flax.linen as nn

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.models.single_stage import dropped
from snnvit_jax.models.spikingresformer.config import STAGES, SpikingResformerConfig
from snnvit_jax.neurons import LIF

# The authors cut it at an absolute value of 2, a hundred standard deviations.
_KERNEL_INIT = nn.initializers.normal(0.02)


class SpikingResformer(nn.Module):
    """The whole network: images, normalised -> logits [B, classes], float32."""

    config: SpikingResformerConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config, pair = self.config, 0
        x = self._prologue(parts.as_signal(self, images), train)
        attention = parts.rematerialised(self, DualSpikeAttention, train)
        feed_forward = parts.rematerialised(self, FeedForward, train)
        for stage in range(STAGES):
            number = 0
            if stage:
                x = Downsample(config, config.embed_dim[stage], name=f"layers_{stage}_0")(x, train)
                number = 1
            for _ in range(config.depth[stage]):
                settings = config, stage, config.drop_path_of(pair)
                x = attention(*settings, name=f"layers_{stage}_{number}")(x, train)
                x = feed_forward(*settings, name=f"layers_{stage}_{number + 1}")(x, train)
                number, pair = number + 2, pair + 1
        head = layers.Head(
            config.num_classes, use_bias=False, kernel_init=_KERNEL_INIT, name="classifier"
        )
        return head(x)

    def _prologue(self, x, train):
        config, imagenet = self.config, self.config.stem == "imagenet"
        shape = {"kernel_size": (7, 7), "strides": 2, "padding": 3} if imagenet else {}
        x = conv(config.embed_dim[0], config, "prologue_0", **shape)(x)
        x = Norm(name="prologue_1")(x, train)
        return x.map(layers.max_pool) if imagenet else x


class Norm(nn.Module):
    """A normalisation, named as the authors name it."""

    @nn.compact
    def __call__(self, x, train):  # B K ... C
        """Returns the normalised signal [B, K, ..., C]."""
        return layers.BatchNorm(name="bn")(x, train)


class Downsample(nn.Module):
    """Spikes, a convolution that halves the sides, and its normalisation."""

    config: SpikingResformerConfig
    features: int

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns currents [B, T, H / 2, W / 2, features]."""
        x = LIF(neuron=self.config.neuron, name="activation")(x)
        x = conv(self.features, self.config, "conv", strides=2)(x)
        return Norm(name="norm")(x, train)


class DualSpikeAttention(nn.Module):
    """Dual spike self-attention, added to the stream of currents.

    Of spikes s, one convolution makes two real-valued signals y and z, a value for each patch:

        attention = spikes of (y sᵀ / sqrt(rate of s * d))
        out = spikes of (zᵀ attention / sqrt(rate of attention * patches))
    """

    config: SpikingResformerConfig
    stage: int
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns the residual stream [B, T, H, W, C]."""
        config, sides, C = self.config, x.shape[2:4], x.features
        neuron, heads = config.neuron, layers.SplitHeads(config.num_heads[self.stage])
        x = x.keep()  # the branch and the sum read it
        spikes = LIF(neuron=neuron, name="activation_in")(x).keep()  # the map and a product do
        y, z = self._transformed(spikes, heads, train)
        s = spikes.tokens().map(heads).keep()  # B K N h d
        y = self._scaled("x", y, s, -2, s.features, train)
        attention = layers.AttentionMap(name="attention_map")(y, s)  # B K h M N
        attention = LIF(neuron=neuron, name="activation_attn")(attention).keep()
        z = self._scaled("attn", z, attention, 2, config.tokens(self.stage), train)
        out = layers.AttentionValues(name="attention_values")(z, attention)  # B K N h d
        out = LIF(neuron=neuron, name="activation_out")(out.map(layers.merge_heads).images(sides))
        out = Norm(name="norm_proj")(conv1x1(C, config, "Wproj")(out), train)
        return x + dropped(self, out, self.drop_path, train)

    def _transformed(self, spikes, heads, train):
        """What one convolution makes of the spikes of each patch, twice [B, K, M, h, d]."""
        patch, C = self.config.patch_size[self.stage], spikes.features
        shape = {"kernel_size": (patch, patch), "strides": patch, "padding": 0}
        both = conv(2 * C, self.config, "W", **shape)(spikes)
        both = Norm(name="norm")(both, train).keep().tokens().map(heads)
        d = C // heads.num_heads
        return both.map(layers.Channels(0, d)), both.map(layers.Channels(d, 2 * d))

    def _scaled(self, name, x, spikes, axis, count, train):
        """A signal scaled for the sum over `count` spikes of each head."""
        rate = layers.update_firing_rate(self, f"firing_rate_{name}", spikes, axis, train)
        return layers.Scale(name=f"scale_{name}")(x, layers.RateScale(count), rate)


class FeedForward(nn.Module):
    """A grouped convolution between two maps of channels, added to the stream of currents.

    The convolution is a branch of its own beside the wider channels.
    """

    config: SpikingResformerConfig
    stage: int
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns the residual stream [B, T, H, W, C]."""
        config, stage, C = self.config, self.stage, x.features
        hidden = config.hidden_channels(stage)
        x = x.keep()  # the branch and the sum read it
        groups = hidden // config.group_sizes[stage]
        wide = self._layer("up", x, conv1x1(hidden, config, "up_1"), train).keep()
        grouped = conv(hidden, config, "conv_0_1", groups=groups)
        wide = wide + self._layer("conv_0", wide, grouped, train)
        out = self._layer("down", wide, conv1x1(C, config, "down_1"), train)
        return x + dropped(self, out, self.drop_path, train)

    def _layer(self, name, x, linear, train):
        x = LIF(neuron=self.config.neuron, name=f"{name}_0")(x)
        return Norm(name=f"{name}_2")(linear(x), train)


def conv(features, config, name, **shape):
    """Returns a convolution, 3x3 unless said otherwise.

    Args:
      features: number of output channels.
      config: a `SpikingResformerConfig`.
      name: of the layer.
      **shape: attributes of `layers.Conv`.
    """
    return layers.Conv(features, dtype=config.dtype, kernel_init=_KERNEL_INIT, name=name, **shape)


def conv1x1(features, config, name):
    """Returns a linear map of the channels of each place, a convolution of one pixel.

    Args:
      features: number of output channels.
      config: a `SpikingResformerConfig`.
      name: of the layer.
    """
    return layers.Linear(
        features, use_bias=False, dtype=config.dtype, kernel_init=_KERNEL_INIT, name=name
    )
