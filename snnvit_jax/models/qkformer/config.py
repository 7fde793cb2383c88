"""What is to be chosen of a QKFormer: its sizes, and how a published form is put together."""

import dataclasses
import math
import numbers
from typing import ClassVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from snnvit_jax.models import parts
from snnvit_jax.neurons import LIFNeuron, Neuron
from snnvit_jax.time_steps import masks


@dataclasses.dataclass(frozen=True)
class Form:
    """How a published form of QKFormer is put together.

    Attributes:
      stem: for each convolution of the first patch embedding, whether its current is pooled; all
        but the first have the channels of the first stage.
      pooled: which of the two convolutions of the later patch embeddings is pooled, 0 or 1.
      blocks: number of blocks of the first and of the second stage.
      attention: name of the self-attention of the last stage.
      mlp: prefix of the two linear maps of an MLP.
    """

    stem: tuple[bool, ...]
    pooled: int
    blocks: tuple[int, int]
    attention: str
    mlp: str


CIFAR_FORM = Form((False, False), pooled=1, blocks=(1, 1), attention="ssa", mlp="mlp")
IMAGENET_FORM = Form((True, True, False), pooled=0, blocks=(1, 2), attention="attn", mlp="fc")


@dataclasses.dataclass(frozen=True)
class QKFormerConfig:
    """A QKFormer's architecture: three stages, of D / 4, D / 2 and D channels.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels, divisible by the patch stride.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: D, channels of the last stage; divisible by 8, and a quarter of it by num_heads.
      num_heads: attention heads, as many in every stage.
      depth: number of blocks in all.
      mlp_ratio: hidden channels of an MLP, in units of its stage's channels.
      form: how the model is put together.
      neuron: what all neurons share.
      drop_path: probability, in training, that an example skips a branch of the last block; it
        grows linearly from 0 in the first block. (The authors' drop-path has no effect.)
      remat: "block" keeps only the inputs of the blocks for the backward pass and computes the rest
        again, in training; "none" keeps everything.
      dtype: of the computation (parameters and batch statistics are float32).

    Raises:
      ValueError: naming the value that does not fit.
    """

    num_classes: int
    image_size: tuple[int, int]
    time_steps: int
    embed_dim: int
    num_heads: int
    depth: int
    mlp_ratio: float = 4.0
    form: Form = CIFAR_FORM
    neuron: Neuron = dataclasses.field(default_factory=LIFNeuron)
    drop_path: float = 0.0
    remat: str = "none"
    dtype: DTypeLike = jnp.float32

    hidden: ClassVar = ("form",)  # belongs to a published size
    input_layer: ClassVar = "patch_embed1/proj_conv"

    def __post_init__(self):
        masks.check_time_steps(self.time_steps)
        parts.check_whole_numbers(self, ("num_classes", "embed_dim", "num_heads", "depth"))
        stride = self.patch_stride
        if any(
            not isinstance(side, numbers.Integral) or side < 1 or side % stride
            for side in self.image_size
        ):
            raise ValueError(
                f"image_size={self.image_size} must be whole numbers divisible by the patch stride "
                f"{stride}"
            )
        if self.embed_dim % 8 or self.widths[0] % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} must be divisible by 8, and a quarter of it by "
                f"num_heads={self.num_heads}"
            )
        if self.depth <= sum(self.form.blocks):
            raise ValueError(
                f"depth={self.depth} must be at least {sum(self.form.blocks) + 1}: the first two "
                f"stages have {self.form.blocks} blocks, the last the rest"
            )
        parts.check_training_settings(self)
        parts.check_positive(self, ("mlp_ratio",))
        if int(self.widths[0] * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves the MLP without hidden channels")

    @property
    def patch_stride(self):
        """Pixels between two neighbouring tokens of the last stage."""
        return 2 ** (sum(self.form.stem) + 2)

    @property
    def widths(self):
        """Channels of the three stages."""
        return self.embed_dim // 4, self.embed_dim // 2, self.embed_dim

    @property
    def hidden_dim(self):
        """What divides the hidden channels of every MLP, however they are split over devices."""
        return math.gcd(*(int(width * self.mlp_ratio) for width in self.widths))

    @property
    def blocks(self):
        """Number of blocks of each stage."""
        return (*self.form.blocks, self.depth - sum(self.form.blocks))

    def drop_path_of(self, block):
        """Returns the probability of leaving out a branch of a block.

        Args:
          block: its number among all blocks, from 0.
        """
        return parts.drop_path_of(self, block, self.depth)
