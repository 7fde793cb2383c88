"""Meta-SpikeFormer: four stages, two of convolutions and two of attention.

(Yao et al., "Spike-driven Transformer V2: Meta Spiking Neural Network Architecture Inspiring the
Design of Next-generation Neuromorphic Chips", ICLR 2024.) Neurons stand before linear maps and
residual streams are currents, throughout. Queries, keys, values and projection of an attention are
chains of convolutions without a neuron between them, which inference can write as one. Signals are
[B, T, H, W, C], in attention and MLP [B, T, N, C].
"""

import flax.linen as nn

from snnvit_jax import layers
from snnvit_jax.models import parts
from snnvit_jax.models.metaspikeformer.config import MetaSpikeformerConfig
from snnvit_jax.models.single_stage import ATTENTION_THRESHOLD, dropped
from snnvit_jax.neurons import LIF

# Stages of convolutions: (convolution that leads there, side of its kernel, blocks behind it).
_STAGES = (
    ("downsample1_1", 7, ("ConvBlock1_1_0",)),
    ("downsample1_2", 3, ("ConvBlock1_2_0",)),
    ("downsample2", 3, ("ConvBlock2_1_0", "ConvBlock2_2_0")),
)


class MetaSpikeformer(nn.Module):
    """The whole network: images, normalised -> logits [B, classes], float32."""

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        """Returns the logits of images; `train` normalises by batch statistics and updates them."""
        config = self.config
        x = parts.as_signal(self, images)
        conv_block = parts.rematerialised(self, ConvBlock, train)
        stages = zip(_STAGES, config.all_widths[:3], strict=True)
        for i, ((name, kernel, blocks), width) in enumerate(stages):
            x = Downsample(config, width, kernel, reads_image=i == 0, name=name)(x, train)
            for block in blocks:
                x = conv_block(config, name=block)(x, train)
        for stage, stride in ((0, 2), (1, 1)):
            width, name = config.embed_dim[2 + stage], f"downsample{3 + stage}"
            x = Downsample(config, width, stride=stride, name=name)(x, train)
            x = self._attention(x, stage, train)
        return self._head(x)

    def _attention(self, x, stage, train):
        block, before = parts.rematerialised(self, Block, train), self.config.depth[0]
        for i in range(self.config.depth[stage]):
            drop_path = self.config.drop_path_of(i + stage * before)
            x = block(self.config, drop_path, name=f"block{3 + stage}_{i}")(x, train)
        return x

    def _head(self, x):
        if self.config.head_input == "spikes":
            x = LIF(neuron=self.config.neuron, name="lif")(x.map(layers.mean_over_space))
        return layers.Head(self.config.num_classes, name="head")(x)


class Downsample(nn.Module):
    """Spikes, a convolution that may halve the image, and its normalisation.

    Attributes:
      config: of the model.
      features: number of output channels.
      kernel: side of the convolution's kernel.
      stride: of the convolution.
      reads_image: whether there is no neuron before the convolution.
    """

    config: MetaSpikeformerConfig
    features: int
    kernel: int = 3
    stride: int = 2
    reads_image: bool = False

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns currents [B, K, H', W', features]."""
        if not self.reads_image:
            x = LIF(neuron=self.config.neuron, name="encode_lif")(x)
        x = layers.Conv(
            self.features,
            kernel_size=(self.kernel, self.kernel),
            strides=self.stride,
            padding=self.kernel // 2,
            use_bias=True,
            dtype=self.config.dtype,
            name="encode_conv",
        )(x)
        return layers.BatchNorm(name="encode_bn")(x, train)


class ConvBlock(nn.Module):
    """A separable convolution and two full ones, each added to the stream of currents."""

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns the residual stream [B, T, H, W, C]."""
        config, x = self.config, x.keep()  # the branch and the sum read it
        x = (x + SeparableConv(config, name="Conv")(x, train)).keep()
        y = x
        for i, features in ((1, config.hidden_channels(x.features)), (2, x.features)):
            y = LIF(neuron=config.neuron, name=f"lif{i}")(y)
            y = layers.Conv(features, dtype=config.dtype, name=f"conv{i}")(y)
            y = layers.BatchNorm(name=f"bn{i}")(y, train)
        return x + y


class SeparableConv(nn.Module):
    """Twice the channels, a 7x7 convolution of each, and back, which both read real values."""

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns currents [B, T, H, W, C]."""
        config, C = self.config, x.features
        x = LIF(neuron=config.neuron, name="lif1")(x)
        x = conv1x1(2 * C, config, "pwconv1")(x)
        x = layers.BatchNorm(name="bn1")(x, train)
        x = LIF(neuron=config.neuron, name="lif2")(x)
        x = layers.Conv(
            2 * C,
            kernel_size=(7, 7),
            padding=3,
            groups=2 * C,
            dtype=config.dtype,
            name="dwconv",
        )(x)
        x = conv1x1(C, config, "pwconv2")(x)
        return layers.BatchNorm(name="bn2")(x, train)


class Block(nn.Module):
    """Spiking self-attention and MLP, each added to the stream of currents."""

    config: MetaSpikeformerConfig
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns the residual stream [B, T, H, W, C]."""
        x = x.keep()  # the branch and the sum read it
        branch = Attention(self.config, name="attn")(x, train)
        x = (x + dropped(self, branch, self.drop_path, train)).keep()
        branch = Mlp(self.config, name="mlp")(x, train)
        return x + dropped(self, branch, self.drop_path, train)


class Attention(nn.Module):
    """Spiking self-attention, (q kᵀ) v / 8, with chains of convolutions for its linear maps."""

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, x, train):  # B K H W C
        """Returns currents [B, T, H, W, C]."""
        config, sides = self.config, x.shape[2:4]
        spikes = LIF(neuron=config.neuron, name="head_lif")(x).keep()  # q, k and v read them
        currents = [self._chain(name, spikes, train) for name in "qkv"]
        q, k, v = (
            LIF(neuron=config.neuron, name=f"{name}_lif")(current).tokens()
            for name, current in zip("qkv", currents, strict=True)
        )
        y = layers.SpikingAttention(num_heads=config.num_heads, name="product")(q, k, v)
        y = LIF(ATTENTION_THRESHOLD, config.neuron, name="attn_lif")(y)
        return self._chain("proj", y.images(sides), train)

    def _chain(self, name, x, train):
        x = RepConv(self.config, name=f"{name}_conv_0")(x, train)
        return layers.BatchNorm(name=f"{name}_conv_1")(x, train)


class RepConv(nn.Module):
    """What a 3x3 convolution is trained as: a map of channels, one of each channel's image, a map.

    The image of a channel is padded with what the first normalisation makes of zero, so that in
    inference all of it is one convolution padded with zeros.
    """

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T H W C
        """Returns currents [B, T, H, W, C]."""
        dtype, C = self.config.dtype, x.features
        x = conv1x1(C, self.config, "body_0")(x)
        x = PaddedNorm(name="body_1")(x, train)
        x = layers.Conv(C, padding=0, groups=C, dtype=dtype, name="body_2_0")(x)
        x = conv1x1(C, self.config, "body_2_1")(x)
        return layers.BatchNorm(name="body_2_2")(x, train)


class PaddedNorm(nn.Module):
    """A normalisation, named as the authors name it, that pads by one pixel."""

    @nn.compact
    def __call__(self, x, train):  # B T H W C
        """Returns a signal [B, T, H + 2, W + 2, C]."""
        return layers.BatchNorm(pad=1, name="bn")(x, train)


class Mlp(nn.Module):
    """Two linear maps of spikes with mlp_ratio times the channels between them."""

    config: MetaSpikeformerConfig

    @nn.compact
    def __call__(self, x, train):  # B T H W C
        """Returns currents [B, T, H, W, C]."""
        config, sides, C = self.config, x.shape[2:4], x.features
        x = x.tokens()
        for name, features in (("fc1", config.hidden_channels(C)), ("fc2", C)):
            x = LIF(neuron=config.neuron, name=f"{name}_lif")(x)
            x = conv1x1(features, config, f"{name}_conv", use_bias=True)(x)
            x = layers.BatchNorm(name=f"{name}_bn")(x, train)
        return x.images(sides)


def conv1x1(features, config, name, *, use_bias=False):
    """Returns a linear map of the channels of each place, a convolution of one pixel.

    Args:
      features: number of output channels.
      config: a `MetaSpikeformerConfig`.
      name: of the layer.
      use_bias: whether a bias is added.
    """
    return layers.Linear(
        features,
        use_bias=use_bias,
        dtype=config.dtype,
        kernel_init=None,
        bias_init=None,
        name=name,
    )
