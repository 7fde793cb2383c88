"""What is to be chosen of a QKFormer: its sizes, and how a published form is put together."""

import dataclasses
import math
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
      stem: for each convolution of the first patch embedding: by what the channels of the first
        stage are divided to give its own, and whether its current is pooled.
      side: number of the convolution of the stem behind which the side path begins.
      embedding: names of the two convolutions of the later patch embeddings, before "_conv".
      pooled: which of those two is pooled, 0 or 1.
      blocks: number of blocks of every stage but the last.
      attention: name of the self-attention of the last stage.
      mlp: prefix of the two linear maps of an MLP.
    """

    stem: tuple[tuple[int, bool], ...]
    side: int
    embedding: tuple[str, str]
    pooled: int
    blocks: tuple[int, ...]
    attention: str
    mlp: str

    @property
    def stages(self):
        """How many stages there are."""
        return len(self.blocks) + 1

    @property
    def side_stride(self):
        """Pixels between those that the side path of the first patch embedding reads."""
        return 2 ** sum(pooled for _, pooled in self.stem[self.side + 1 :])


CIFAR_FORM = Form(
    stem=((2, False), (1, False)),
    side=0,
    embedding=("proj3", "proj4"),
    pooled=1,
    blocks=(1, 1),
    attention="ssa",
    mlp="mlp",
)
IMAGENET_FORM = Form(
    stem=((2, True), (1, True), (1, False)),
    side=0,
    embedding=("proj3", "proj4"),
    pooled=0,
    blocks=(1, 2),
    attention="attn",
    mlp="fc",
)
DVS_FORM = Form(
    stem=((8, False), (4, True), (2, True), (1, True)),
    side=1,
    embedding=("proj", "proj4"),
    pooled=1,
    blocks=(1,),
    attention="ssa",
    mlp="mlp",
)
# A share of the channels, as errors have it.
_SHARES = {1: "all", 2: "a half", 4: "a quarter"}


@dataclasses.dataclass(frozen=True)
class QKFormerConfig:
    """A QKFormer's architecture: three stages, of D / 4, D / 2 and D channels, or the last two.

    Attributes:
      num_classes: outputs, >= 1.
      image_size: height and width in pixels, divisible by the patch stride.
      time_steps: T, the most time steps a layer can use, >= 1.
      embed_dim: D, channels of the last stage; divisible by 8 (16 for event cameras), and those of
        the first stage by num_heads.
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
        parts.check_image_size(self, self.patch_stride)
        share = 2 ** (self.form.stages - 1)
        divisor = share * max(narrower for narrower, _ in self.form.stem)
        if self.embed_dim % divisor or self.widths[0] % self.num_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} must be divisible by {divisor}, and {_SHARES[share]} "
                f"of it by num_heads={self.num_heads}"
            )
        if self.depth <= sum(self.form.blocks):
            raise ValueError(
                f"depth={self.depth} must be at least {sum(self.form.blocks) + 1}: the stages "
                f"before the last have {self.form.blocks} blocks, the last the rest"
            )
        parts.check_training_settings(self)
        parts.check_positive(self, ("mlp_ratio",))
        if int(self.widths[0] * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio={self.mlp_ratio} leaves the MLP without hidden channels")

    @property
    def patch_stride(self):
        """Pixels between two neighbouring tokens of the last stage."""
        return 2 ** (sum(pooled for _, pooled in self.form.stem) + self.form.stages - 1)

    @property
    def widths(self):
        """Channels of each stage."""
        return tuple(self.embed_dim >> n for n in reversed(range(self.form.stages)))

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
