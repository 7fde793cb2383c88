"""`MetaSpikeformerConfig`: what a Meta-SpikeFormer is made of."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax.common import values
from snnvit_jax.models import parts
from snnvit_jax.neurons import LIFNeuron, Neuron
from snnvit_jax.time_steps import masks

STRIDE = 16  # pixels between two neighbouring places of the last stage
HEAD_INPUTS = ("spikes", "currents")


@dataclasses.dataclass(frozen=True)
class MetaSpikeformerConfig:
    """A Meta-SpikeFormer's architecture.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels, divisible by 16.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: channels of the four stages; the first is even, the last two, which have
        attention, are divisible by num_heads.
      num_heads: attention heads.
      depth: blocks of the two stages of attention.
      mlp_ratio: channels between two maps of an MLP, and between the two 3x3 convolutions of a
        convolution block, in units of the channels around them.
      head_input: what the head reads: "spikes" of a neuron behind the mean over space, or
        "currents", that mean itself, as in weights from before the authors changed it (March
        2024). Published weights do not say which they are of: the accuracy does.
      neuron: what all neurons share.
      drop_path: probability, in training, that an example skips a branch of the last block of
        attention; it grows linearly from 0 in the first. The published models use none.
      remat: "block" keeps only the inputs of the blocks for the backward pass and computes the
        rest again, in training; "none" keeps everything.
      dtype: of the computation (parameters and batch statistics are float32).

    Raises:
      ValueError: naming the value that does not fit.
    """

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    embed_dim: tuple[int, int, int, int]
    num_heads: int
    depth: tuple[int, int]
    mlp_ratio: float = 4.0
    head_input: str = "spikes"
    neuron: Neuron = dataclasses.field(default_factory=LIFNeuron)
    drop_path: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    input_layer: ClassVar = "downsample1_1/encode_conv"

    def __post_init__(self):
        masks.check_time_steps(self.time_steps)
        parts.check_whole_numbers(self, ("num_classes", "num_heads"))
        values.several(values.whole(1), 4).check("embed_dim", self.embed_dim)
        values.several(values.whole(1), 2).check("depth", self.depth)
        parts.check_image_size(self, STRIDE)
        if self.embed_dim[0] % 2:
            raise ValueError(f"embed_dim={self.embed_dim} must begin with an even number")
        if any(dim % self.num_heads for dim in self.embed_dim[2:]):
            raise ValueError(
                f"embed_dim={self.embed_dim} must end with two numbers divisible by "
                f"num_heads={self.num_heads}"
            )
        self._check_choices()

    def _check_choices(self):
        parts.check_positive(self, ("mlp_ratio",))
        parts.check_training_settings(self)
        if min(map(self.hidden_channels, self.all_widths)) < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves no channels between two maps")
        if self.head_input not in HEAD_INPUTS:
            raise ValueError(
                f"head_input={self.head_input!r} must be one of {', '.join(HEAD_INPUTS)}"
            )

    @property
    def all_widths(self):
        """Channels of the five stages: the first has two sides of its image, half as wide first."""
        return (self.embed_dim[0] // 2, *self.embed_dim)

    @property
    def hidden_dim(self):
        """What divides the channels between any two maps, however they are split over devices."""
        separable = (2 * width for width in self.all_widths[:4])
        return math.gcd(*separable, *map(self.hidden_channels, self.all_widths))

    def hidden_channels(self, width):
        """Returns the channels between two maps of `width` channels.

        Args:
          width: >= 1.
        """
        return int(width * self.mlp_ratio)

    def drop_path_of(self, block):
        """Returns the probability of leaving out a branch of a block of attention.

        Args:
          block: its number, from 0, counted over both stages.
        """
        return parts.drop_path_of(self, block, sum(self.depth))
