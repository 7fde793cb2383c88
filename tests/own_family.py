"""A small family of one's own, of public layers alone: what docs/own_model.md walks through."""

import dataclasses
import functools
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


class ConvBN(nn.Module):
    """A convolution and its normalisation: spikes, or the image, to a current."""

    config: DriftConfig
    strides: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x, train):  # B T H W C
        options = {"strides": self.strides, "groups": self.groups, "dtype": self.config.dtype}
        x = layers.Conv(self.config.width, **options, name="conv")(x)
        return layers.BatchNorm(name="bn")(x, train)


class Attention(nn.Module):
    """Element-wise attention: q fires on what k v, summed over the tokens, lets a neuron emit."""

    config: DriftConfig

    @nn.compact
    def __call__(self, x, train):  # B T N C
        x = x.keep()  # three maps read it
        fire = functools.partial(LIF, neuron=self.config.neuron)
        q, k, v = (fire(name=f"{name}_lif")(self._map(name, x, train)) for name in "qkv")
        kv = fire(name="kv_lif")(layers.TokenSum(name="sum")(k, v))
        return self._map("proj", layers.Gate(name="gate")(q, kv), train)

    def _map(self, name, x, train):
        x = layers.Linear(self.config.width, dtype=self.config.dtype, name=name)(x)
        return layers.BatchNorm(name=f"{name}_bn")(x, train)


class Drift(nn.Module):
    """A stream of currents: each branch reads its spikes and adds a current, before any neuron."""

    config: DriftConfig

    @nn.compact
    def __call__(self, images, train=False):  # B H W C, or B T H W C
        config = self.config
        fire = functools.partial(LIF, neuron=config.neuron)
        x = ConvBN(config, strides=2, name="stem")(parts.as_signal(self, images), train)
        x = ConvBN(config, 2, config.groups, name="down")(fire(name="stem_lif")(x), train)
        for i in range(config.depth):
            spikes = fire(name=f"conv_{i}_lif")(x)
            x = x + ConvBN(config, groups=config.groups, name=f"conv_{i}")(spikes, train)
        spikes = fire(name="attn_lif")(x).tokens()
        x = x.tokens() + Attention(config, name="attn")(spikes, train)
        return layers.Head(config.num_classes, name="head")(fire(name="last_lif")(x))


TENSOR_RULES = (  # q, k and v are divided by their outputs, proj by its inputs
    (r"attn/[qkv]/kernel$", (None, "model")),
    (r"attn/[qkv](/bias$|_bn/)", ("model",)),
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
