"""`SpikingResformerConfig`: what a SpikingResformer is made of."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax.common import values
from snnvit_jax.models import parts
from snnvit_jax.neurons import LIFNeuron, Neuron
from snnvit_jax.time_steps import masks

STAGES = 3
STEMS = {"small": 1, "imagenet": 4}  # name -> pixels between two places behind it


@dataclasses.dataclass(frozen=True)
class SpikingResformerConfig:
    """A SpikingResformer's architecture: three stages, each of half the sides of the one before.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels; those of a stage are whole numbers of its patches.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: channels of each stage, divisible by its heads.
      num_heads: attention heads of each stage.
      depth: pairs of attention and feed-forward network of each stage.
      patch_size: places of each stage, along either axis, that attention reads as one.
      group_size: channels of a group of the convolution in a feed-forward network, which has
        mlp_ratio times the channels of its stage; one number or one for each stage.
      mlp_ratio: channels of a feed-forward network, in units of those of its stage.
      stem: "small", a 3x3 convolution that keeps the sides, or "imagenet", a 7x7 convolution and a
        pooling that leave a quarter of them.
      neuron: what all neurons share.
      drop_path: probability, in training, that an example skips a branch of the last pair; it
        grows linearly from 0 in the first. The published models use none.
      remat: "block" keeps only the inputs of the branches for the backward pass and computes the
        rest again, in training; "none" keeps everything.
      dtype: of the computation (parameters and statistics are float32).

    Raises:
      ValueError: naming the value that does not fit.
    """

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    embed_dim: tuple[int, int, int]
    num_heads: tuple[int, int, int]
    depth: tuple[int, int, int] = (1, 2, 3)
    patch_size: tuple[int, int, int] = (4, 2, 1)
    group_size: int | tuple[int, int, int] = 64
    mlp_ratio: float = 4.0
    stem: str = "small"
    neuron: Neuron = dataclasses.field(default_factory=lambda: LIFNeuron(surrogate="arctan"))
    drop_path: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    hidden: ClassVar = ("stem",)  # belongs to a published size
    input_layer: ClassVar = "prologue_0"

    def __post_init__(self):
        masks.check_time_steps(self.time_steps)
        parts.check_whole_numbers(self, ("num_classes",))
        parts.check_positive(self, ("mlp_ratio",))
        if self.stem not in STEMS:
            raise ValueError(f"stem={self.stem!r} must be one of {', '.join(STEMS)}")
        for name in ("embed_dim", "num_heads", "depth", "patch_size"):
            values.several(values.whole(1), STAGES).check(name, getattr(self, name))
        values.one_or_several(values.whole(1), STAGES).check("group_size", self.group_size)
        values.several(values.whole(1), 2).check("image_size", self.image_size)
        for dim, heads in zip(self.embed_dim, self.num_heads, strict=True):
            if dim % heads:
                raise ValueError(
                    f"embed_dim={self.embed_dim} must be divisible by num_heads={self.num_heads}, "
                    "stage by stage"
                )
        self._check_sides()
        self._check_groups()
        parts.check_training_settings(self)

    def _check_sides(self):
        for stage, patch in enumerate(self.patch_size):
            unit = self.stride(stage) * patch
            if any(side % unit for side in self.image_size):
                raise ValueError(
                    f"image_size={self.image_size} must be divisible by {unit}: stage {stage + 1} "
                    f"has a place for {self.stride(stage)} pixels, of which attention reads "
                    f"patch_size={self.patch_size} as one"
                )

    def _check_groups(self):
        for stage, size in enumerate(self.group_sizes):
            hidden = self.hidden_channels(stage)
            if hidden < 1 or hidden % size:
                raise ValueError(
                    f"embed_dim={self.embed_dim} times mlp_ratio={self.mlp_ratio} must be "
                    f"divisible by group_size={self.group_size}; stage {stage + 1} has {hidden} "
                    "channels"
                )

    @property
    def group_sizes(self):
        """Channels of a group, of each stage."""
        size = self.group_size
        return tuple(size) if isinstance(size, (tuple, list)) else (size,) * STAGES

    @property
    def hidden_groups(self):
        """What divides the number of groups of every feed-forward network."""
        stages = enumerate(self.group_sizes)
        return math.gcd(*(self.hidden_channels(stage) // size for stage, size in stages))

    def stride(self, stage):
        """Returns the pixels between two neighbouring places of a stage.

        Args:
          stage: its number, from 0.
        """
        return STEMS[self.stem] * 2**stage

    def tokens(self, stage):
        """Returns how many patches attention reads in a stage.

        Args:
          stage: its number, from 0.
        """
        unit = self.stride(stage) * self.patch_size[stage]
        return math.prod(side // unit for side in self.image_size)

    def hidden_channels(self, stage):
        """Returns the channels of a feed-forward network.

        Args:
          stage: its number, from 0.
        """
        return int(self.embed_dim[stage] * self.mlp_ratio)

    def drop_path_of(self, pair):
        """Returns the probability of leaving out a branch of a pair.

        Args:
          pair: its number among those of all stages, from 0.
        """
        return parts.drop_path_of(self, pair, sum(self.depth))
