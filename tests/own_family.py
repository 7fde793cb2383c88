"""A small family of one's own, of public layers alone: what docs/own_model.md walks through."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax import layers
from snnvit_jax.models import Family, parts
from snnvit_jax.neurons import LIF, LIFNeuron, Neuron


@dataclasses.dataclass(frozen=True)
class DriftConfig:
    """Settings; `width` channels in `groups` groups, `depth` blocks."""

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    width: int
    groups: int = 2
    depth: int = 1
    neuron: Neuron = dataclasses.field(default_factory=LIFNeuron)
    dtype: DTypeLike = jnp.float32

    input_layer: ClassVar = "stem/conv"

    def __post_init__(self):
        if self.width % self.groups:
            raise ValueError(f"width={self.width} must be divisible by groups={self.groups}")
        if any(side % 4 for side in self.image_size):
            raise ValueError(f"image_size={self.image_size} must be divisible by 4")


class ConvBN(nn.Module):
    """A convolution and its normalisation: spikes, or the image, to a current."""

    config: DriftConfig
    strides: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x, train):  # B T H W C
        width, dtype = self.config.width, self.config.dtype
        conv = layers.Conv(
            width, strides=self.strides, groups=self.groups, dtype=dtype, name="conv"
        )
        return layers.BatchNorm(name="bn")(conv(x), train)


class Attention(nn.Module):
    """Element-wise attention: q fires on what k v, summed over the tokens, lets a neuron emit."""

    config: DriftConfig

    @nn.compact
    def __call__(self, x, train):  # B T N C
        x = x.keep()  # three maps read it
        q, k, v = (self._fire(self._map(name, x, train), name) for name in "qkv")
        summed = layers.TokenSum(name="sum")(k, v)
        return self._map("proj", layers.Gate(name="gate")(q, self._fire(summed, "kv")), train)

    def _map(self, name, x, train):
        x = layers.Linear(self.config.width, dtype=self.config.dtype, name=name)(x)
        return layers.BatchNorm(name=f"{name}_bn")(x, train)

    def _fire(self, x, name):
        return LIF(neuron=self.config.neuron, name=f"{name}_lif")(x)


class Drift(nn.Module):
    """A stream of currents: each branch reads its spikes and adds a current, before any neuron."""

    config: DriftConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        config = self.config
        x = ConvBN(config, strides=2, name="stem")(parts.as_signal(self, images), train)
        x = ConvBN(config, 2, config.groups, name="down")(self._fire(x, "stem_lif"), train)
        for i in range(config.depth):
            spikes = self._fire(x, f"conv_{i}_lif")
            x = x + ConvBN(config, groups=config.groups, name=f"conv_{i}")(spikes, train)
        spikes = self._fire(x, "attn_lif").tokens()
        x = x.tokens() + Attention(config, name="attn")(spikes, train)
        return layers.Head(config.num_classes, name="head")(self._fire(x, "last_lif"))

    def _fire(self, x, name):
        return LIF(neuron=self.config.neuron, name=name)(x)


# Heads are single channels here: q, k and v are divided by their outputs, proj by its inputs.
TENSOR_RULES = (
    (r"attn/[qkv]/kernel$", (None, "model")),
    (r"attn/[qkv]/bias$", ("model",)),
    (r"attn/[qkv]_bn/", ("model",)),
    (r"attn/proj/kernel$", ("model", None)),
)
FAMILY = Family(
    name="drift",
    module=Drift,
    config=DriftConfig,
    sizes={"drift_16": {"width": 16, "image_size": 8}},
    tensor_rules=TENSOR_RULES,
    divided=("width",),
)
